"""B1: targets and weights of several outputs, by name or in a list, whichever way the model has its outputs."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import line

LEFT, RIGHT = np.array([0, 1, 2, 1], "float32"), np.array([1, 1, 0, 0], "float32")
WEIGHTS = np.array([1, 2, 3, 4], "float32")


@pytest.fixture(scope="module", params=["by name", "in a list"])
def forked(request):
    """Predicts 0 at both outputs for ever: the losses are the weighted means of the squared targets."""
    source = keras.Input((2,))
    outputs = {name: keras.layers.Dense(1, kernel_initializer="zeros", name=name)(source) for name in ("left", "right")}
    model = keras.Model(source, outputs if request.param == "by name" else list(outputs.values()))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def pair(form, left, right):
    return {"right": right, "left": left} if form == "by name" else [left, right]


class Batches:
    def __init__(self, *parts):
        self.parts = parts

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.ones((4, 2), "float32"), *self.parts


@line("B1")
@pytest.mark.parametrize("targets", ["by name", "in a list"])
@pytest.mark.parametrize("weights", ["by name", "in a list"])
def test_targets_and_weights_may_come_in_either_form_whichever_the_models_outputs_have(targets, weights, forked):
    parts = pair(targets, LEFT, RIGHT), pair(weights, WEIGHTS, WEIGHTS[::-1])
    history = rayfeed.fit_generator(forked, Batches(*parts), verbose=0, workers=0, trainer="driver")
    expected = np.mean(WEIGHTS * LEFT**2) + np.mean(WEIGHTS[::-1] * RIGHT**2)
    assert history.history["loss"] == pytest.approx([expected])
