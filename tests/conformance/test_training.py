"""E6, E7: the training itself is Keras', and the model comes home as if it had been trained in place."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.sources import Regression

WAYS = {
    "in line": {"workers": 0, "trainer": "driver"},
    "trainer actor": {"workers": 2, "use_multiprocessing": True},
}


class AsKerasTakesIt(keras.utils.PyDataset):
    def __init__(self, sequence):
        super().__init__()
        self.sequence = sequence

    def __len__(self):
        return len(self.sequence)

    def __getitem__(self, index):
        return self.sequence[index]


def make_model():
    """With dropout, so that the random state counts, and an optimizer with slots."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dropout(0.3), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def numbers(model):
    return [variable.numpy().tolist() for variable in [*model.weights, *model.optimizer.variables]]


@line("E6", "E7")
@complaint(
    "keras-team/keras#2389",
    there="a model that learnt with fit did not with fit_generator, on the same data",
    here="losses, weights and optimizer are those of Keras' fit on the same batches, to the last bit",
)
@pytest.mark.parametrize("way", WAYS)
def test_the_training_is_that_of_keras_fit_to_the_last_bit_and_the_model_goes_on_from_it(way):
    ours, theirs = make_model(), make_model()
    arguments = {"epochs": 3, "shuffle": False, "verbose": 0}
    expected = theirs.fit(AsKerasTakesIt(Regression(1)), validation_data=AsKerasTakesIt(Regression(2)), **arguments)
    history = rayfeed.fit_generator(ours, Regression(1), validation_data=Regression(2), **arguments, **WAYS[way])
    assert isinstance(history, keras.callbacks.History)
    assert history.history == expected.history
    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae"}
    assert (history.epoch, history.params) == (expected.epoch, expected.params)
    assert ours.history is history
    assert numbers(ours) == numbers(theirs)
    assert int(ours.optimizer.iterations.numpy()) == 3 * len(Regression(1))
    # As if trained in place: Keras goes on from here, and the metrics are still there.
    go_on = {"epochs": 4, "initial_epoch": 3, "shuffle": False, "verbose": 0}
    assert (
        ours.fit(AsKerasTakesIt(Regression(1)), **go_on).history
        == theirs.fit(AsKerasTakesIt(Regression(1)), **go_on).history
    )
    assert numbers(ours) == numbers(theirs)


@line("A Trainer", "A evaluate", "A predict")
def test_a_trainer_serves_several_calls_in_one_process_each_as_keras_would():
    ours, theirs = make_model(), make_model()
    data = Regression(1)
    x, y = (np.concatenate(parts) for parts in zip(*(data[index] for index in range(len(data))), strict=True))
    with rayfeed.Trainer(ours) as trainer:
        for epochs in (1, 2):
            trainer.fit_generator(data, epochs=epochs, initial_epoch=epochs - 1, shuffle=False, verbose=0)
            theirs.fit(AsKerasTakesIt(data), epochs=epochs, initial_epoch=epochs - 1, shuffle=False, verbose=0)
        pids = [trainer.evaluate_generator(data, callbacks=[pid], workers=0) and pid.pid for pid in (Pid(), Pid())]
        scores = trainer.evaluate_generator(data, workers=2)
        predictions = trainer.predict_generator(data, workers=2)
    assert numbers(ours) == numbers(theirs)
    assert scores == theirs.evaluate(AsKerasTakesIt(data), verbose=0)
    assert scores == pytest.approx(theirs.evaluate(x, y, verbose=0))
    np.testing.assert_array_equal(predictions, theirs.predict(AsKerasTakesIt(data), verbose=0))
    assert len(predictions) == len(x)
    assert pids[0] == pids[1] is not None


class Pid(keras.callbacks.Callback):
    """Notes the process it runs in."""

    pid = None

    def on_test_begin(self, logs=None):
        import os

        self.pid = os.getpid()
