"""One batch ahead: what comes next is converted by a thread, and nothing else is."""

import threading

import pytest

from rayfeed.queue.stream import Delivered
from rayfeed.trainer.staging import Staging


class Converting:
    """Remembers which batches were converted, and whether by the caller's thread; some of them cannot be."""

    def __init__(self, *broken):
        self.broken = broken
        self.ahead = {}

    def __call__(self, item):
        assert item.place not in self.ahead, "converted twice"
        self.ahead[item.place] = threading.current_thread() is not threading.main_thread()
        if item.place in self.broken:
            raise ValueError(f"batch {item.place}")
        return f"tensors of {item.place}"


def batch(place):
    return Delivered(None, place, place)


@pytest.fixture
def open_staging():
    opened = []

    def opening(*broken):
        converting = Converting(*broken)
        opened.append(Staging(converting))
        return opened[-1], converting

    yield opening
    for staging in opened:
        staging.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rayfeed-staging")]


def test_a_batch_that_is_known_is_converted_ahead(open_staging):
    staging, converting = open_staging()
    given = [staging.data(batch(place), batch(place + 1) if place < 3 else None) for place in range(4)]
    assert given == [f"tensors of {place}" for place in range(4)]
    assert converting.ahead == {0: False, 1: True, 2: True, 3: True}


def test_a_batch_that_had_not_arrived_is_converted_when_it_is_asked_for(open_staging):
    staging, converting = open_staging()
    assert [staging.data(batch(place), None) for place in range(2)] == ["tensors of 0", "tensors of 1"]
    assert converting.ahead == {0: False, 1: False}


def test_what_was_converted_ahead_and_left_out_is_not_given_in_another_ones_place(open_staging):
    staging, _ = open_staging()
    staging.data(batch(0), batch(1))
    assert staging.data(batch(5), batch(6)) == "tensors of 5"
    assert staging.data(batch(6), None) == "tensors of 6"


def test_an_error_is_raised_at_its_batch(open_staging):
    staging, _ = open_staging(2)
    assert staging.data(batch(0), batch(1)) == "tensors of 0"
    assert staging.data(batch(1), batch(2)) == "tensors of 1"
    with pytest.raises(ValueError, match="batch 2"):
        staging.data(batch(2), batch(3))
