"""E4, E5: hooks, their order, arguments and `params` as in Keras, for every kind of source and of call.

Where Keras does otherwise than the contract, the cases make no difference: all batches of a source are equal (Keras
reads generators ahead, and validation data from its start), and steps of a generator are a multiple of those of an
execution.
"""

from functools import partial

import pytest

import rayfeed
from tests.oracle.conftest import classifier
from tests.oracle.sources import Rows
from tests.oracle.test_callbacks import Log, StopAt

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]


class Equal(Rows):
    """Ten equal batches."""

    def __getitem__(self, index):
        return super().__getitem__(0)


def endless():
    rows = Equal()
    while True:
        yield rows[0]


class Case:
    """One call of `fit_generator`, and Keras' of `fit`.

    Args:
        source: Makes the source; `Rows` goes to Keras as a PyDataset.
        validation: Makes the validation data likewise; None for none.
        callbacks: Makes callbacks besides the log.
        arguments: Of both calls.
    """

    def __init__(self, source=Equal, validation=None, callbacks=list, **arguments):
        self.source = source
        self.validation = validation
        self.callbacks = callbacks
        self.arguments = {"shuffle": False, "verbose": 0} | arguments

    def calls(self, fit, convert, logs, *, marked=lambda one: one, **extra):
        """Run it with two logs around the other callbacks, the second one marked; what they saw."""
        first, second = logs
        data = {} if self.validation is None else {"validation_data": convert(self.validation())}
        callbacks = [first, *self.callbacks(), marked(second)]
        fit(convert(self.source()), callbacks=callbacks, **data, **self.arguments, **extra)
        return first.calls, second.calls


def arrays():
    rows = Rows(70)
    return rows.x, rows.y


CASES = {
    "generator": Case(endless, steps_per_epoch=4, epochs=3),
    "sequence": Case(epochs=2),
    "sequence with steps": Case(steps_per_epoch=4, epochs=2),
    "validation on a generator": Case(validation=endless, validation_steps=4, epochs=4, validation_freq=2),
    "validation on arrays": Case(validation=arrays, epochs=2, validation_freq=[2]),
    "validation on some of the arrays": Case(endless, validation=arrays, steps_per_epoch=4, validation_steps=2),
    "generator and validation on a sequence": Case(endless, validation=Equal, steps_per_epoch=8, epochs=2),
    "stopped in an epoch": Case(validation=Equal, callbacks=lambda: [StopAt(3)], epochs=5),
    "resumed": Case(epochs=4, initial_epoch=2),
    "no epoch": Case(epochs=0),
    "no epoch left": Case(epochs=2, initial_epoch=2),
}


def as_keras_takes_it(as_py_dataset, data):
    return as_py_dataset(data) if isinstance(data, Rows) else data


@pytest.fixture(scope="module")
def pairs():
    """Two equal models for each number of steps, traced once for all cases: tracing is what takes long."""
    return {steps: [classifier(steps_per_execution=steps) for _ in range(2)] for steps in (1, 4)}


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("name", CASES)
def test_hooks_are_those_of_keras(name, steps_per_execution, as_py_dataset, pairs):
    case = CASES[name]
    convert = partial(as_keras_takes_it, as_py_dataset)
    theirs, ours = pairs[steps_per_execution]
    ours.set_weights(theirs.get_weights())  # one case that differs does not make the others differ
    expected = case.calls(theirs.fit, convert, (Log(), Log()))
    fit = partial(rayfeed.fit_generator, ours, workers=0, trainer="driver")
    assert case.calls(fit, lambda data: data, (Log(), Log())) == expected
    assert expected[0]


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_hooks_in_a_trainer_and_on_its_driver_are_those_of_keras(steps_per_execution, as_py_dataset, make_model):
    """All cases one after the other, on one model and in one trainer."""
    convert = partial(as_keras_takes_it, as_py_dataset)
    theirs, ours = (make_model(steps_per_execution=steps_per_execution) for _ in range(2))
    with rayfeed.Trainer(ours) as trainer:
        for name, case in CASES.items():
            expected = case.calls(theirs.fit, convert, (Log(), Log()))
            fit = partial(trainer.fit_generator, workers=0)
            calls = case.calls(fit, lambda data: data, (Log(), Log()), marked=rayfeed.on_driver)
            assert calls == expected, name
