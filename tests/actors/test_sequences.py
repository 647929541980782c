"""A Sequence through producers: order, passes, `on_epoch_end`, shuffling (contract C3, C5 to C7, I1, I3)."""

import copy
import os

import numpy as np
import pytest

import rayfeed
from tests.sources import Numbered, Shuffling, batch, number_of, numbers_of, plain_passes

WORKERS = [
    pytest.param(0, False, id="in-line"),
    pytest.param(1, False, id="1-thread"),
    pytest.param(3, False, id="3-threads"),
    pytest.param(8, False, id="8-threads"),
    pytest.param(3, True, id="3-processes"),
    pytest.param(8, True, id="8-processes"),
]


@pytest.mark.parametrize(("workers", "use_multiprocessing"), WORKERS)
def test_three_passes_equal_a_plain_loop_with_the_hook_once_between_them(workers, use_multiprocessing, log, tmp_path):
    sequence = Shuffling(log)
    expected = plain_passes(copy.deepcopy(Shuffling(type(log)(tmp_path / "other"))), 3)
    # A bound below a pass' length: the hook after the fourth pass cannot run ahead of the reader.
    with rayfeed.Feed(sequence, workers, use_multiprocessing, max_queue_size=4) as feed:
        assert [numbers_of(feed) for _ in range(3)] == expected
    hooks = [line.split() for line in log.lines() if line.startswith("hook")]
    assert [hook[1] for hook in hooks] == ["0", "1", "2"]
    assert {int(hook[2]) for hook in hooks} == {os.getpid()}  # on the canonical copy, which lives here
    assert_hooks_lie_between_passes(log)
    if workers:
        assert sequence.indexes.tolist() == list(range(20))  # the caller's own object is not touched


def assert_hooks_lie_between_passes(log):
    made = {}
    hooks = 0
    for line in log.lines():
        kind, which, place = line.split()
        if kind == "hook":
            assert sorted(made[int(which)]) == list(range(20)), "the hook ran before every batch of its pass was made"
            hooks += 1
        else:
            assert int(which) == hooks, "a batch of the next pass was made before the hook had run"
            made.setdefault(int(which), []).append(int(place))


@pytest.mark.parametrize(("workers", "use_multiprocessing"), [(0, False), (2, True)])
def test_no_hook_before_the_first_pass_nor_after_a_pass_cut_short(workers, use_multiprocessing, log):
    with rayfeed.Feed(Shuffling(log), workers, use_multiprocessing, max_queue_size=4) as feed:
        assert numbers_of(feed.take(7)) == list(range(7))
    assert not [line for line in log.lines() if line.startswith("hook")]


class Resizing(rayfeed.Sequence):
    """Passes of 5, 8 and 2 batches."""

    def __init__(self):
        self.lengths = [5, 8, 2, 3]

    def __len__(self):
        return self.lengths[0]

    def __getitem__(self, index):
        return batch(10 * len(self.lengths) + index)

    def on_epoch_end(self):
        del self.lengths[0]


@pytest.mark.parametrize(("workers", "shuffle"), [(0, False), (3, False), (3, True)])
def test_the_length_is_read_again_after_each_pass(workers, shuffle):
    with rayfeed.Feed(Resizing(), workers, use_multiprocessing=True, max_queue_size=2, shuffle=shuffle) as feed:
        passes = [numbers_of(feed) for _ in range(3)]
    if shuffle:
        passes = [sorted(numbers) for numbers in passes]
    assert passes == [[40 + i for i in range(5)], [30 + i for i in range(8)], [20, 21]]


def shuffled_passes(workers, use_multiprocessing, seed, num_passes=3):
    with rayfeed.Feed(Numbered(30), workers, use_multiprocessing, shuffle=True, seed=seed) as feed:
        return [numbers_of(feed) for _ in range(num_passes)]


def test_a_seed_gives_the_same_fresh_order_of_each_pass_for_any_number_of_workers():
    orders = [shuffled_passes(*workers, seed=7) for workers in ((0, False), (1, False), (4, False), (3, True))]
    assert all(order == orders[0] for order in orders)
    assert all(sorted(order) == list(range(30)) for order in orders[0])
    assert len({tuple(order) for order in orders[0]}) == 3
    assert shuffled_passes(0, use_multiprocessing=False, seed=8) != orders[0]


def test_without_a_seed_every_stream_has_its_own_order():
    one, other = (shuffled_passes(workers, use_multiprocessing=False, seed=None) for workers in (1, 0))
    assert one != other
    assert all(sorted(order) == list(range(30)) for order in one + other)


class Augmented(rayfeed.Sequence):
    """Random noise from NumPy's and Python's global streams."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        import random

        return np.random.rand(3), np.full(3, random.random())  # noqa: NPY002 - the streams that users use


def test_a_seed_makes_random_batches_the_same_for_any_number_of_processes():
    def drawn(workers, seed):
        with rayfeed.Feed(Augmented(), workers, use_multiprocessing=True, seed=seed) as feed:
            return [np.concatenate(batch).tolist() for batch in feed.take(24)]

    inline = drawn(0, seed=3)
    assert drawn(1, seed=3) == drawn(3, seed=3) == inline
    assert len({tuple(values) for values in inline}) == 24  # no two batches, and no two passes, share a stream
    assert drawn(0, seed=4) != inline


def test_unordered_gives_what_is_made_first_and_each_batch_once_a_pass(gate):
    sequence = Numbered(9, at={0: gate.wait})
    with rayfeed.Feed(sequence, 3, use_multiprocessing=True, max_queue_size=20, ordered=False) as feed:
        reader = iter(feed)
        # The producer that is stuck in batch 0 may hold one more; to wait for 0 itself would take for ever.
        others = [number_of(next(reader)) for _ in range(7)]
        gate.open()
        rest = numbers_of(reader)  # the next pass is made already, and none of it may come before the end of this one
        assert 0 in rest
        assert sorted(others + rest) == list(range(9))
        assert [sorted(numbers_of(feed)) for _ in range(2)] == [list(range(9))] * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_any_object_with_the_methods_of_a_sequence_is_one(workers):
    class Plain:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return batch(index)

    with rayfeed.Feed(Plain(), workers) as feed:
        assert [numbers_of(feed) for _ in range(2)] == [[0, 1, 2]] * 2


def test_without_workers_a_sequence_makes_only_what_is_read(log):
    with rayfeed.Feed(Numbered(10, log=log), workers=0) as feed:
        next(iter(feed))
        assert log.numbers() == [0]
