"""Our training against Keras' own, on the same batches. Real TensorFlow; real Ray where a test needs producers."""

import keras
import numpy as np
import pytest

from tests.oracle.interrupted import Interruptible
from tests.oracle.resumed import Resumed
from tests.oracle.sources import Rows


@pytest.fixture(autouse=True)
def _clean(nothing_left):
    """Applies to every test of the folder."""


@pytest.fixture(scope="session")
def interruptible():
    interruptible = Interruptible()
    yield interruptible
    interruptible.close()


class AsPyDataset(keras.utils.PyDataset):
    """A Sequence as Keras' own `fit` takes it: the oracle's side."""

    def __init__(self, sequence):
        super().__init__()
        self.sequence = sequence

    def __len__(self):
        return len(self.sequence)

    def __getitem__(self, index):
        return self.sequence[index]


def classifier(dropout=0.2, **compile_arguments):
    """A small model with dropout, so that random states count, always with the same first weights."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    arguments = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile(**(arguments | compile_arguments))
    return model


@pytest.fixture
def rows():
    return Rows


@pytest.fixture
def as_py_dataset():
    return AsPyDataset


@pytest.fixture
def make_model():
    return classifier


def assert_same_state(ours, theirs):
    """Weights, random states and optimizer are equal to the last bit."""
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for one, other in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.fixture
def same_state():
    return assert_same_state


@pytest.fixture
def parts(make_model, same_state, tmp_path):
    return Resumed(make_model, same_state, tmp_path / "checkpoints")
