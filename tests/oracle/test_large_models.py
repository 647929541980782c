"""E7: weights travel in parts, straight from the variables' memory: the caller holds no second copy of them."""

import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import rayfeed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]

LAYERS, UNITS = 16, 2048
WEIGHT_BYTES = LAYERS * UNITS * UNITS * 4

LOOK_S = 0.005
"""How often this process' own memory is looked at, which sends no event."""


def private_bytes():
    """Memory that this process has for itself; the object store is shared, and not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Peak:
    """The most memory this process had for itself while this was open."""

    def __enter__(self):
        self.bytes = private_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(LOOK_S):
            self.bytes = max(self.bytes, private_bytes())


def ones():
    while True:
        yield np.ones((2, UNITS), "float32"), np.ones((2, 1), "float32")


def test_a_call_takes_far_less_than_the_weights_memory_in_the_callers_process():
    hidden = [keras.layers.Dense(UNITS, use_bias=False, kernel_initializer="zeros") for _ in range(LAYERS)]
    model = keras.Sequential([keras.Input((UNITS,)), *hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    with rayfeed.Trainer(model) as trainer:
        trainer.predict_generator(ones, 1, workers=0)
        before = private_bytes()
        with Peak() as peak:
            trainer.fit_generator(ones, 2, verbose=0, workers=0)
        assert peak.bytes - before < 0.6 * WEIGHT_BYTES
    assert (model.layers[-1].bias.numpy() != 0).all()
