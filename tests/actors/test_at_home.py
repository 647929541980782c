"""What a source finds where it runs, and what it leaves alone in the caller's process."""

import random

import numpy as np
import pytest

import rayfeed
from rayfeed import ProducerOptions
from rayfeed.errors import PlacementError
from tests.conftest import NUM_CPUS
from tests.sources import Numbered, numbers_of


def lines_of(path):
    with open(path) as file:  # noqa: PTH123 - as users write it
        for line in file:
            yield np.full((1, 1), float(line)), np.zeros(1)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_relative_paths_mean_what_they_mean_to_the_caller(workers, tmp_path, monkeypatch):
    (tmp_path / "data.csv").write_text("3\n1\n2\n")
    monkeypatch.chdir(tmp_path)
    with rayfeed.Feed(lines_of("data.csv"), workers) as feed:
        assert [float(x[0, 0]) for x, _ in feed] == [3.0, 1.0, 2.0]


class Quits(Numbered):
    def on_epoch_end(self):
        raise SystemExit("enough")


def test_sys_exit_between_passes_is_an_error_and_no_hang():
    with rayfeed.Feed(Quits(2), 2) as feed, pytest.raises(RuntimeError, match=r"SystemExit\('enough'\)"):
        list(feed.take(3))


class Interrupts(Numbered):
    def __getitem__(self, index):
        raise KeyboardInterrupt


def test_an_interrupt_raised_by_a_source_is_its_error_and_not_a_lost_producer():
    with rayfeed.Feed(Interrupts(2), 1) as feed, pytest.raises(RuntimeError, match="KeyboardInterrupt"):
        next(iter(feed))


@pytest.mark.parametrize("ordered", [True, False], ids=["the others wait for it", "the others go on"])
def test_a_generators_copy_that_finds_no_place_is_an_error_after_the_deadline(ordered):
    def batches():
        rayfeed.get_worker_info()
        while True:
            yield np.zeros((1, 1)), np.zeros(1)

    options = ProducerOptions(num_cpus=1, start_timeout_s=4)
    text = rf"producer \d found no place in \d+ s: each of {NUM_CPUS + 1} claims 1 CPU"
    with (
        rayfeed.Feed(batches, NUM_CPUS + 1, use_multiprocessing=True, producers=options, ordered=ordered) as feed,
        pytest.raises(PlacementError, match=text),
    ):
        for _ in feed:
            pass


class FailsOnce(Numbered):
    def __getitem__(self, index):
        if index == 1:
            raise KeyError("row 7")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_again_by_every_later_reader(workers):
    with rayfeed.Feed(FailsOnce(3), workers) as feed:
        for _ in range(2):
            with pytest.raises(KeyError, match="row 7"):
                list(feed)


class Own(Numbered):
    """Gives views of what it keeps."""

    def __init__(self):
        super().__init__(2)
        self.x = np.zeros((2, 4))

    def __getitem__(self, index):
        return self.x[index : index + 1], np.zeros(1)


def test_in_line_too_a_batch_cannot_be_written_to_unless_it_is_a_copy():
    source = Own()
    with rayfeed.Feed(source, 0) as feed, pytest.raises(ValueError, match="read-only"):
        next(iter(feed))[0][:] = 1
    with rayfeed.Feed(source, 0, copy=True) as feed:
        next(iter(feed))[0][:] = 1
    assert not source.x.any()


class Draws(Numbered):
    def __getitem__(self, index):
        return np.random.rand(2, 2), np.full(2, random.random())  # noqa: NPY002 - what seeding is for

    def on_epoch_end(self):
        np.random.rand()  # noqa: NPY002 - as above


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_seeded_feed_gives_the_same_batches_and_leaves_the_callers_random_state_alone(workers):
    np.random.seed(5)  # noqa: NPY002 - the caller's own
    random.seed(5)
    expected = np.random.rand(), random.random()  # noqa: NPY002 - as above
    np.random.seed(5)  # noqa: NPY002 - as above
    random.seed(5)
    with rayfeed.Feed(Draws(3), workers, use_multiprocessing=True, seed=7) as feed:
        drawn = [(x.tolist(), y.tolist()) for x, y in feed.take(6)]
    assert (np.random.rand(), random.random()) == expected  # noqa: NPY002 - as above
    assert drawn[0] != drawn[3]
    with rayfeed.Feed(Draws(3), 0, seed=7) as feed:
        assert [(x.tolist(), y.tolist()) for x, y in feed.take(6)] == drawn


class Counts:
    """An iterator class: calling it gives an iterator."""

    def __init__(self):
        self.number = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.number += 1
        if self.number > 3:
            raise StopIteration
        return np.full((1, 1), self.number), np.zeros(1)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterator_class_is_a_function_that_returns_an_iterator(workers):
    with rayfeed.Feed(Counts, workers) as feed:
        assert [int(x[0, 0]) for x, _ in feed] == [1, 2, 3]
    with pytest.raises(ValueError, match="source must be a Sequence"):
        rayfeed.Feed(Numbered, workers)
    with rayfeed.Feed(Numbered(3), workers) as feed:
        assert numbers_of(feed) == [0, 1, 2]
