"""Generators through producers: one stream or alternating copies, and how they travel (C11, D1, D2, I1, I3)."""

import itertools
import threading
import warnings

import numpy as np
import pytest

import rayfeed
from tests.sources import batch, numbers_of


def count(length=None, start=0):
    for number in itertools.count() if length is None else range(length):
        yield batch(start + number)


class threadsafe_iter:  # noqa: N801 - its usual name, as copied from page to page
    """The usual wrapper around a generator object, with its lock."""

    def __init__(self, it):
        self.it = it
        self.lock = threading.Lock()

    def __iter__(self):
        return self

    def __next__(self):
        with self.lock:
            return next(self.it)


class Factory:
    """A callable that returns an iterator which is no generator."""

    def __call__(self):
        return iter([batch(number) for number in range(25)])


def forms():
    return {
        "generator object": count(25),
        "threadsafe_iter": threadsafe_iter(count(25)),
        "generator function": lambda: count(25),
        "callable object": Factory(),
    }


@pytest.mark.parametrize(
    ("form", "workers"), [*((form, workers) for form in forms() for workers in (0, 4)), ("generator object", 1)]
)
def test_one_process_gives_one_stream_in_order_whatever_the_number_of_threads(form, workers):
    with rayfeed.Feed(forms()[form], workers) as feed:
        assert numbers_of(feed) == list(range(25))
        assert numbers_of(feed) == []  # it ended: it does not start again


def told():
    """Tells in each batch which copy made it; copy k gives 3 + 4k batches."""
    info = rayfeed.get_worker_info()
    for place in range(3 + 4 * info.id):
        yield np.array([info.id, info.num_workers, place]), np.array([info.seed] * 3, "uint64")


@pytest.mark.parametrize("ordered", [True, False])
def test_copies_in_processes_know_which_they_are_and_take_turns_until_each_ends(ordered):
    with rayfeed.Feed(told, 3, use_multiprocessing=True, ordered=ordered, seed=1) as feed:
        batches = [(*inputs.tolist(), int(seeds[0])) for inputs, seeds in feed]
    seeds = {copy: seed for copy, _, _, seed in batches}
    assert len(set(seeds.values())) == 3
    assert {workers for _, workers, _, _ in batches} == {3}
    expected = [(copy, place) for place in range(11) for copy in range(3) if place < 3 + 4 * copy]
    found = [(copy, place) for copy, _, place, _ in batches]
    assert (found if ordered else sorted(found)) == (expected if ordered else sorted(expected))


def test_worker_info_is_there_in_a_producer_and_nowhere_else():
    assert rayfeed.get_worker_info() is None

    class Asking(rayfeed.Sequence):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            info = rayfeed.get_worker_info()
            return batch(-1 if info is None else 10 * info.num_workers + info.id)

    with rayfeed.Feed(Asking(), workers=0) as feed:
        assert set(numbers_of(feed)) == {-1}
    with rayfeed.Feed(Asking(), 2, use_multiprocessing=True) as feed:
        assert set(numbers_of(feed)) <= {20, 21}


@pytest.mark.filterwarnings("ignore:Producers . and . made the same batches")  # on purpose
def test_copies_that_do_not_ask_duplicate_the_data_and_the_caller_is_warned():
    with (
        pytest.warns(
            UserWarning, match=r"may duplicate your data: each of the 2 producers runs its own copy of source"
        ) as caught,
        rayfeed.Feed(count(6), 2, use_multiprocessing=True) as feed,
    ):
        assert numbers_of(feed) == [number for number in range(6) for _ in range(2)]
    assert not any("/rayfeed/queue/" in warning.filename for warning in caught), "it names no line of the caller's"


@pytest.mark.parametrize(
    ("source", "workers", "use_multiprocessing"),
    [(told, 2, True), (count, 1, True), (count, 2, False)],
    ids=["copies that ask", "one copy", "threads"],
)
def test_nobody_is_warned_where_nothing_is_duplicated(source, workers, use_multiprocessing):
    with warnings.catch_warnings(), rayfeed.Feed(source, workers, use_multiprocessing) as feed:
        warnings.simplefilter("error")
        assert len(list(feed.take(6))) == 6


def refilling():
    """Fills the same arrays again and again, as readers of files do."""
    inputs, targets = np.empty((4, 2), "float32"), np.empty(4, "int64")
    for number in range(200):
        inputs[:], targets[:] = number, number
        yield inputs, targets


def test_a_generator_may_fill_the_same_buffer_again():
    with rayfeed.Feed(refilling, max_queue_size=50) as feed:
        assert numbers_of(feed) == list(range(200))
        assert feed.stats().frames < 100  # several batches shared a frame, or the test shows nothing


def test_a_started_generator_is_refused_where_processes_are_asked_for_before_anything_is_started():
    started = count()
    next(started)
    with pytest.raises(rayfeed.errors.SourceError, match=r"source.*cannot be sent.*already started"):
        rayfeed.Feed(started, use_multiprocessing=True)


def test_without_workers_a_generator_is_not_advanced_beyond_what_was_used():
    started = count()
    next(started)
    with rayfeed.Feed(started, workers=0) as feed:
        assert numbers_of(feed.take(3)) == [1, 2, 3]
    assert numbers_of([next(started)]) == [4]
