"""Every test here uses real Ray, kills processes, and leaves nothing behind."""

import pytest

from tests.sources import Gate, Log, Once


@pytest.fixture(autouse=True)
def _clean(nothing_left):
    """Applies to every test of the folder."""


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log")


@pytest.fixture
def gate(tmp_path):
    """Opened when the test ends, so that no producer waits for it."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture
def once(tmp_path):
    return Once(tmp_path)
