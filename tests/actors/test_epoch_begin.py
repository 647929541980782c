"""C7 and its beginning: `on_epoch_begin` runs once before each pass, the first included, and every producer sees it."""

import os

import keras
import pytest

import rayfeed
from tests.actors.sources import Both, Drawing, Empties, Grows, Raises
from tests.sources import numbers_of

WORKERS = [
    pytest.param(0, False, id="in-line"),
    pytest.param(2, False, id="2-threads"),
    pytest.param(2, True, id="2-processes"),
]


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


def test_a_seed_makes_what_it_draws_the_same_for_any_number_of_workers():
    def drawn(workers):
        with rayfeed.Feed(Drawing(), workers, use_multiprocessing=True, seed=4) as feed:
            return [numbers_of(feed) for _ in range(2)]

    inline = drawn(0)
    assert drawn(2) == inline
    assert inline[0] != inline[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_it_raises_reaches_the_reader_and_names_the_hook(workers, log):
    with rayfeed.Feed(Raises(log), workers) as feed, pytest.raises(LookupError, match="no shard") as caught:
        next(iter(feed))
    assert "on_epoch_begin before pass 0" in caught.value.__notes__[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_that_begins_empty_is_an_error(workers, log):
    text = "Empties has 0 batches after on_epoch_begin of pass 0"
    with rayfeed.Feed(Empties(log), workers) as feed, pytest.raises(rayfeed.errors.SourceError, match=text):
        next(iter(feed))
