"""C7 and its beginning: `on_epoch_begin` runs once before each pass, the first included, and every producer sees it."""

import os

import keras
import numpy as np
import pytest

import rayfeed
from tests.sources import batch, numbers_of

WORKERS = [
    pytest.param(0, False, id="in-line"),
    pytest.param(2, False, id="2-threads"),
    pytest.param(2, True, id="2-processes"),
]


class Both(rayfeed.Sequence):
    """Its batches tell how often each hook had run; the log tells all hooks and batches in their order."""

    def __init__(self, log, length=4):
        self.log = log
        self.length = length
        self.begun = self.ended = 0

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.log.add("batch", self.begun, self.ended)
        return batch(100 * self.begun + 10 * self.ended + index)

    def on_epoch_begin(self):
        self.begun += 1
        self.log.add("begin", self.begun, os.getpid())

    def on_epoch_end(self):
        self.ended += 1
        self.log.add("end", self.ended, os.getpid())


def hooks(log):
    return [tuple(line.split()[:2]) for line in log.lines() if not line.startswith("batch")]


@pytest.mark.parametrize(("workers", "use_multiprocessing"), WORKERS)
def test_it_runs_before_each_pass_after_the_end_of_the_pass_before_and_every_batch_sees_it(
    workers, use_multiprocessing, log
):
    source = Both(log)
    with rayfeed.Feed(source, workers, use_multiprocessing, max_queue_size=2) as feed:
        passes = [numbers_of(feed) for _ in range(3)]
    assert passes == [[100 * (p + 1) + 10 * p + index for index in range(4)] for p in range(3)]
    assert hooks(log)[:5] == [("begin", "1"), ("end", "1"), ("begin", "2"), ("end", "2"), ("begin", "3")]
    lines = [line.split() for line in log.lines()]
    assert {line[2] for line in lines if line[0] != "batch"} == {str(os.getpid())}  # on the one copy, which lives here
    for place, (kind, number, _) in enumerate(lines):
        if kind == "begin":
            made = [line for line in lines[:place] if line[0] == "batch"]
            assert len(made) == 4 * (int(number) - 1), "it ran before every batch of the pass before was made"
    if workers:
        assert source.begun == 0  # the caller's own object is not touched


class Grows(Both):
    """Decides its length when a pass begins."""

    def on_epoch_begin(self):
        super().on_epoch_begin()
        self.length = self.begun + 1


def model():
    one = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    one.compile("sgd", "mse")
    return one


class Steps(keras.callbacks.Callback):
    """Counts the steps of each epoch, and what it is told of them."""

    def __init__(self):
        super().__init__()
        self.told, self.trained = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(self.params["steps"])
        self.trained.append(0)

    def on_train_batch_end(self, step, logs=None):
        self.trained[-1] += 1


@pytest.mark.parametrize("workers", [0, 2])
def test_fit_trains_the_passes_that_it_made_and_none_is_begun_for_an_epoch_that_does_not_come(workers, log):
    steps = Steps()
    rayfeed.fit_generator(
        model(), Grows(log), epochs=3, verbose=0, callbacks=[steps], workers=workers, trainer="driver"
    )
    assert steps.told == steps.trained == [2, 3, 4]
    assert [kind for kind, _ in hooks(log)] == ["begin", "end"] * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_validation_has_it_each_time_also_where_it_is_cut_short(workers, log):
    rayfeed.fit_generator(
        model(),
        Both(type(log)(log.path + "-training")),
        epochs=3,
        verbose=0,
        validation_data=Both(log),
        validation_steps=2,
        workers=workers,
        trainer="driver",
    )
    assert [kind for kind, _ in hooks(log)] == ["begin"] * 3
    assert [line for line in log.lines() if line.startswith("batch")] == [
        f"batch {number} 0" for number in (1, 1, 2, 2, 3, 3)
    ]


class Drawing(rayfeed.Sequence):
    """Draws its numbers when a pass begins."""

    def __len__(self):
        return 3

    def on_epoch_begin(self):
        self.drawn = np.random.randint(1000, size=3)  # noqa: NPY002 - the stream that users use

    def __getitem__(self, index):
        return batch(self.drawn[index])


def test_a_seed_makes_what_it_draws_the_same_for_any_number_of_workers():
    def drawn(workers):
        with rayfeed.Feed(Drawing(), workers, use_multiprocessing=True, seed=4) as feed:
            return [numbers_of(feed) for _ in range(2)]

    inline = drawn(0)
    assert drawn(2) == inline
    assert inline[0] != inline[1]


class Raises(Both):
    def on_epoch_begin(self):
        raise LookupError("no shard for this epoch")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_it_raises_reaches_the_reader_and_names_the_hook(workers, log):
    with rayfeed.Feed(Raises(log), workers) as feed, pytest.raises(LookupError, match="no shard") as caught:
        next(iter(feed))
    assert "on_epoch_begin before pass 0" in caught.value.__notes__[0]


class Empties(Both):
    def on_epoch_begin(self):
        self.length = 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_that_begins_empty_is_an_error(workers, log):
    text = "Empties has 0 batches after on_epoch_begin of pass 0"
    with rayfeed.Feed(Empties(log), workers) as feed, pytest.raises(rayfeed.errors.SourceError, match=text):
        next(iter(feed))
