"""E1: class weights for each output by its name."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import kept
from tests.conformance.sources import LEFT, RIGHT, Pairs

WEIGHTS = np.array([1, 2, 3, 4], "float32")


@pytest.fixture(scope="module")
def forked():
    """Predicts 0 at both outputs for ever: the losses are the weighted means of the squared targets."""
    source = keras.Input((2,))
    outputs = {name: keras.layers.Dense(1, kernel_initializer="zeros", name=name)(source) for name in ("left", "right")}
    model = keras.Model(source, outputs)
    model.compile(keras.optimizers.SGD(0.0), {"left": "mse", "right": "mse"})
    return model


@line("E1 outputs")
@complaint(
    "keras-team/keras#2071",
    there="class weights given for an output by its name had no effect on a model that a generator fed",
    here="each output's loss has the weights under its name, and the others are left alone",
)
@pytest.mark.parametrize("workers", [0, 1])
def test_each_output_has_its_own_class_weights(workers, forked):
    def loss(class_weight, *weights):
        history = trainer.fit_generator(Pairs(*weights), verbose=0, class_weight=class_weight, workers=workers)
        return history.history["loss"]

    left, right = {0: 1.0, 1: 0.5, 2: 10.0}, {0: 7.0, 1: 3.0}
    scaled_left = np.array([1, 0.5, 10, 0.5]) * LEFT**2
    scaled_right = np.array([3, 3, 7, 7]) * RIGHT**2
    with kept(forked) as trainer:
        assert loss({"left": left}) == pytest.approx([scaled_left.mean() + np.mean(RIGHT**2)])
        assert loss({"left": left, "right": right}) == pytest.approx([scaled_left.mean() + scaled_right.mean()])
        both = loss({"left": left}, {"left": WEIGHTS, "right": WEIGHTS})
    assert both == pytest.approx([np.mean(WEIGHTS * scaled_left) + np.mean(WEIGHTS * RIGHT**2)])


@line("E1 outputs")
def test_an_output_that_there_is_not_is_refused_by_its_name(forked):
    with pytest.raises(ValueError, match="middle"):
        rayfeed.fit_generator(forked, Pairs(), verbose=0, class_weight={"middle": {0: 1.0}}, trainer="driver")
