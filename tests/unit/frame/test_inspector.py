"""A glance at a batch finds what a close look finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfeed.batch import flatten
from rayfeed.errors import BatchError
from rayfeed.frame.inspector import Inspector
from rayfeed.frame.schema import FrameSchema, conform

X, Y = np.zeros((4, 3), "float32"), np.arange(4)

FIRSTS = {
    "a tuple": (X, Y),
    "a list": [X, Y],
    "weights": (X, Y, np.ones(4)),
    "a dict": ({"a": X, "b": X}, Y),
    "no targets": (X, None),
    "strings": (np.array(["a", "bc", "d", "e"]), Y),
    "a structured dtype": (np.zeros(4, [("a", "i4")]), Y),
}

LATER = [
    *FIRSTS.values(),
    (X[:2], Y[:2]),  # shorter, which is allowed
    (X, Y[:3]),
    (X, Y.astype("int32")),
    (X.astype(">f4"), Y),
    (np.zeros((4, 3, 1), "float32"), Y),
    (X[..., ::2], Y),
    (np.float32(1), np.int64(1)),
    (np.ma.masked_array(X), Y),
    (np.array(["a", "longer", "d", "e"]), Y),
    (np.zeros((0, 3), "float32"), Y[:0]),
    ([X, X], Y),
    (X,),
    (X, Y, None),
    X,
    None,
]


def found(look, batch):
    try:
        return [(array.dtype, array.shape, array.tobytes()) for array in look(batch)]
    except BatchError as error:
        return str(error)


@pytest.mark.parametrize("first", FIRSTS.values(), ids=FIRSTS)
@given(later=st.lists(st.sampled_from(LATER), max_size=4))
def test_it_finds_what_a_close_look_at_every_batch_finds(first, later):
    inspector = Inspector(bare_inputs=False)
    structure, arrays = flatten(first, where="here")
    schema = FrameSchema.of(structure, arrays)

    def glance(batch):
        return inspector.arrays(batch, "here")

    def close_look(batch):
        structure, arrays = flatten(batch, where="here")
        conform(schema, structure, arrays, where="here")
        return arrays

    for batch in (first, *later):
        assert found(glance, batch) == found(close_look, batch)
    assert inspector.schema == schema


def test_a_plain_batch_is_passed_on_as_it_is():
    inspector = Inspector(bare_inputs=False)
    inspector.arrays((X, Y), "here")
    x, y = inspector.arrays((X, Y), "here")
    assert x is X
    assert y is Y


def test_bare_inputs_are_told_from_a_tuple():
    inspector = Inspector(bare_inputs=True)
    assert inspector.arrays(X, "here")[0] is X
    with pytest.raises(BatchError, match=r"here: the batch is a tuple \(inputs\)"):
        inspector.arrays((X,), "here")


def test_a_first_batch_that_cannot_travel_decides_nothing():
    inspector = Inspector(bare_inputs=False)
    with pytest.raises(BatchError, match=r"^here: "):
        inspector.arrays((np.array([object()]), Y[:1]), "here")
    assert inspector.schema is None
    inspector.arrays((X, Y), "here")
    assert inspector.schema is not None


def test_the_place_is_put_into_words_only_for_a_message():
    class Place:
        def __str__(self):
            raise AssertionError("asked for in vain")

    inspector = Inspector(bare_inputs=False)
    for _ in range(3):
        inspector.arrays((X, Y), Place())
