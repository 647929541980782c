"""The contract as a user meets it: the public functions, real Keras, real Ray. Nothing is left behind."""

import pytest

from tests.conformance.echo import make_echo


@pytest.fixture(autouse=True)
def _clean(nothing_left):
    """Applies to every test of the folder."""


@pytest.fixture(scope="session")
def echo():
    """One for all tests: it never changes, and TensorFlow traces it once."""
    return make_echo()
