"""Every test here uses real Ray, kills processes, and leaves nothing behind."""

import pytest

from tests.sources import Once


@pytest.fixture(autouse=True)
def _clean(nothing_left):
    """Applies to every test of the folder."""


@pytest.fixture
def once(tmp_path):
    return Once(tmp_path)
