"""Every test here uses real Ray on one node, and leaves nothing behind."""

import pytest


@pytest.fixture(autouse=True)
def _clean(nothing_left):
    """Applies to every test of the folder."""
