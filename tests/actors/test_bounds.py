"""The queue's bound while nobody reads (contract C13): what is made ahead settles, and never beyond it."""

import time

import numpy as np
import pytest

import rayfeed
from tests.conftest import wait_until
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
