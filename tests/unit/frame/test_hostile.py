"""A frame that contradicts itself is refused; nothing is read beyond its buffers."""

import dataclasses
import pickle

import numpy as np
import pyarrow as pa
import pytest

from rayfeed.batch import flatten
from rayfeed.errors import BatchError
from rayfeed.frame import FrameSchema, codec, decode, encode
from rayfeed.frame.layout import Form

LARGE = codec.INLINE_BYTES // 4


def frame_of(*batches):
    taken = [flatten(batch, where="test") for batch in batches]
    return encode([arrays for _, arrays in taken], FrameSchema.of(*taken[0]))


def batch_of(length, width=4):
    return np.zeros((length, width), "f4"), np.zeros(length, "i8")


JOINED = frame_of(*[batch_of(300)] * 3)
UNEVEN = frame_of(batch_of(300), batch_of(200), batch_of(300, 5))
OWN = frame_of(*[batch_of(LARGE)] * 2)
WORDS = frame_of((np.zeros(3, "U2"), None), (np.zeros(3, "U4"), None))


def changed(frame, **column):
    """The frame with its first column changed."""
    return dataclasses.replace(frame, columns=(dataclasses.replace(frame.columns[0], **column), *frame.columns[1:]))


def floats(count, **options):
    return pa.Array.from_buffers(pa.float32(), count, [None, pa.py_buffer(np.zeros(count, "f4"))], **options)


def truncated(count):
    """An Arrow array whose buffer was cut short on the way; Arrow does not look when it unpickles."""
    in_band = pickle.dumps(floats(count), protocol=5, buffer_callback=lambda buffer: None)
    return pickle.loads(in_band, buffers=[pa.py_buffer(np.zeros(512, "f4"))])


SHORT = floats(512)
LYING = truncated(1 << 20)
NULLS = pa.array([1.0, None] * 9000, pa.float32())
OFFSET = floats(9000).slice(5)

