"""How batches lie in a frame: what is shared, what is copied, what travels, and how it is aligned."""

import dataclasses
import gc
import weakref

import numpy as np
import pyarrow as pa
import pytest

from rayfeed.batch import flatten
from rayfeed.errors import InternalError
from rayfeed.frame import FrameSchema, codec, decode, encode
from rayfeed.frame.layout import SMALLEST_BUFFER_BYTES

LARGE = codec.INLINE_BYTES // 4
"""Float32 numbers in an array that keeps its own memory."""


def encoded(*batches):
    taken = [flatten(batch, where="test") for batch in batches]
    return encode([arrays for _, arrays in taken], FrameSchema.of(*taken[0]))


def address(array):
    return array.ctypes.data


@pytest.mark.parametrize(
    "lengths",
    [[5], [3] * 7, [3, 3, 2], [0, 1, 0, 33], [1, LARGE, 2], [LARGE] * 3, [LARGE + 1, LARGE, LARGE + 7, 0]],
    ids=["one", "alike", "short last", "empty among them", "one large", "large", "large and uneven"],
)
@pytest.mark.parametrize("dtype", ["f4", "i1", "?", "S3", "f8", "c16", "V7"])
def test_every_batch_begins_at_a_multiple_of_64_bytes_in_the_store(ship, lengths, dtype):
    frame = encoded(*[(np.zeros((length, 3), dtype), np.zeros(length, "i4")) for length in lengths])
    reader = decode(ship(frame)[0])
    for index, length in enumerate(lengths):
        for column, array in enumerate(reader.arrays(index)):
            assert array.size == 0 or address(array) % 64 == 0
            arrow = reader.arrow(index, column)
            start = arrow.buffers()[1].address + arrow.offset * arrow.type.byte_width
            assert start % 64 == 0
            assert not length or start == address(array), "copied although it was aligned"


@pytest.mark.parametrize("length", [0, 1, 511, 512, LARGE])
def test_no_buffer_is_too_small_for_ray_to_align(ship, length):
    frame = encoded((np.zeros(length, "f4"), np.zeros(length, "i1")), (np.zeros(length, "f4"), np.zeros(length, "i1")))
    assert min(ship(frame)[2]) >= SMALLEST_BUFFER_BYTES


def test_a_large_array_is_shared_until_the_frame_is_pickled():
    x = np.arange(LARGE, dtype="f4").reshape(-1, 4)
    weights = np.zeros(LARGE * 2, "?")[: len(x)]
    frame = encoded((x, x[::-1].copy(), weights), (x, x, weights))
    for index in range(2):
        got = decode(frame).arrays(index)
        assert np.shares_memory(got[0], x)
        assert not np.shares_memory(got[2], weights)


@pytest.mark.parametrize("dtype", ["U25", "c8", "M8[s]", ">f4", "g", [("a", "u1"), ("b", "f8")]], ids=str)
def test_a_large_array_that_arrow_lacks_is_shared_too(dtype):
    x = np.zeros((1024, 160), dtype)
    assert x.nbytes >= codec.INLINE_BYTES
    assert np.shares_memory(decode(encoded((x, None))).arrays(0)[0], x)


