"""Producers that share a large array are killed: their replacements have the newest state, and nothing is left."""

import os
import signal

import numpy as np
import pytest

import rayfeed
from tests.conftest import producer_pids, wait_until
from tests.sources import batch, die, numbers_of

LARGE_BYTES = 16 << 20


class Versioned(rayfeed.Sequence):
    """Its batches tell the pass; it changes a large array in place, or leaves it alone.

    Args:
        changes_large: Whether.
        once: Kills the process that makes batch 0 of pass 1.
    """

    def __init__(self, changes_large, once=None):
        self.large = np.zeros(LARGE_BYTES // 8, "int64")
        self.fixed = np.arange(LARGE_BYTES // 8)
        self.passes = 0
        self.changes_large = changes_large
        self.once = once

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if self.once is not None and self.passes == 1 and index == 0 and self.once("killed"):
            die()
        assert set(self.large[:: 1 << 18].tolist()) == {self.passes if self.changes_large else 0}
        assert self.fixed[index] == index
        return batch(100 * self.passes + index)

    def on_epoch_end(self):
        self.passes += 1
        if self.changes_large:
            self.large += 1


def expected(num_pass):
    return [100 * num_pass + index for index in range(12)]


@pytest.mark.parametrize("changes_large", [False, True])
@pytest.mark.parametrize("all_of_them", [False, True])
def test_replacements_of_producers_killed_between_passes_have_the_newest_version(changes_large, all_of_them):
    with rayfeed.Feed(Versioned(changes_large), 2, use_multiprocessing=True, max_queue_size=2) as feed:
        for num_pass in range(4):
            assert numbers_of(feed) == expected(num_pass)
            if num_pass == 1:
                doomed = producer_pids() if all_of_them else producer_pids()[:1]
                for pid in doomed:
                    os.kill(pid, signal.SIGKILL)
        wait_until(lambda: feed.stats().lost_producers == len(doomed), "the loss is not noticed")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_producer_killed_while_it_makes_the_first_batch_of_a_new_version(workers, once):
    with rayfeed.Feed(Versioned(changes_large=True, once=once), workers, use_multiprocessing=True) as feed:
        assert [numbers_of(feed) for _ in range(3)] == [expected(num_pass) for num_pass in range(3)]
        assert feed.stats().lost_producers == 1
