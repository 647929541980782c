"""E2, E3: validation in each of its forms gives what Keras' own fit gives, bit for bit."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.oracle.sources import Named, generated

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]

FEEDS = {
    "in line": {"workers": 0, "trainer": "driver"},
    "threads": {"workers": 2, "trainer": "driver"},
    "processes and a trainer actor": {"workers": 2, "use_multiprocessing": True},
}


def two_by_two():
    """Two inputs by name and two outputs in a list, with weighted metrics; the same first weights each time."""
    keras.utils.set_random_seed(3)
    one, two = keras.Input((4,), name="one"), keras.Input((6,), name="two")
    hidden = keras.layers.concatenate([keras.layers.Dense(5)(one), keras.layers.Dense(5)(two)])
    left, right = keras.layers.Dense(1, name="left")(hidden), keras.layers.Dense(2, name="right")(hidden)
    model = keras.Model({"one": one, "two": two}, [left, right])
    model.compile("adam", ["mse", "mae"], weighted_metrics=[["mse"], ["mae"]])
    return model


def compare(ours, theirs, same_state, *, epochs=3, feed="in line", validation_steps=None, **arguments):
    """Train with one kind of validation data here, and with what is the same to Keras there."""
    here, there = two_by_two(), two_by_two()
    settings = {"epochs": epochs, "verbose": 0, "shuffle": False, **arguments}
    # Keras would give a generator's first batches twice: there the same data come in another form.
    steps = None if callable(getattr(ours, "__next__", None)) else validation_steps
    training = Named(44, seed=1)
    expected = there.fit(PyDataset(training), validation_data=theirs, validation_steps=steps, **settings)
    history = rayfeed.fit_generator(
        here, training, validation_data=ours, validation_steps=validation_steps, **settings, **FEEDS[feed]
    )
    assert history.history == expected.history
    assert any(name.startswith("val_right") for name in history.history)
    same_state(here, there)


class PyDataset(keras.utils.PyDataset):
    """A source as Keras takes it, its lists as tuples."""

    def __init__(self, source):
        super().__init__()
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return tuple(tuple(part) if isinstance(part, list) else part for part in self.source[index])


@pytest.mark.parametrize("feed", FEEDS)
def test_a_sequence_with_named_inputs_several_outputs_and_weights(feed, same_state):
    held_out = Named(20, weights=True)
    compare(held_out, PyDataset(held_out), same_state, feed=feed)


@pytest.mark.parametrize("feed", FEEDS)
def test_a_generator_of_the_same(feed, same_state):
    held_out = Named(20, weights=True)
    compare(generated(held_out), PyDataset(held_out), same_state, feed=feed, validation_steps=len(held_out))


@pytest.mark.parametrize("weights", [False, True], ids=["x and y", "x, y and weights"])
@pytest.mark.parametrize("feed", ["in line", "processes and a trainer actor"])
def test_arrays_of_the_same(feed, weights, same_state):
    arrays = Named(40, weights=weights).arrays()
    compare(arrays, arrays, same_state, feed=feed)


def test_arrays_without_weights_may_say_so(same_state):
    x, y = Named(40).arrays()
    compare((x, y, None), (x, y), same_state, epochs=1)


@pytest.mark.parametrize("frequency", [2, [1, 4]], ids=["every second", "listed"])
def test_validation_after_some_epochs_only(frequency, same_state):
    held_out = Named(20)
    compare(held_out, PyDataset(held_out), same_state, epochs=4, feed="threads", validation_freq=frequency)


@pytest.mark.parametrize("kind", ["sequence", "arrays"])
def test_a_number_of_steps_cuts_a_sequence_and_arrays_alike(kind, same_state):
    held_out = Named(80)
    ours, theirs = (held_out, PyDataset(held_out)) if kind == "sequence" else (held_out.arrays(), held_out.arrays())
    compare(ours, theirs, same_state, epochs=2, validation_steps=2)


def test_several_steps_at_once_and_lists_of_inputs_validate_as_in_keras(same_state):
    """In a graph, lists of arrays have to be tuples: a data set of TensorFlow's takes no lists."""

    def make():
        keras.utils.set_random_seed(3)
        inputs = [keras.Input((4,)), keras.Input((6,))]
        output = keras.layers.Dense(1)(keras.layers.concatenate(inputs))
        model = keras.Model(inputs, output)
        model.compile("adam", "mse", steps_per_execution=2)
        return model

    ours, theirs, source = make(), make(), Named(44, listed=True)
    expected = theirs.fit(PyDataset(source), validation_data=PyDataset(source), epochs=2, shuffle=False, verbose=0)
    history = rayfeed.fit_generator(
        ours, source, validation_data=source, epochs=2, shuffle=False, verbose=0, workers=0, trainer="driver"
    )
    assert history.history == expected.history
    same_state(ours, theirs)


def test_what_is_no_validation_data_is_refused_before_anything_starts():
    source = Named(20)
    for data, text in (
        ((np.zeros(3),), r"validation_data must be \(x, y\) or \(x, y, sample_weight\), got 1 members"),
        (5, "validation_data must be a Sequence"),
    ):
        with pytest.raises(ValueError, match=text):
            rayfeed.fit_generator(two_by_two(), source, validation_data=data)