def test_what_decides_is_the_mean_size_of_a_column():
    short, long = np.zeros(LARGE // 2, "f4"), np.zeros(LARGE * 2, "f4")
    frame = encoded((long, long), (short, short), (long[:LARGE], short[:1].repeat(LARGE)))
    assert [column.layout for column in frame.columns] == ["own", "own"]
    frame = encoded((short, short), (long[:LARGE], long[:LARGE]))
    assert [column.layout for column in frame.columns] == ["joined", "joined"]


def test_encoding_leaves_the_sources_arrays_as_they_were():
    x, y = np.zeros((LARGE, 1), "f4"), np.zeros(LARGE, "i1")
    frame = encoded((x, y))
    assert x.flags.writeable
    assert y.flags.writeable
    assert x.shape == (LARGE, 1)
    assert not decode(frame).arrays(0)[0].flags.writeable


def test_a_frame_that_was_never_pickled_gives_read_only_arrays_that_cannot_be_made_writable():
    for array in decode(encoded((np.zeros(LARGE, "f4"), np.zeros(LARGE, "i1")))).arrays(0):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.flags.writeable = True


def test_a_frame_on_writable_memory_gives_read_only_arrays_too():
    frame = encoded((np.zeros(LARGE, "f4"), np.zeros(LARGE, "i1")))
    columns = []
    for column in frame.columns:
        memory = pa.py_buffer(bytearray(column.arrays[0].buffers()[1].to_pybytes()))
        assert memory.is_mutable
        array = pa.Array.from_buffers(column.arrays[0].type, len(column.arrays[0]), [None, memory])
        columns.append(dataclasses.replace(column, arrays=(array,)))
    for array in decode(dataclasses.replace(frame, columns=tuple(columns))).arrays(0):
        assert not array.flags.writeable


def test_a_slice_never_ships_its_parent(ship):
    parent = np.zeros((100 * LARGE,), "f4")
    frame = encoded((parent[LARGE : 2 * LARGE], parent[5:6].repeat(LARGE)), (parent[-LARGE:], parent[:LARGE]))
    _, in_band, sizes = ship(frame)
    assert sizes == [LARGE * 4] * 4
    assert in_band < 2000


def test_small_slices_of_one_array_ship_themselves_and_their_padding(ship):
    parent = np.zeros((1000, 1000), "f4")
    frame = encoded(*[(parent[row : row + 1], parent[row : row + 1, :3]) for row in range(10)])
    assert ship(frame)[2] == [10 * 4032, SMALLEST_BUFFER_BYTES]


def test_what_is_pickled_in_band_does_not_grow_with_batches_alike(ship):
    batch = {"image": np.zeros((32, 5), "f4"), "name": np.zeros(32, "U7")}, np.zeros(32, "i8")
    few, many = (ship(encoded(*[batch] * count))[1] for count in (2, 1000))
    assert many - few < 10
    assert many < 1000


def test_what_is_pickled_in_band_grows_by_few_bytes_with_each_batch_of_another_length(ship):
    frame = encoded(*[(np.zeros((length % 50, 3), "f4"), np.zeros(length % 50, "i8")) for length in range(1000)])
    assert ship(frame)[1] < 4000


def test_what_is_pickled_in_band_stays_small_for_large_arrays(ship):
    _, in_band, sizes = ship(encoded(*[(np.zeros((LARGE, 2), "f4"), np.asfortranarray(np.zeros((LARGE, 2))))] * 4))
    assert in_band < 2000
    assert sum(sizes) == 4 * (LARGE * 8 + LARGE * 16)


def test_num_bytes_is_what_the_store_must_hold(ship):
    frame = encoded(*[(np.zeros((length, LARGE // 2), "f4"), np.zeros(length, "i8")) for length in (1, 3, 2)])
    assert frame.num_bytes == sum(ship(frame)[2]) == 6 * LARGE * 2 + SMALLEST_BUFFER_BYTES
    assert repr(frame) == f"Frame(3 batches, {frame.num_bytes:,} bytes)"


def test_the_same_batches_give_the_same_bytes():
    def payload():
        junk = np.random.default_rng().integers(0, 256, 1 << 18, np.uint8)
        del junk
        frame = encoded(*[(np.full((length, 3), 7, "i1"), np.full(length, 8, "f4")) for length in (1, 3, 5)])
        return [array.buffers()[1].to_pybytes() for column in frame.columns for array in column.arrays]

    assert payload() == payload()


def test_the_frame_keeps_the_sources_memory_alive_and_no_longer():
    x = np.zeros((LARGE, 1), "f4")
    watched = weakref.ref(x)
    frame = encoded((x, None))
    del x
    gc.collect()
    assert watched() is not None
    view = decode(frame).arrays(0)[0]
    del frame
    gc.collect()
    assert watched() is not None
    del view
    gc.collect()
    assert watched() is None


def test_a_view_outlives_its_frame_and_its_reader(ship):
    frame = ship(encoded((np.arange(6).reshape(2, 3), np.zeros(2)), (np.arange(6).reshape(2, 3) * 2, np.zeros(2))))[0]
    views = [decode(frame).arrays(1)[0], np.from_dlpack(decode(frame).arrow(1, 0))]
    del frame
    gc.collect()
    np.zeros(1 << 12)
    for view in views:
        assert view.ravel().tolist() == [0, 2, 4, 6, 8, 10]


def test_copies_are_private(ship):
    frame = ship(encoded((np.zeros((2, 3)), np.zeros(2)), (np.ones((2, 3)), np.ones(2))))[0]
    x, y = decode(frame).batch(0, copy=True)
    x[:], y[:] = 7, 7
    again = decode(frame).batch(0, copy=True)
    assert not again[0].any()
    assert not again[1].any()
    assert x.flags.c_contiguous
    assert x.flags.owndata
    assert not any(np.shares_memory(x, array) for array in decode(frame).arrays(0))


@pytest.mark.parametrize("length", [3, LARGE])
@pytest.mark.parametrize("code", ["b", "h", "i", "q", "B", "H", "I", "Q", "e", "f", "d"])
def test_dlpack_gives_native_numbers_their_own_type_without_a_copy(ship, code, length):
    wanted = [np.arange(place, length + place, dtype="f8").astype(code) for place in range(3)]
    reader = decode(ship(encoded(*[(array, None) for array in wanted]))[0])
    assert reader.is_native(0)
    for index, want in enumerate(wanted):
        got = np.from_dlpack(reader.arrow(index, 0))
        assert got.dtype == want.dtype
        assert got.tobytes() == want.tobytes()
        assert np.shares_memory(got, reader.arrays(index)[0])


@pytest.mark.parametrize("dtype", ["?", "c8", "g", "U3", "S5", "M8[s]", ">f4", "V3"])
def test_what_arrow_lacks_is_exported_as_bytes(ship, dtype):
    want = np.zeros((3, 5), dtype)
    reader = decode(ship(encoded((want, None), (want, None)))[0])
    assert not reader.is_native(0)
    arrow = reader.arrow(1, 0)
    assert arrow.type == pa.uint8()
    assert np.from_dlpack(arrow).tobytes() == want.tobytes()


def test_an_export_is_flat_and_c_ordered_for_whatever_memory_order(ship):
    x = np.arange(2 * LARGE, dtype="i4").reshape(2, -1)
    for source in (x, np.asfortranarray(x), x[:, ::-1], x[:, :6], np.asfortranarray(x[:, :6])):
        reader = decode(ship(encoded((source, None)))[0])
        got = np.from_dlpack(reader.arrow(0, 0))
        assert got.shape == (source.size,)
        assert (got.reshape(reader.shape(0, 0)) == source).all()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 5)])
def test_an_export_of_nothing_is_empty(ship, shape):
    reader = decode(ship(encoded((np.zeros(shape, "f4"), None), (np.zeros(shape, "f4"), None)))[0])
    assert np.from_dlpack(reader.arrow(1, 0)).shape == (0,)
    assert reader.shape(1, 0) == shape


@pytest.mark.parametrize("skew", [1, 8, 32])
def test_an_export_is_aligned_even_where_the_memory_is_not(ship, skew):
    wanted = [np.arange(place, place + 5, dtype="f4") for place in range(3)]
    reader = decode(ship(encoded(*[(array, None) for array in wanted]), skew=skew)[0])
    for index, want in enumerate(wanted):
        arrow = reader.arrow(index, 0)
        assert (arrow.buffers()[1].address + 4 * arrow.offset) % 64 == 0
        assert arrow.to_pylist() == want.tolist()
        assert reader.arrays(index)[0].tolist() == want.tolist()


def test_an_export_of_a_frame_never_pickled_is_aligned():
    memory = np.zeros(4 * LARGE + 64, np.uint8)
    start = 4 - memory.ctypes.data % 64 + 64
    x = memory[start : start + 4 * LARGE - 64].view("f4")
    x[:] = np.arange(len(x))
    arrow = decode(encoded((x, None), (np.zeros((LARGE + 64,), "f4"), None))).arrow(0, 0)
    assert arrow.buffers()[1].address % 64 == 0
    assert (np.from_dlpack(arrow) == x).all()


@pytest.mark.parametrize("index", [-1, 2])
def test_a_batch_that_the_frame_does_not_hold_is_a_bug(index):
    reader = decode(encoded((np.zeros(2), np.zeros(2)), (np.zeros(2), np.zeros(2))))
    text = f"batch {index} was asked of a frame that holds 2 batches."
    for ask in (
        reader.arrays,
        reader.batch,
        lambda index: reader.arrow(index, 0),
        lambda index: reader.shape(index, 0),
    ):
        with pytest.raises(InternalError) as caught:
            ask(index)
        assert str(caught.value) == text


@pytest.mark.parametrize(
    ("flats", "text"),
    [
        ([], "encode: got batches of [] arrays for a schema of 2 arrays per batch."),
        ([[np.zeros(2)]], "encode: got batches of [1] arrays for a schema of 2 arrays per batch."),
        ([[np.zeros(2), np.zeros(2)], [np.zeros(2), np.zeros(2, "f4")]],
         "encode: targets is '<f4' in one batch, and '<f8' in the schema."),
        ([[np.zeros(2), np.zeros(3)]], "encode: targets has the lengths [3] in batches of the lengths [2]."),
    ],
    ids=["none", "count", "dtype", "length"],
)  # fmt: skip
def test_batches_that_nobody_checked_are_a_bug(flats, text):
    with pytest.raises(InternalError) as caught:
        encode(flats, FrameSchema.of(*flatten((np.zeros(2), np.zeros(2)), where="test")))
    assert str(caught.value) == text
