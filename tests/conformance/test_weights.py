"""E1, and the weights of E2: what scales the loss, and which loss."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.sources import CLASSES, INPUTS, SAMPLE_WEIGHTS, Classes, classes

CLASS_WEIGHTS = {0: 1.0, 1: 0.5, 2: 10.0}
SCALES = np.array([1.0, 0.5, 10.0, 0.5])


def make_zero(width):
    """Predicts 0 for ever, so that a sample's loss is the mean of its squared targets."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(width, kernel_initializer="zeros")])
    model.compile(
        keras.optimizers.SGD(0.0), "mse", metrics=["mae"], weighted_metrics=[keras.metrics.MeanSquaredError()]
    )
    return model


@pytest.fixture(scope="module")
def zero():
    return make_zero(1)


@pytest.fixture(scope="module")
def three():
    return make_zero(3)


def fit(model, source, **arguments):
    steps = None if isinstance(source, Classes) else 2
    return rayfeed.fit_generator(model, source, steps, verbose=0, trainer="driver", **arguments).history


@line("E1")
@complaint(
    "keras-team/tf-keras#401",
    there="class_weight crashed where the data came from a generator",
    here="it weights the training loss of generators and Sequences",
)
@complaint(
    "keras-team/keras#8248",
    there="with class weights fit_generator did not train as fit did on the same data",
    here="the loss is the one worked out by hand, for every kind of source",
)
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [Classes, classes])
def test_each_sample_has_the_weight_of_its_class_for_integer_and_one_hot_targets(kind, workers, zero, three):
    arguments = {"class_weight": CLASS_WEIGHTS, "workers": workers}
    expected = [np.mean(SCALES * CLASSES**2)]
    assert fit(zero, kind(CLASSES), **arguments)["loss"] == pytest.approx(expected)
    one_column = make_zero(1)  # a model of its own: TensorFlow traces it for targets of another rank
    assert fit(one_column, kind(CLASSES[:, None]), **arguments)["loss"] == pytest.approx(expected)
    one_hot = np.eye(3, dtype="float32")[CLASSES]
    assert fit(three, kind(one_hot), **arguments)["loss"] == pytest.approx([np.mean(SCALES / 3)])


@line("E1")
@complaint(
    "keras-team/keras#4787",
    there="sample weights could not be combined with a generator",
    here="a generator's third place holds them, and class weights multiply them",
)
@pytest.mark.parametrize("kind", [Classes, classes])
def test_class_weights_multiply_sample_weights(kind, zero):
    plain = fit(zero, kind(CLASSES, SAMPLE_WEIGHTS), workers=1)
    assert plain["loss"] == pytest.approx([np.mean(SAMPLE_WEIGHTS * CLASSES**2)])
    both = fit(zero, kind(CLASSES, SAMPLE_WEIGHTS), class_weight=CLASS_WEIGHTS, workers=1)
    assert both["loss"] == pytest.approx([np.mean(SCALES * SAMPLE_WEIGHTS * CLASSES**2)])
    product = SCALES * SAMPLE_WEIGHTS
    assert both["mean_squared_error"] == pytest.approx([np.sum(product * CLASSES**2) / np.sum(product)])
    assert both["mae"] == plain["mae"] == pytest.approx([1.0])  # a metric that is not weighted


@line("E1", "E2")
@complaint(
    "keras-team/keras#5616",
    there="whether class weights count in validation was never settled, and the losses could not be compared",
    here="they scale the training loss only, by contract",
)
@complaint(
    "keras-team/keras#2298",
    there="weights counted in training and not in validation",
    here="sample weights of validation data count, in a Sequence, a generator and arrays",
)
@pytest.mark.parametrize("form", ["Sequence", "generator", "arrays"])
def test_validation_counts_its_sample_weights_and_no_class_weights(form, zero):
    data = {
        "Sequence": Classes(CLASSES, SAMPLE_WEIGHTS),
        "generator": classes(CLASSES, SAMPLE_WEIGHTS),
        "arrays": (INPUTS, CLASSES, SAMPLE_WEIGHTS),
    }[form]
    steps = 2 if form == "generator" else None
    history = fit(
        zero, Classes(CLASSES), class_weight=CLASS_WEIGHTS, validation_data=data, validation_steps=steps, workers=0
    )
    assert history["val_loss"] == pytest.approx([np.mean(SAMPLE_WEIGHTS * CLASSES**2)])
    assert history["loss"] == pytest.approx([np.mean(SCALES * CLASSES**2)])


@complaint(
    "keras-team/keras#13641",
    there="with sample weights from a Sequence the loss was another than with the same arrays",
    here="it is Keras' own: the sum over the batch divided by the number of samples",
)
def test_evaluation_weighs_as_keras_does(zero):
    scores = rayfeed.evaluate_generator(zero, Classes(CLASSES, SAMPLE_WEIGHTS), workers=1, trainer="driver")
    twice = [np.concatenate([array, array]) for array in (INPUTS, CLASSES, SAMPLE_WEIGHTS)]
    assert scores == pytest.approx(zero.evaluate(*twice[:2], sample_weight=twice[2], verbose=0))


@line("E1")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_class_without_a_weight_is_an_error_that_names_it(workers, zero):
    with pytest.raises(ValueError, match="class_weight has no weight for class 2, which the targets hold"):
        fit(zero, Classes(CLASSES), class_weight={0: 1.0, 1: 1.0}, workers=workers)
