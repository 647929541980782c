"""Keras' JAX and torch backends: what trains, validates and fails there does so as in Keras' own `fit`.

Keras has one backend a process, and this one's is another. So a process for each backend, started once, runs all of
`checks.py` and tells how each went; a test here is the word on one of them.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKS = re.findall(r"^def (check_\w+)", Path(__file__).with_name("checks.py").read_text(), re.MULTILINE)
NAMES = [
    (backend, name)
    for backend in ("jax", "torch")
    for name in CHECKS
    if name.startswith(("check_that_", f"check_of_{backend}_"))
]


class Running:
    """The process of one backend's checks."""

    def __init__(self, backend, folder):
        self.results = {}
        self.errors = folder / "errors"
        environment = {
            "KERAS_BACKEND": backend,
            "PYTHONPATH": str(Path.cwd()),
            # Models that are alike are compiled once.
            "JAX_COMPILATION_CACHE_DIR": str(folder),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "tests.backends.checks"],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def result(self, name):
        """How a check went; waits until it has."""
        while name not in self.results:
            line = self.process.stdout.readline()
            assert line, f"the process has ended: {self.errors.read_text()}"
            if line.startswith("{"):
                self.results.update(json.loads(line))
        return self.results[name]


@pytest.fixture(scope="session")
def result_of(tmp_path_factory):
    """The result of a backend's check; all checks of a backend begin with the first that is asked for."""
    running = {}

    def result(backend, name):
        if backend not in running:
            running[backend] = Running(backend, tmp_path_factory.mktemp(backend))
        return running[backend].result(name)

    yield result
    for one in running.values():
        one.process.stdout.read()  # it ends its Ray before itself
        one.process.wait()
        one.process.stdout.close()


@pytest.mark.parametrize(("backend", "name"), NAMES, ids=lambda value: value.removeprefix("check_"))
def test_a_backend_is_fed_as_keras_feeds_it(backend, name, result_of):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: `make backends` installs it")
    failure = result_of(backend, name)
    assert not failure, failure
