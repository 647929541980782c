"""E7: models of every kind come home trained, also those that were not built and those of classes of one's own."""

import keras
import numpy as np
import pytest
import ray

import rayfeed
from tests.conformance.contract import line
from tests.conformance.sources import Regression
from tests.conftest import assert_runs

pytestmark = pytest.mark.usefixtures("shared_trainer")

WAYS = {"driver": {"workers": 0, "trainer": "driver"}, "actor": {"workers": 0}}


class Scale(keras.layers.Layer):
    """A layer of one's own, with a weight."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale


class Halves(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, 0.5, dtype)


class Sum(keras.Model):
    """A subclassed model, which only a batch can build."""

    def __init__(self):
        super().__init__()
        self.scale = Scale()
        self.dense = keras.layers.Dense(1, kernel_initializer=Halves())

    def call(self, x):
        return self.dense(self.scale(x))


class Furthest(keras.metrics.Metric):
    """A metric of one's own."""

    def __init__(self, name="furthest"):
        super().__init__(name=name)
        self.value = self.add_variable(shape=(), initializer="zeros", name="value")

    def update_state(self, y, predicted, sample_weight=None):
        self.value.assign(keras.ops.maximum(self.value, keras.ops.max(keras.ops.abs(y - predicted))))

    def result(self):
        return self.value


def cubed(y, predicted):
    """A loss of one's own."""
    return keras.ops.mean(keras.ops.abs(y - predicted) ** 3)


def unbuilt():
    return compiled(keras.Sequential([keras.layers.Dense(1, kernel_initializer=Halves())]))


def built():
    return compiled(keras.Sequential([keras.Input((4,)), Scale(), keras.layers.Dense(1, kernel_initializer=Halves())]))


def subclassed():
    return compiled(Sum())


def compiled(model):
    model.compile(keras.optimizers.Adam(0.01), cubed, metrics=[Furthest()])
    return model


class AsKerasTakesIt(keras.utils.PyDataset):
    def __len__(self):
        return len(Regression(1))

    def __getitem__(self, index):
        return Regression(1)[index]


def assert_trained_alike(ours, theirs):
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for one, other in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@line("E7 any model")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [unbuilt, built, subclassed])
def test_models_of_every_kind_come_home_as_keras_would_have_trained_them(make, way):
    ours, theirs = make(), make()
    expected = theirs.fit(AsKerasTakesIt(), epochs=2, shuffle=False, verbose=0)
    history = rayfeed.fit_generator(ours, Regression(1), epochs=2, shuffle=False, verbose=0, **WAYS[way])
    assert history.history == expected.history
    assert set(history.history) == {"loss", "furthest"}
    assert ours.built
    assert_trained_alike(ours, theirs)


@line("E7 any model")
@pytest.mark.parametrize("way", WAYS)
def test_a_function_that_builds_the_model_is_taken_in_its_place(way):
    theirs = built()
    expected = theirs.fit(AsKerasTakesIt(), epochs=2, shuffle=False, verbose=0)
    history = rayfeed.fit_generator(built, Regression(1), epochs=2, shuffle=False, verbose=0, **WAYS[way])
    assert history.history == expected.history
    assert isinstance(history.model, keras.Model)
    assert_trained_alike(history.model, theirs)


SCRIPT = """
import keras
import numpy as np
import rayfeed
from tests.conformance.sources import Regression


class Scale(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale


class Halves(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, 0.5, dtype)


def cubed(y, predicted):
    return keras.ops.mean(keras.ops.abs(y - predicted) ** 3)


def build():
    model = keras.Sequential([Scale(), keras.layers.Dense(1, kernel_initializer=Halves())])
    model.compile("adam", cubed)
    return model


model = build()
rayfeed.fit_generator(model, Regression(1), verbose=0, shuffle=False, workers=0)
assert not np.array_equal(model.layers[0].scale.numpy(), np.ones(4))
history = rayfeed.fit_generator(build, Regression(1), verbose=0, shuffle=False, workers=0)
for one, other in zip(history.model.weights, model.weights, strict=True):
    np.testing.assert_array_equal(one.numpy(), other.numpy())
print("trained")
"""


@line("E7 any model")
@pytest.mark.slow
def test_classes_and_functions_of_the_script_itself_travel_with_the_model():
    assert assert_runs(SCRIPT, RAY_ADDRESS=ray.get_runtime_context().gcs_address).split()[-1] == "trained"
