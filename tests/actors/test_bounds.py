"""The queue's bound while nobody reads (contract C13): what is made ahead settles, and never beyond it."""

import re
import time
import warnings

import numpy as np
import pytest

import rayfeed
from rayfeed.producer.cluster import store_capacity
from tests.conftest import living_actors, node_stats, store_bytes, wait_until
from tests.sources import Log, Numbered, batch, is_settled

CASES = [
    pytest.param(
        workers, use_multiprocessing, size, id=f"{workers}-{'processes' if use_multiprocessing else 'threads'}-{size}"
    )
    for workers, use_multiprocessing, size in [
        (1, False, 1),
        (3, False, 4),
        (3, False, 100),
        (3, True, 1),
        (3, True, 64),
    ]
]


def settled_count(feed, log):
    """How many batches were made when the producers had nothing left to do."""
    wait_until(lambda: is_settled(feed), lambda: f"still making after {len(log.lines())} batches", seconds=30)
    return len(log.lines())


def half_read(max_queue_size, workers):
    """Batches that may count as waiting though they were read: their frame has one more. Frames are no larger."""
    return max(1, (max_queue_size + workers) // max(2, workers)) - 1


@pytest.mark.parametrize(("workers", "use_multiprocessing", "max_queue_size"), CASES)
def test_a_stalled_reader_leaves_the_queue_full_and_one_batch_in_each_workers_hands(
    workers, use_multiprocessing, max_queue_size, log
):
    with rayfeed.Feed(Numbered(10_000, log=log), workers, use_multiprocessing, max_queue_size) as feed:
        assert settled_count(feed, log) == max_queue_size + workers
        # Once frames have grown the bound is still counted in batches.
        list(feed.take(200))
        most = 200 + max_queue_size + workers
        assert most - half_read(max_queue_size, workers) <= settled_count(feed, log) <= most


def copies(log):
    def generate():
        rayfeed.get_worker_info()
        number = 0
        while True:
            log.add(number)
            yield batch(number)
            number += 1

    return generate


@pytest.mark.filterwarnings("ignore:Producers . and . made the same batches")  # on purpose
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("workers", "use_multiprocessing", "max_queue_size"), [(3, False, 10), (3, True, 2), (3, True, 60)]
)
def test_generators_share_one_bound(workers, use_multiprocessing, max_queue_size, ordered, log):
    with rayfeed.Feed(copies(log), workers, use_multiprocessing, max_queue_size, ordered=ordered) as feed:
        assert settled_count(feed, log) <= max_queue_size + workers
        list(feed.take(150))
        made = settled_count(feed, log)
        assert 150 < made <= 150 + max_queue_size + workers
        list(feed.take(made))  # and a full queue is no standstill


class Large(rayfeed.Sequence):
    """Batches of 400 KB."""

    def __init__(self, log):
        self.log = log

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        self.log.add(index)
        return np.full((100, 1000), index, "float32"), None


@pytest.mark.parametrize(("workers", "max_queue_bytes", "waiting"), [(1, 2_100_000, 5), (2, 2_100_000, 5), (1, 1, 1)])
def test_the_bytes_of_what_waits_are_bounded_too(workers, max_queue_bytes, waiting, log):
    with rayfeed.Feed(Large(log), workers, True, 100, max_queue_bytes=max_queue_bytes) as feed:
        assert settled_count(feed, log) == waiting + workers
        list(feed.take(20))
        most = 20 + waiting + workers
        assert most - half_read(waiting, workers) <= settled_count(feed, log) <= most


def test_a_slow_reader_finds_its_batches_waiting(tmp_path):
    log = Log(tmp_path / "log")
    with rayfeed.Feed(Numbered(50, log=log), 2, True, 8) as feed:
        settled_count(feed, log)
        before = feed.stats().wait_s
        started = time.perf_counter()
        list(feed.take(8))
        assert feed.stats().wait_s - before < 0.5 * (time.perf_counter() - started) + 0.01


def test_a_bound_that_the_store_cannot_hold_is_refused_before_a_producer_starts():
    before = living_actors()
    with pytest.raises(rayfeed.errors.OptionError, match=r"max_queue_bytes=[\d,]+ is more than the object store"):
        rayfeed.Feed(Numbered(3), 2, True, max_queue_bytes=store_capacity())
    assert living_actors() == before


class Huge(rayfeed.Sequence):
    """A batch of 0.9 of the store."""

    def __init__(self):
        self.size = int(store_capacity() * 0.9)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.zeros((1, self.size), "uint8"), None


def test_a_batch_that_the_store_cannot_hold_is_refused_as_soon_as_it_was_made():
    with (
        rayfeed.Feed(Huge(), max_queue_size=1) as feed,
        pytest.raises(rayfeed.errors.BatchError, match=r"producer 0 .* a batch of [\d,]+ bytes is more than the"),
    ):
        next(iter(feed))


def test_large_batches_in_many_hands_leave_the_store_its_room_and_that_is_told():
    before = node_stats(include_memory_info=False).store_stats
    with rayfeed.Feed(Tens(), 30, max_queue_size=30) as feed:
        wait_until(lambda: is_settled(feed), "the queue does not fill")
        stats = node_stats(include_memory_info=False).store_stats
        assert store_bytes() <= 0.55 * store_capacity(), "a quarter waits, a quarter is in hands"
        assert stats.spilled_bytes_total == before.spilled_bytes_total
        assert stats.object_store_bytes_fallback == 0
        with pytest.warns(UserWarning, match=r"at most 1[0-2] of 30 workers are busy\.") as told:
            assert [int(targets[0]) for _, targets in feed] == list(range(20))
    text = str(told[0].message)
    assert re.match(
        r"a batch of source \(Tens\) has [\d,]+ bytes, and of those that wait or are being made the object", text
    )
    assert "start Ray there with a larger object_store_memory" in text


class Tens(rayfeed.Sequence):
    """Batches of a 25th of the store, and small targets."""

    def __init__(self):
        self.size = store_capacity() // 25

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return np.full((4, self.size // 4), index, "uint8"), np.full(4, index)


@pytest.mark.parametrize("copy", [False, True])
def test_a_reader_that_keeps_more_than_half_of_the_store_is_told_once_unless_it_keeps_copies(copy):
    with rayfeed.Feed(Tens(), max_queue_size=1, copy=copy) as feed, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = list(feed)
    assert [int(targets[0]) for _, targets in kept] == list(range(20))
    told = [str(warning.message) for warning in caught if "still in use" in str(warning.message)]
    assert len(told) == len(caught) == (0 if copy else 1)
    if told:
        assert re.match(r"1[2-5] delivered frames are still in use, and keep \d", told[0])
    assert not any("/rayfeed/queue/" in warning.filename for warning in caught), "it names no line of the caller's"
