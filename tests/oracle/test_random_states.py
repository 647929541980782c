"""E7: what is random in training is as `keras.utils.set_random_seed` makes it in Keras' own fit."""

import random

import keras
import numpy as np
import pytest

import rayfeed

pytestmark = pytest.mark.usefixtures("shared_trainer")


def drawn():
    """A number of each random stream that nobody gave a seed."""
    return random.random(), np.random.rand(), float(keras.random.uniform(()))  # noqa: NPY002 - the one users seed


class Draws(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.drawn = []

    def on_epoch_end(self, epoch, logs=None):
        self.drawn.append(drawn())


def made_late():
    """Layers that are made, and draw their seeds, while the model is built by its first batch."""

    class Late(keras.layers.Layer):
        def build(self, shape):
            self.dense = keras.layers.Dense(4)
            self.noise = keras.layers.Dropout(0.5)
            self.dense.build(shape)

        def call(self, x, training=False):
            return self.noise(self.dense(x), training=training)

    model = keras.Sequential([Late(), keras.layers.Dropout(0.5), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def test_all_random_streams_go_on_in_the_trainer_and_after_it_here(rows, as_py_dataset):
    results = []
    for fit in (
        lambda model, draws: model.fit(as_py_dataset(rows()), shuffle=False, epochs=2, verbose=0, callbacks=[draws]),
        lambda model, draws: rayfeed.fit_generator(
            model, rows(), shuffle=False, epochs=2, verbose=0, callbacks=[draws], workers=0
        ),
    ):
        keras.utils.set_random_seed(21)
        model, draws = made_late(), Draws()
        history = fit(model, draws)
        after = drawn()
        results.append((history.history, draws.drawn, after, [weight.tolist() for weight in model.get_weights()]))
    assert results[1] == results[0]
    assert len(set(results[0][1])) == 2


class RandomRows:
    """Random batches from the global stream, made in line."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return 4

    def __getitem__(self, index):
        x, y = self.rows[index]
        return x + np.random.rand(*x.shape).astype("float32"), y  # noqa: NPY002 - as in drawn


def test_a_source_in_line_goes_on_with_the_callers_random_stream(rows, make_model):
    model = make_model()
    np.random.seed(4)  # noqa: NPY002 - the stream in question
    expected = np.random.rand(4 * 8 * 10 + 1)[-1]  # noqa: NPY002 - as above
    np.random.seed(4)  # noqa: NPY002 - as above
    rayfeed.fit_generator(model, RandomRows(rows()), shuffle=False, verbose=0, workers=0)
    assert np.random.rand() == expected  # noqa: NPY002 - as above
