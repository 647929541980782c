"""C1 to C5, C9, C10: which batches each epoch trains on, and when it ends."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.oracle.sources import Growing, Logged, Numbers, count

pytestmark = pytest.mark.slow


class Seen(keras.callbacks.Callback):
    """The numbers that each epoch trained on: the model's only weight is theirs to move, the metric is their sum."""

    def __init__(self):
        super().__init__()
        self.epochs = []
        self.steps = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])
        self.steps.append(self.params["steps"])

    def on_train_batch_end(self, batch, logs=None):
        self.epochs[-1].append(logs["loss"])


def identity():
    """A model whose loss in each step is the batch's number, and which never learns."""
    source = keras.Input((1,))
    model = keras.Model(source, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(source))

    model.compile(keras.optimizers.SGD(0.0), "mae")
    return model


def run(source, *args, model=None, **arguments):
    """Train and return each epoch's numbers: `loss` is the running mean, so they are its differences."""
    seen = Seen()
    model = model or identity()
    history = rayfeed.fit_generator(
        model, source, *args, callbacks=[seen], verbose=0, **({"trainer": "driver"} | arguments)
    )
    numbers = []
    for means in seen.epochs:
        totals = np.round(np.array(means) * np.arange(1, len(means) + 1)).astype(int)
        numbers.append(np.diff(totals, prepend=0).tolist())
    return numbers, history, seen


WORKERS = [{"workers": 0}, {"workers": 3}, {"workers": 2, "use_multiprocessing": True}]


@pytest.mark.parametrize("workers", WORKERS[:2], ids=["in line", "threads"])
def test_a_generator_is_one_endless_stream_over_epochs(workers):
    numbers, history, _ = run(count(), 4, epochs=3, **workers)
    assert numbers == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert history.epoch == [0, 1, 2]


def test_a_generator_in_line_is_not_advanced_beyond_what_was_used():
    source = count()
    run(source, 4, epochs=2, workers=0)
    assert next(source)[0][0, 0] == 8


def test_a_generator_without_steps_is_refused_before_anything_starts():
    with pytest.raises(ValueError, match="steps_per_epoch is required for a generator: it has no length"):
        rayfeed.fit_generator(identity(), count())
    with pytest.raises(ValueError, match="steps is required for a generator"):
        rayfeed.evaluate_generator(identity(), count())


@pytest.mark.parametrize("workers", WORKERS[:2], ids=["in line", "threads"])
def test_a_generator_that_ends_in_an_epoch_is_trained_on_and_warned_of(workers):
    with pytest.warns(UserWarning, match="ran out of data"):
        numbers, history, _ = run(count(0, 6), 4, epochs=5, **workers)
    assert numbers == [[0, 1, 2, 3], [4, 5]]
    assert history.epoch == [0, 1]


@pytest.mark.parametrize("workers", WORKERS[:2], ids=["in line", "threads"])
def test_a_generator_that_ends_with_an_epoch_begins_no_empty_one(workers):
    with pytest.warns(UserWarning, match="ran out of data"):
        numbers, history, _ = run(count(0, 8), 4, epochs=5, **workers)
    assert numbers == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert history.epoch == [0, 1]


def test_a_generator_of_just_the_right_length_gives_no_warning():
    numbers, _, _ = run(count(0, 8), 4, epochs=2)
    assert numbers == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_generator_without_any_batch_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="generator ended before its first batch"):
        run(count(0, 0), 4, epochs=5)


@pytest.mark.parametrize("workers", WORKERS, ids=["in line", "threads", "processes"])
def test_an_epoch_is_a_pass_whose_length_is_read_again(workers):
    numbers, history, seen = run(Growing(2), epochs=3, shuffle=False, **workers)
    assert numbers == [[0, 1], [100, 101, 102], [200, 201, 202, 203]]
    assert seen.steps == [2, 3, 4]
    assert history.params["steps"] == 4


@pytest.mark.parametrize("workers", WORKERS, ids=["in line", "threads", "processes"])
@pytest.mark.parametrize("steps", [2, 5], ids=["fewer steps", "more steps"])
def test_steps_cut_an_endless_stream_of_ordered_passes(workers, steps):
    numbers, _, _ = run(Numbers(3), steps, epochs=3, shuffle=True, **workers)
    stream = [0, 1, 2] * steps
    assert numbers == [stream[steps * epoch : steps * (epoch + 1)] for epoch in range(3)]


def test_steps_with_steps_per_execution_take_no_batch_too_many():
    model = identity()
    model.compile(keras.optimizers.SGD(0.0), "mae", steps_per_execution=4)
    source = count()
    rayfeed.fit_generator(model, source, 6, epochs=2, verbose=0, workers=0, trainer="driver")
    assert next(source)[0][0, 0] == 12


def test_each_shuffled_pass_has_a_fresh_order_of_all_batches():
    first, _, _ = run(Numbers(12), epochs=3, seed=5, workers=0)
    assert all(sorted(numbers) == list(range(12)) for numbers in first)
    assert len({tuple(numbers) for numbers in first}) == 3
    again, _, _ = run(Numbers(12), epochs=3, seed=5, workers=2, use_multiprocessing=True)
    assert again == first
    other, _, _ = run(Numbers(12), epochs=3, workers=0)
    assert other != first


def test_epochs_is_the_final_epoch():
    numbers, history, _ = run(Numbers(2), epochs=5, initial_epoch=3, shuffle=False)
    assert numbers == [[0, 1], [0, 1]]
    assert history.epoch == [3, 4]


def test_no_epoch_left_trains_nothing():
    model = identity()
    before = [weight.numpy() for weight in model.weights]
    _, history, seen = run(Numbers(2), epochs=3, initial_epoch=3, model=model, trainer=None)
    assert history.history == {}
    assert history.epoch == []
    assert seen.epochs == []
    assert all((weight.numpy() == value).all() for weight, value in zip(model.weights, before, strict=True))


@pytest.mark.parametrize("workers", WORKERS, ids=["in line", "threads", "processes"])
def test_on_epoch_end_runs_once_after_each_whole_pass_the_last_included(workers, tmp_path):
    log = tmp_path / "log"
    run(Logged(3, log), epochs=3, shuffle=False, **workers)
    assert log.read_text() == "1\n2\n3\n"
    log.unlink()
    run(Logged(3, log), 4, epochs=2, **workers)  # two passes, and two batches of a third
    assert log.read_text() == "1\n2\n"