CASES = {
    "no batches": (dataclasses.replace(JOINED, num_batches=0), "it has 0 batches"),
    "batches as text": (dataclasses.replace(JOINED, num_batches="3"), "it has '3' batches"),
    "too many batches": (dataclasses.replace(JOINED, num_batches=10**12), "batch 999999999999 ends at byte"),
    "one batch too many": (
        dataclasses.replace(JOINED, num_batches=4),
        "inputs: batch 3 ends at byte 19200 of",
    ),
    "lengths missing": (dataclasses.replace(UNEVEN, lengths=(300, 200)), "2 of its batches have a length"),
    "negative length": (dataclasses.replace(JOINED, lengths=(-1,)), "a length is not a natural number"),
    "length no number": (dataclasses.replace(JOINED, lengths=(3.0,)), "a length is not a natural number"),
    "too long": (dataclasses.replace(JOINED, lengths=(400,)), "inputs: batch 2 ends at byte"),
    "far too long": (dataclasses.replace(JOINED, lengths=(1 << 70,)), "inputs: batch 2 ends at byte"),
    "too long, uneven": (dataclasses.replace(UNEVEN, lengths=(300, 600, 300)), "inputs: batch 2 ends at byte"),
    "too long, own": (dataclasses.replace(OWN, lengths=(LARGE + 1,)), "inputs: batch 0 ends at byte"),
    "second too long, own": (dataclasses.replace(OWN, lengths=(1, LARGE + 1)), "inputs: batch 1 ends at byte"),
    "column missing": (dataclasses.replace(JOINED, columns=JOINED.columns[:1]), "it has 1 columns for 2 arrays"),
    "unknown layout": (changed(JOINED, layout="scattered"), "inputs: its layout is 'scattered'"),
    "layout swapped": (changed(JOINED, layout="own"), "inputs: it has 1 Arrow arrays, not 3"),
    "layout swapped back": (changed(OWN, layout="joined"), "inputs: it has 2 Arrow arrays, not 1"),
    "no array": (changed(JOINED, arrays=()), "inputs: it has 0 Arrow arrays, not 1"),
    "short buffer": (changed(JOINED, arrays=(SHORT,)), "inputs: batch 2 ends at byte 14400 of a buffer of 2048"),
    "short buffer, uneven": (changed(UNEVEN, arrays=(SHORT,)), "inputs: batch 2 ends at byte"),
    "short buffer, own": (changed(OWN, arrays=(OWN.columns[0].arrays[0], SHORT)), "inputs: batch 1 ends at byte"),
    "lying array": (changed(JOINED, arrays=(LYING,)), "inputs: its Arrow array has 4194304 bytes in a buffer of 2048"),
    "nulls": (changed(JOINED, arrays=(NULLS,)), "inputs: its Arrow array has nulls or an offset"),
    "offset": (changed(JOINED, arrays=(OFFSET,)), "inputs: its Arrow array has nulls or an offset"),
    "other type": (changed(JOINED, arrays=(pa.array([1] * 9000),)), "inputs: it holds int64, not float"),
    "nested type": (
        changed(JOINED, arrays=(pa.array([[1.0]] * 9000),)),
        "inputs: it holds list<item: double>, not float",
    ),
    "no arrow": (changed(JOINED, arrays=(np.zeros(9000, "f4"),)), "inputs: it holds ndarray, not float"),
    "no forms": (changed(JOINED, forms=()), "inputs: its 0 forms belong to no batch"),
    "unused forms": (changed(JOINED, forms=JOINED.columns[0].forms * 2), "inputs: its 2 forms belong to no batch"),
    "form missing": (changed(UNEVEN, which=(0, 0, 2)), "inputs: a form is missing"),
    "negative form": (changed(UNEVEN, which=(0, 0, -1)), "inputs: a form is missing"),
    "batch without form": (changed(UNEVEN, which=(0, 1)), "inputs: 2 of 3 batches have a form"),
    "negative axis": (
        changed(JOINED, forms=(Form((-4,), 4),)),
        "inputs: it has the form Form(inner=(-4,), ",
    ),
    "axis no number": (
        changed(JOINED, forms=(Form((4.5,), 4),)),
        "inputs: it has the form Form(inner=(4.5,), ",
    ),
    "wider axis": (changed(JOINED, forms=(Form((40,), 4),)), "inputs: batch 2 ends at byte"),
    "other item size": (changed(JOINED, forms=(Form((4,), 2),)), "inputs: its items have 2 bytes, those of float32 4"),
    "wider words": (changed(WORDS, forms=(Form((), 8), Form((), 4000))), "inputs: batch 1 ends at byte"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_contradiction_is_refused_before_anything_is_read(name):
    frame, text = CASES[name]
    with pytest.raises(BatchError) as caught:
        decode(frame)
    assert str(caught.value).startswith("a frame contradicts itself: ")
    assert text in str(caught.value)
    advice = "It was damaged, or written by another version of rayfeed: use the same version on all nodes."
    assert str(caught.value).endswith(f".\n  {advice}")


@pytest.mark.parametrize(
    "inner", [(1,) * 80, (0, 1 << 62, 1 << 62), (0, 1 << 70)], ids=["too many axes", "overflow", "far too long"]
)
def test_a_shape_that_numpy_cannot_express_is_refused_when_it_is_read(inner):
    reader = decode(changed(frame_of((np.zeros(3, "f4"), None), (np.zeros(3, "f4"), None)), forms=(Form(inner, 4),)))
    with pytest.raises(BatchError, match=r"a frame contradicts itself: shape \(3, "):
        reader.arrays(1)


@pytest.mark.parametrize("width", [3, 5, 7])
def test_a_width_that_no_string_has_is_refused(width):
    with pytest.raises(BatchError, match=r"no such string is .* bytes wide"):
        decode(changed(WORDS, forms=(Form((), 8), Form((), width))))


def test_a_damaged_schema_is_refused():
    with pytest.raises(BatchError, match="a frame's schema cannot be read"):
        decode(dataclasses.replace(JOINED, schema_json=JOINED.schema_json[:-1]))


def test_the_frames_that_are_changed_here_are_good_ones():
    for frame in (JOINED, UNEVEN, OWN, WORDS):
        reader = decode(frame)
        assert all(reader.arrays(index) for index in range(reader.num_batches))
