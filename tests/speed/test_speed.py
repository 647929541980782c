"""Quick guards of speed: against bare Ray calls on the same machine in the same seconds, never against the clock alone.

The bounds are a fraction of what `examples/benchmarks` finds on a quiet machine. Contenders take short turns and the
best of each counts, so that a busy machine slows a turn and not the verdict.
"""

import itertools
import os
import time
from collections import deque

import numpy as np
import pytest

import rayfeed
from tests.conftest import store_bytes, wait_until
from tests.sources import is_settled

pytestmark = pytest.mark.usefixtures("nothing_left")

READY = 8
ROWS = 32
NUM_PRODUCERS = 2
IN_FLIGHT = 10  # calls of the bare actors that are out: as many as the default queue holds
TURNS = 3
TURN_S = 0.4
MAKE_S = 0.05


class Ready(rayfeed.Sequence):
    """Batches that cost nothing to make."""

    def __init__(self, num_bytes):
        self.num_bytes = num_bytes
        self.batches = None

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        if self.batches is None:
            shape = (ROWS, self.num_bytes // 4 // ROWS)
            self.batches = [(np.full(shape, number, "float32"), np.arange(ROWS)) for number in range(READY)]
        return self.batches[index % READY]


class Sleeping(rayfeed.Sequence):
    """Batches of 50 ms, which tell who made them."""

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        time.sleep(MAKE_S)
        return np.full((1, 1), os.getpid()), np.zeros(1)


class Bare:
    """An actor as a user would write it: one batch a call."""

    def __init__(self, source):
        self.source = source

    def make(self, index):
        return self.source[index]


def touch(array):
    """Read one byte of every page."""
    return int(array.reshape(-1).view(np.uint8)[::4096].sum())


class Actors:
    """Bare actors whose calls overlap; batches come in order."""

    def __init__(self, number, source):
        import ray

        self.actors = [ray.remote(num_cpus=0)(Bare).remote(source) for _ in range(number)]
        self.calls = deque()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        import ray

        if self.calls:  # a process killed while it writes would leave what it wrote
            ray.wait(list(self.calls), num_returns=len(self.calls))
        for actor in self.actors:
            ray.kill(actor)

    def batches(self):
        import ray

        actors = itertools.cycle(self.actors)
        for index in itertools.count():
            self.calls.append(next(actors).make.remote(index))
            if len(self.calls) == IN_FLIGHT:
                yield ray.get(self.calls.popleft())


def feed_of(source, workers=NUM_PRODUCERS, max_queue_size=10):
    options = rayfeed.ProducerOptions(num_cpus=0)
    return rayfeed.Feed(source, workers, use_multiprocessing=True, max_queue_size=max_queue_size, producers=options)


def take_turn(batches):
    """Batches a second, and this process' CPU seconds for each."""
    count, used, started = 0, time.process_time(), time.perf_counter()
    while (passed := time.perf_counter() - started) < TURN_S:
        touch(next(batches)[0])
        count += 1
    return count / passed, (time.process_time() - used) / count


@pytest.mark.parametrize(
    ("num_bytes", "max_queue_size", "least"),
    [
        pytest.param(4_096, 1000, 5.0, id="4-kB-queue-1000"),
        pytest.param(602_112, 64, 1.5, id="600-kB-queue-64"),
        pytest.param(4_800_000, 10, 0.8, id="4.8-MB-queue-10"),
    ],
)
def test_a_feed_moves_more_batches_than_bare_calls_for_less_of_this_process(num_bytes, max_queue_size, least):
    source = Ready(num_bytes)
    with feed_of(source, max_queue_size=max_queue_size) as feed, Actors(NUM_PRODUCERS, source) as actors:
        streams = {"feed": iter(feed), "actors": actors.batches()}
        for stream in streams.values():
            take_turn(stream)  # both have their processes, and pages that were touched
        turns = {name: [] for name in streams}
        for _ in range(TURNS):
            for name, stream in streams.items():
                turns[name].append(take_turn(stream))
        wait_until(lambda: is_settled(feed), "the producers still work")
    rates = {name: max(rate for rate, _ in found) for name, found in turns.items()}
    assert rates["feed"] >= least * rates["actors"], turns
    if num_bytes < 100_000:  # of larger ones the reading itself is most
        costs = {name: min(cost for _, cost in found) for name, found in turns.items()}
        assert costs["feed"] <= costs["actors"], turns


def test_the_first_batch_of_four_workers_comes_not_long_after_bare_actors_first_answer():
    import ray

    source, times = Ready(4_096), {"feed": [], "actors": []}
    for _ in range(2):
        started = time.perf_counter()
        with Actors(4, source) as actors:
            ray.wait([actor.make.remote(0) for actor in actors.actors])
            times["actors"].append(time.perf_counter() - started)
        started = time.perf_counter()
        with feed_of(source, 4) as feed:
            next(iter(feed))
            times["feed"].append(time.perf_counter() - started)
    assert min(times["feed"]) <= 3 * min(times["actors"]) + 1.0, times


def test_four_workers_make_nearly_four_times_the_batches_of_one():
    with feed_of(Sleeping(), 4) as feed:
        seen, rates = set(), []
        for x, _ in feed:
            seen.add(int(x[0, 0]))
            if len(seen) == 4:
                break
        for _ in range(TURNS):
            started = time.perf_counter()
            assert len(list(feed.take(40))) == 40
            rates.append(40 / (time.perf_counter() - started))
    assert max(rates) >= 0.8 * 4 / MAKE_S, rates


def test_the_store_holds_no_more_than_the_queue_and_a_second_of_batches():
    num_bytes, rate, num_batches = 602_112, 200, 500
    begun, peak = store_bytes(), 0
    with feed_of(Ready(num_bytes)) as feed:
        next(iter(feed))
        started = time.perf_counter()
        for number, (x, _) in enumerate(feed.take(num_batches)):
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            touch(x)
            if number % 10 == 0:
                peak = max(peak, store_bytes() - begun)
        passed = time.perf_counter() - started
        wait_until(lambda: is_settled(feed), "the producers still work")  # what is measured is not the end in full flow
    assert peak <= (10 + NUM_PRODUCERS + num_batches / passed) * (num_bytes + 8 * ROWS), passed
