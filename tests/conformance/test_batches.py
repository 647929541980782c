"""B: what a batch may be, how it arrives, and what is said of anything else."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import FEEDS
from tests.conftest import wait_until
from tests.sources import Numbered, batch, is_settled

X, MORE_X = np.arange(12, dtype="float32").reshape(4, 3), np.ones((4, 2), "float32")
LEFT, RIGHT = np.arange(4, dtype="float32")[:, None], np.ones((4, 1), "float32")
W_LEFT, W_RIGHT = np.array([1, 2, 3, 4], "float32"), np.array([0, 1, 0, 1], "float32")


NAMED = {"a": X, "b": MORE_X}
FORMS = {
    "lists": ([X, MORE_X], [LEFT, RIGHT], [W_LEFT, W_RIGHT]),
    "tuples": ((X, MORE_X), (LEFT, RIGHT), (W_LEFT, W_RIGHT)),
    "names": (NAMED, {"left": LEFT, "right": RIGHT}, (W_LEFT, W_RIGHT)),
    "a list of a dict and lists": [NAMED, [LEFT, RIGHT], [W_LEFT, W_RIGHT]],
}


@pytest.fixture(scope="module")
def forked():
    """Two inputs, two outputs. The losses, 0 weights throughout, are the weighted means of the squared targets."""
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    both = keras.layers.concatenate([a, b])
    outputs = [keras.layers.Dense(1, kernel_initializer="zeros", name=name)(both) for name in ("left", "right")]
    model = keras.Model([a, b], outputs)
    model.compile(keras.optimizers.SGD(0.0), ["mse", "mse"])
    return model


def repeat(value, length=3):
    """A Sequence of one batch, again and again."""

    class Repeat(rayfeed.Sequence):
        def __len__(self):
            return length

        def __getitem__(self, index):
            return value

    return Repeat()


@line("B1")
@complaint(
    "keras-team/keras#11800",
    there="fit took sample weights and fit_generator did not",
    here="a batch's third place holds its sample weights, one array or one for each output",
)
@pytest.mark.parametrize("form", FORMS)
def test_several_inputs_outputs_and_weights_come_in_lists_tuples_or_by_name(form, forked):
    history = rayfeed.fit_generator(forked, repeat(FORMS[form]), verbose=0, trainer="driver", workers=1)
    expected = np.mean(W_LEFT * LEFT[:, 0] ** 2) + np.mean(W_RIGHT * RIGHT[:, 0] ** 2)
    assert history.history["loss"] == pytest.approx([expected])


@line("B1")
def test_targets_may_be_none_and_prediction_takes_bare_inputs_and_ignores_the_rest(echo, forked):
    inputs, targets = batch(3)
    for value in (inputs, [inputs], (inputs,), (inputs, None), (inputs, targets), (inputs, targets, np.ones(4))):
        predictions = rayfeed.predict_generator(echo, repeat(value), trainer="driver", workers=0)
        assert predictions.tolist() == [[6.0]] * 12
    left, right = rayfeed.predict_generator(forked, repeat(([X, MORE_X],)), trainer="driver", workers=0)
    assert left.shape == right.shape == (12, 1)
    with rayfeed.Feed(repeat((X, None))) as feed:
        assert [targets for _, targets in feed] == [None, None, None]


@line("B2")
@pytest.mark.parametrize("workers", [0, 2])
def test_arrays_of_unequal_length_are_refused_with_each_name_and_length(workers, forked):
    wrong = {"a": X, "b": MORE_X[:3]}, {"left": LEFT, "right": RIGHT}
    with pytest.raises(ValueError, match=r"inputs\['a'\]: 4, inputs\['b'\]: 3, targets\['left'\]: 4"):
        rayfeed.fit_generator(forked, repeat(wrong), verbose=0, trainer="driver", workers=workers)


@line("B3")
@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
def test_batches_may_differ_in_length_and_in_other_axes(feed):
    model = keras.Sequential([keras.Input((None, 1)), keras.layers.GlobalMaxPooling1D()])

    class Ragged(Numbered):
        def __getitem__(self, index):
            return np.full((1 + index, 2 + index, 1), index, "float32"), np.zeros(1 + index)

    predictions = rayfeed.predict_generator(model, Ragged(3), trainer="driver", **feed)
    assert predictions[:, 0].tolist() == [0, 1, 1, 2, 2, 2]


ARRAYS = {
    "strings": np.array(["a", "bcd", ""]),
    "bytes": np.array([b"a", b"bcd", b""]),
    "bool": np.array([True, False, True]),
    "complex": np.arange(3) * 1j,
    "float16": np.arange(3, dtype="float16"),
    "uint8": np.arange(12, dtype="uint8").reshape(3, 2, 2),
    "big-endian": np.arange(3, dtype=">i4"),
    "dates": np.array(["2026-01-01", "2026-01-02", "NaT"], "datetime64[D]"),
    "Fortran order": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(24.0).reshape(6, 4)[::-2, ::2],
    "zero-size": np.empty((3, 0, 2)),
}


@line("B4")
@pytest.mark.parametrize("length", [3, 0], ids=["three samples", "no samples"])
def test_any_fixed_width_dtype_and_layout_arrives_as_it_left(length):
    sent = {name: array[:length] for name, array in ARRAYS.items()}
    with rayfeed.Feed(repeat((sent, None)), use_multiprocessing=True) as feed:
        for found, _ in feed:
            assert list(found) == list(sent)
            for name, array in sent.items():
                assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
                np.testing.assert_array_equal(found[name], array, err_msg=name)


REFUSED = {
    "B4 Python objects": ((np.array([{}, {}, {}]), X[:3]), r"inputs has dtype dtype\('O'\).*Convert it in the source"),
    "B4 numbers in a list": (([1.0, 2.0], np.ones(2)), r"inputs\[0\] is float 1\.0, not an array"),
    "B2 a number": ((X, 3), r"targets is int 3"),
    "B2 no length": ((X, np.float32(3)), r"targets is a single value .*has no length"),
    "B5 text": ("abc" * 100, r"found str '(abc){31}ab?c?\S*\.\.\."),
    "B5 nothing": (None, "found NoneType None"),
    "B5 too many": ((X, LEFT, W_LEFT, W_LEFT), r"\(inputs, targets"),
}


@line("B2", "B4", "B5")
@complaint(
    "keras-team/keras#1533",
    there="what went wrong in a worker was swallowed",
    here="what is no batch is an error in the caller that says what was found, in which worker, at which index",
)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_batch_is_a_value_error_that_says_what_was_found_and_who_made_it(name):
    value, text = REFUSED[name]
    with (
        rayfeed.Feed(repeat(value), use_multiprocessing=True) as feed,
        pytest.raises(
            ValueError, match=rf"(?s)producer 0 \(node [\d.]+, pid \d+\), source: batch 0 of pass 0: .*{text}"
        ) as caught,
    ):
        next(iter(feed))
    assert len(str(caught.value)) < 600


@line("B6")
@complaint(
    "ray-project/ray#5592",
    there="arrays from the object store are read-only, which broke code that edits its batch in place",
    here="they are views of shared memory, which nobody can spoil for another; copy=True gives arrays to edit",
)
@pytest.mark.parametrize("workers", [0, 2])
def test_delivered_arrays_are_read_only_and_copies_are_ones_own(workers):
    source = Numbered(4, size=10_000)
    with rayfeed.Feed(source, workers) as feed:
        inputs, _ = next(iter(feed))
        with pytest.raises(ValueError, match="read-only"):
            inputs += 1
        rest(feed, workers)
    with rayfeed.Feed(source, workers, copy=True) as feed:
        copies = list(feed)
        for inputs, targets in copies:
            np.add(inputs, 1, out=inputs)
            np.add(targets, 1, out=targets)
        assert [int(inputs[0, 0]) for inputs, _ in copies] == [1, 2, 3, 4]
        assert [int(inputs[0, 0]) for inputs, _ in feed] == [0, 1, 2, 3]
        rest(feed, workers)


def rest(feed, workers):
    """Wait until no producer is writing: what it writes while it is ended stays in the store until Ray evicts it."""
    wait_until(lambda: not workers or is_settled(feed), "producers never rest")
