"""C12: `workers="auto"` or `(min, max)`: producers come when the consumer waits, and go when they are not needed."""

import time

import pytest

import rayfeed
from rayfeed.queue import scaling
from tests.conftest import producer_pids, wait_until
from tests.sources import Numbered, numbers_of

MAKE_S = 0.05


class Slow(Numbered):
    """Takes its time for each batch, as augmentation does."""

    def __getitem__(self, index):
        time.sleep(MAKE_S)
        return super().__getitem__(index)


@pytest.mark.slow
def test_producers_come_while_the_consumer_waits_and_go_when_it_is_slow(monkeypatch):
    monkeypatch.setattr(scaling, "PATIENCE", 2)
    with rayfeed.Feed(Slow(100_000), (1, 3), seed=1) as feed:
        numbers = []
        deadline = time.monotonic() + 60
        while len(producer_pids()) < 3 and time.monotonic() < deadline:
            numbers += numbers_of(feed.take(10))
        assert len(producer_pids()) == 3
        assert feed.stats().num_producers == 3
        # Nobody takes a batch: the queue is full, and one producer is margin enough.
        wait_until(lambda: len(producer_pids()) == 1, lambda: f"{len(producer_pids())} producers", seconds=30)
        numbers += numbers_of(feed.take(30))
        assert numbers == list(range(len(numbers)))
        assert feed.stats().remade_tickets == 0


def test_auto_takes_what_the_cluster_has():
    with rayfeed.Feed(Slow(60), "auto", shuffle=True, seed=3) as feed:
        numbers = numbers_of(feed)
    with rayfeed.Feed(Numbered(60), 0, shuffle=True, seed=3) as feed:
        assert numbers == numbers_of(feed)


def test_a_generator_has_a_number_of_copies():
    def batches():
        yield None

    with pytest.raises(ValueError, match=r"workers='auto' is for a Sequence.*source \(batches\) is a generator"):
        rayfeed.Feed(batches, "auto")
