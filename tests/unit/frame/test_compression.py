"""Frames are made smaller and whole again; what is not a compressed frame is refused."""

import dataclasses
import pickle

import numpy as np
import pyarrow as pa
import pytest

from rayfeed.batch import flatten
from rayfeed.errors import BatchError
from rayfeed.frame import FrameSchema, codec, decode, encode
from rayfeed.frame.compression import CODECS, compress

LARGE = codec.INLINE_BYTES // 4


def frame_of(*batches):
    taken = [flatten(batch, where="test") for batch in batches]
    return encode([arrays for _, arrays in taken], FrameSchema.of(*taken[0]))


JOINED = frame_of(*[(np.full((300, 4), place, "f4"), np.arange(300)) for place in range(3)])
OWN = frame_of(*[(np.full((LARGE, 4), place, "f4"), np.arange(LARGE)) for place in range(2)])
NOISE = np.random.default_rng(0).integers(0, 256, 1_000_000, np.uint8)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("frame", [JOINED, OWN], ids=["joined", "own"])
def test_a_frame_waits_small_and_is_whole_when_a_batch_is_asked_for(frame, name):
    small = compress(frame, name)
    assert small.num_bytes < frame.num_bytes / 3
    assert repr(small) == f"Frame({frame.num_batches} batches, {small.num_bytes:,} bytes, {name})"
    reader, plain = decode(small), decode(frame)
    before = pa.total_allocated_bytes()
    assert [reader.num_bytes(index) for index in range(2)] == [plain.num_bytes(index) for index in range(2)]
    assert reader.memory() == (0, []), "nothing of it is a view of the store"
    assert pa.total_allocated_bytes() == before
    for index in range(frame.num_batches):
        for column, (got, want) in enumerate(zip(reader.arrays(index), plain.arrays(index), strict=True)):
            assert got.dtype == want.dtype
            assert np.array_equal(got, want)
            assert not got.flags.writeable
            assert got.ctypes.data % 64 == 0
            assert reader.arrow(index, column).equals(plain.arrow(index, column))
    assert pa.total_allocated_bytes() - before >= frame.num_bytes
    assert reader.memory() == (0, [])


@pytest.mark.parametrize("name", CODECS)
def test_noise_stays_as_large_as_it_is(name):
    frame = frame_of((NOISE, None))
    assert 0.99 < compress(frame, name).num_bytes / frame.num_bytes < 1.01


def changed(frame, **column):
    """The frame with its first column changed."""
    return dataclasses.replace(frame, columns=(dataclasses.replace(frame.columns[0], **column), *frame.columns[1:]))


GOOD = compress(JOINED, "zstd")
DATA = GOOD.columns[0].arrays[0]
IN_BAND = pickle.dumps(DATA, protocol=5, buffer_callback=lambda buffer: None)  # Arrow does not look when it unpickles
CASES = {
    "unknown codec": (dataclasses.replace(GOOD, codec="gzip"), "it is compressed by 'gzip', not by one of"),
    "other codec": (dataclasses.replace(GOOD, codec="lz4"), "it is not what lz4 wrote"),
    "no size": (changed(GOOD, sizes=()), "it has 1 arrays of 0 sizes, not 1"),
    "no array": (changed(GOOD, arrays=()), "it has 0 arrays of 1 sizes, not 1"),
    "too small": (changed(GOOD, sizes=(14_399,)), "its batches end at byte 14400 of a buffer of 14399"),
    "far too large": (changed(GOOD, sizes=(1 << 50,)), "its batches end at byte 14400 of a buffer of 1125899906842624"),
    "size no number": (changed(GOOD, sizes=(14_400.0,)), "its batches end at byte 14400 of a buffer of 14400.0"),
    "no arrow": (changed(GOOD, arrays=(b"",)), "a compressed array is not of bytes"),
    "other type": (changed(GOOD, arrays=(pa.array([1]),)), "a compressed array is not of bytes"),
    "nulls": (changed(GOOD, arrays=(pa.array([1, None], pa.uint8()),)), "a compressed array has nulls, an offset, or"),
    "offset": (changed(GOOD, arrays=(DATA.slice(3),)), "a compressed array has nulls, an offset, or"),
    "cut": (changed(GOOD, arrays=(DATA.slice(0, 20),)), "it is not what zstd wrote"),
    "lying": (
        changed(GOOD, arrays=(pickle.loads(IN_BAND, buffers=[pa.py_buffer(b"abc")]),)),
        "a compressed array has nulls, an offset, or less than it says",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_no_producer_wrote_is_refused(name):
    frame, text = CASES[name]
    with pytest.raises(BatchError) as caught:
        decode(frame).arrays(0)
    assert str(caught.value).startswith(f"a frame contradicts itself: inputs: {text}")


def test_the_frame_that_is_changed_here_is_a_good_one():
    assert [int(decode(GOOD).arrays(index)[0][0, 0]) for index in range(3)] == [0, 1, 2]
