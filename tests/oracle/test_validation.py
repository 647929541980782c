"""E2, E3: validation on a Sequence, a generator or arrays."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.oracle.sources import Growing, Logged, Numbers, Rows, count
from tests.oracle.test_epochs import identity

pytestmark = pytest.mark.slow


def val_losses(validation, **arguments):
    """The validation losses of the identity model: the mean of the numbers it was given."""
    history = rayfeed.fit_generator(
        identity(), Numbers(2), verbose=0, validation_data=validation, **({"trainer": "driver"} | arguments)
    )
    return history.history["val_loss"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_generator_is_one_stream_over_all_validations(workers):
    losses = val_losses(count(), validation_steps=3, epochs=3, workers=workers)
    assert losses == [1.0, 4.0, 7.0]  # means of 0 1 2, 3 4 5, 6 7 8


def test_a_generator_is_one_stream_also_with_many_producers():
    losses = val_losses(count(), validation_steps=3, epochs=3, workers=3, use_multiprocessing=True)
    assert losses == [1.0, 4.0, 7.0]


def test_a_generator_without_steps_is_refused():
    with pytest.raises(ValueError, match="validation_steps is required for a validation generator: it has no length"):
        val_losses(count())


def test_a_generator_that_ends_between_validations_is_an_error_not_a_loss_of_zero():
    with pytest.raises(ValueError, match="validation_data ended before batch 0 of round 2"):
        val_losses(count(0, 3), validation_steps=3, epochs=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sequence_starts_at_its_first_batch_each_time_and_unshuffled(workers):
    # Cut to two steps, of which batches 0 and 1 give the mean 0.5 whatever comes after; passes cut short have no hook.
    assert val_losses(Growing(4), validation_steps=2, epochs=3, workers=workers, shuffle=True) == [0.5, 0.5, 0.5]


def test_a_whole_pass_of_a_validation_sequence_has_its_hook(tmp_path):
    log = tmp_path / "log"
    assert val_losses(Logged(2, log), epochs=3, workers=2) == [0.5, 100.5, 200.5]
    assert log.read_text() == "1\n2\n3\n"


def test_more_steps_than_batches_is_one_pass_and_warned_of():
    with pytest.warns(UserWarning, match=r"validation_steps=9 is more than validation_data has \(3 batches\)"):
        assert val_losses(Numbers(3), validation_steps=9, epochs=2, workers=0) == [1.0, 1.0]


def test_arrays_validate_as_in_keras(make_model, rows, as_py_dataset):
    data = rows(weights=True)
    for arrays in ((data.x, data.y), (data.x, data.y, data.w), [data.x, data.y]):
        ours, theirs = make_model(), make_model()
        expected = theirs.fit(
            as_py_dataset(rows()), epochs=2, shuffle=False, verbose=0, validation_data=tuple(arrays)
        ).history
        history = rayfeed.fit_generator(
            ours, rows(), epochs=2, shuffle=False, verbose=0, workers=0, trainer="driver", validation_data=arrays
        )
        assert history.history == expected


@pytest.mark.parametrize(("frequency", "times"), [(2, 2), ([1, 4], 2), (3, 1), ([9], 0)])
def test_validation_freq_counts_epochs_from_one(frequency, times, make_model, rows):
    history = rayfeed.fit_generator(
        make_model(),
        rows(),
        epochs=4,
        verbose=0,
        workers=0,
        trainer="driver",
        validation_data=Rows(16),
        validation_freq=frequency,
    )
    assert len(history.history.get("val_loss", [])) == times


def test_the_model_is_not_trained_on_validation_data(make_model, rows):
    with_validation, without = make_model(), make_model()
    arguments = {"epochs": 2, "shuffle": False, "verbose": 0, "workers": 0, "trainer": "driver"}
    rayfeed.fit_generator(with_validation, rows(), validation_data=Rows(40, seed=9), **arguments)
    rayfeed.fit_generator(without, rows(), **arguments)
    for one, other in zip(with_validation.weights, without.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


class StopsEvaluating(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        self.model.stop_evaluating = batch == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_validation_left_early_does_not_shift_the_next(workers):
    losses = val_losses(Numbers(5), epochs=3, workers=workers, callbacks=[StopsEvaluating()])
    assert losses == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(("workers", "use_multiprocessing"), [(0, False), (2, False), (2, True)])
def test_a_generator_loses_and_repeats_nothing_over_many_validations(workers, use_multiprocessing):
    settings = {"workers": workers, "use_multiprocessing": use_multiprocessing, "max_queue_size": 3}
    losses = val_losses(count(), validation_steps=3, epochs=15, **settings)
    assert losses == [3.0 * validation + 1 for validation in range(15)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_generator_left_early_goes_on_with_the_batch_after_the_last_that_was_read(workers):
    losses = val_losses(count(), validation_steps=5, epochs=4, workers=workers, callbacks=[StopsEvaluating()])
    assert losses == [0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_generator_is_read_only_after_the_epochs_that_validate(workers):
    losses = val_losses(count(), validation_steps=2, epochs=6, validation_freq=[2, 3, 6], workers=workers)
    assert losses == [0.5, 2.5, 4.5]
