"""E8: a terminal and a notebook show a bar that moves; a log has a line where something is over."""

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from tests.conftest import start_script

pytestmark = pytest.mark.slow

SCRIPT = """
import functools
import sys

import keras
import numpy as np

import rayfeed


class Zeros(rayfeed.Sequence):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        return np.zeros((2, 1), "float32"), np.zeros((2, 1), "float32")


class Says(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        print("said once")


def draw(where, fit):
    for verbose in (1, "auto"):
        print(f"== {where} {verbose}", flush=True)
        fit(Zeros(), epochs=2, verbose=verbose, workers=0)


model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
here = functools.partial(rayfeed.fit_generator, model, trainer="driver")
draw("driver", here)
with rayfeed.Trainer(model) as trainer:
    draw("actor", functools.partial(trainer.fit_generator, callbacks=[Says()]))
sys.modules["ipykernel"] = sys
draw("notebook", here)
"""


def environment():
    """In this session's Ray: what is drawn does not depend on who started it."""
    address = ray.get_runtime_context().gcs_address
    return {"PYCHARM_HOSTED": None, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"}


def blocks(output):
    """The script's output, for each call its lines, without escape sequences and what Ray says besides."""
    output = re.sub(r"\x1b\[[0-9;]*m|\x08", "", output).replace("\r\n", "\n")
    found = {}
    for block in output.split("== ")[1:]:
        name, _, text = block.partition("\n")
        # A bar is drawn over the one before after a carriage return; to a reader of the log each is a line.
        lines = [line for line in re.split(r"[\r\n]+", text) if re.match(r"Epoch |\s*\d+/30 ", line)]
        found[name] = lines
    return found


def run_in_pipe():
    with start_script(SCRIPT, **environment()) as process:
        try:
            output, errors = process.communicate(timeout=150)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    return output


def run_in_terminal():
    ours, theirs = pty.openpty()
    merged = {**os.environ, "PYTHONPATH": str(Path.cwd()), **environment()}
    with subprocess.Popen(  # noqa: S603 - the test's own script
        [sys.executable, "-c", SCRIPT],
        env={name: value for name, value in merged.items() if value is not None},
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(theirs)
        output = b""
        with contextlib.suppress(OSError):  # Linux' way to say that the other end is closed
            while data := os.read(ours, 4096):
                output += data
        os.close(ours)
    assert process.returncode == 0
    return output.decode()


@pytest.mark.timeout(180)
def test_a_log_has_two_lines_an_epoch_and_one_with_auto_and_a_notebook_a_bar_that_moves():
    output = run_in_pipe()
    found = blocks(output)
    for trainer in ("driver", "actor"):
        lines = found[f"{trainer} 1"]
        assert lines[::2] == ["Epoch 1/2", "Epoch 2/2"]
        assert len(lines) == 4
        assert all(re.match(r"30/30 ━{20} .*step - loss: ", line) for line in lines[1::2])
        lines = found[f"{trainer} auto"]
        assert lines[::2] == ["Epoch 1/2", "Epoch 2/2"]
        assert len(lines) == 4
        assert all(re.match(r"30/30 - .*step - loss: ", line) for line in lines[1::2])
    for verbose in (1, "auto"):
        assert_moves(found[f"notebook {verbose}"])
    assert output.count("said once") <= 2  # by two calls; Ray passes it on, maybe too late


@pytest.mark.timeout(180)
def test_a_terminal_has_a_bar_that_moves():
    found = blocks(run_in_terminal())
    assert list(found) == [f"{where} {verbose}" for where in ("driver", "actor", "notebook") for verbose in (1, "auto")]
    for lines in found.values():
        assert_moves(lines)


def assert_moves(lines):
    epochs = " ".join(lines).split("Epoch ")[1:]
    assert [epoch[:3] for epoch in epochs] == ["1/2", "2/2"]  # each is drawn once
    assert re.search(r" [1-9]/30 .* 30/30 ", epochs[0])
    assert all(epoch.count(" 30/30 ") >= 1 for epoch in epochs)
