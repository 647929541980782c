"""A trainer's memory stays what it is, however many steps it trains (contract E)."""

import keras
import pytest

import rayfeed
from tests.actors.test_memory import slope
from tests.conftest import private_bytes
from tests.sources import Numbered

STEP_BYTES = 400.0
"""By how much it may grow with a step: a record that is kept of each takes more, with what Keras itself takes."""


class Weighed(keras.callbacks.Callback):
    """Notes the memory of the process that trains."""

    def __init__(self):
        super().__init__()
        self.samples = []
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count >= 1000 and self.count % 100 == 0:
            self.samples.append((self.count, private_bytes()))


@pytest.mark.usefixtures("shared_trainer")
def test_the_trainer_does_not_grow_with_the_steps():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    weighed = Weighed()
    rayfeed.fit_generator(model, Numbered(1000), epochs=4, verbose=0, max_queue_size=100, callbacks=[weighed])
    assert len(weighed.samples) == 31
    assert slope(weighed.samples) < STEP_BYTES
