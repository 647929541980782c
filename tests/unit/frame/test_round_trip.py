"""Whatever a source makes arrives as it left: bytes, dtype, shape, structure."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayfeed.batch import flatten, unflatten
from rayfeed.frame import FrameSchema, codec, conform, decode, encode
from rayfeed.frame.compression import CODECS, compress

PADDED = np.dtype({"names": ["a", "b"], "formats": ["u1", ">i4"], "offsets": [1, 4], "itemsize": 12})
DTYPES = [
    *["?", "b", "h", "i", "q", "l", "B", "H", "I", "Q", "e", "f", "d", "g", "F", "D", "G"],
    *[">i2", ">f4", ">f8", ">c16", ">u8", ">U3", ">M8[ms]"],
    *["U1", "U5", "S1", "S7", "U0", "S0", "V1", "V5", "V0"],
    *["M8", "M8[s]", "M8[25ns]", "m8", "m8[D]"],
    PADDED,
    np.dtype([("x", "f4", (2, 3)), ("y", [("inner", "S3"), ("deep", PADDED)])]),
    np.dtype({"names": ["low", "all"], "formats": ["u2", "u4"], "offsets": [0, 0]}),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype([(("title", "n"), "U4"), ("m", "M8[us]")]),
    np.dtype((np.record, [("r", "f2"), ("q", "?")])),
    np.dtype([("empty", "U0"), ("b", "i4")]),
    np.dtype([]),
]
STRUCTURES = [
    lambda a: (a[0], a[1]),
    lambda a: [a[0], a[1], a[2]],
    lambda a: (a[0], None, a[1]),
    lambda a: ([a[0], a[1]], (a[2],)),
    lambda a: ((a[0], a[1]), {"left": a[2], "right": a[0]}, [a[1], a[2]]),
    lambda a: ({"é\ud800": a[0], "": a[1]}, None, None),
    lambda a: a[0],
    lambda a: {"one": a[0], "two": a[1]},
    lambda a: (a[0],),
]


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    result = np.ndarray(array.shape, array.dtype, memory)
    if array.nbytes:
        raw_items(result)[...] = raw_items(array)
    return result


ORDERS = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "backwards": lambda a: a[::-1],
    "every second": lambda a: np.repeat(a, 2, axis=0)[::2],
    "last axis backwards": lambda a: a[..., ::-1],
    "axes swapped": lambda a: np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1),
    "repeated": lambda a: np.broadcast_to(a[:1], a.shape) if len(a) else a,
    "unaligned": unaligned,
}


def make(seed, dtype, shape):
    """An array of random bytes: NaNs with payload, padding and impossible characters among them."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    memory = np.random.default_rng(seed).integers(0, 2 if dtype.kind == "b" else 256, count + 1, np.uint8)
    return np.ndarray(shape, dtype, memory)


def raw_items(array):
    return array.view(f"V{array.dtype.itemsize}") if array.dtype.itemsize else array


def raw(array):
    return raw_items(array).tobytes() if array.nbytes else b""


def assert_same(got, want):
    assert got.dtype == want.dtype
    # longlong and int64 are one dtype with two types; of structured ones the type is np.void or np.record.
    assert got.dtype.kind != "V" or got.dtype.type is want.dtype.type
    assert got.dtype.isalignedstruct == want.dtype.isalignedstruct
    assert got.dtype.fields == want.dtype.fields
    assert got.shape == want.shape
    assert raw(got) == raw(want)


@st.composite
def streams(draw):
    """1 to 6 batches of one source: three arrays each, of fixed dtypes, with any shapes and memory orders."""
    chosen = draw(st.lists(st.sampled_from(DTYPES), min_size=3, max_size=3))
    put = draw(st.sampled_from(STRUCTURES))
    inner = st.lists(st.integers(0, 3), max_size=4).map(tuple)
    alike = draw(st.booleans())
    common = draw(st.tuples(inner, inner, inner)), draw(st.integers(0, 4))
    batches = []
    for place in range(draw(st.integers(1, 6))):
        shapes, length = common if alike else draw(st.tuples(st.tuples(inner, inner, inner), st.integers(0, 4)))
        arrays = []
        for column, dtype in enumerate(chosen):
            kind = np.dtype(dtype)
            if kind.kind in "US" and draw(st.booleans()):
                kind = np.dtype(f"{kind.str[:2]}{draw(st.integers(0, 6))}")
            order = ORDERS[draw(st.sampled_from(sorted(ORDERS)))]
            arrays.append(order(make(100 * place + column, kind, (length, *shapes[column]))))
        batches.append(put(arrays))
    return batches


def encoded(batches):
    """As a producer does it: take apart, learn the schema from the first, hold the others against it, encode."""
    taken = [flatten(batch, where="test", bare_inputs=True) for batch in batches]
    schema = FrameSchema.of(*taken[0])
    for structure, arrays in taken:
        conform(schema, structure, arrays, where="test")
    return encode([arrays for _, arrays in taken], schema), taken


@pytest.mark.parametrize("inline_bytes", [1, 40, codec.INLINE_BYTES], ids=["own", "mixed", "joined"])
@given(batches=streams())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_stream_arrives_as_it_left(ship, monkeypatch, inline_bytes, batches):
    monkeypatch.setattr(codec, "INLINE_BYTES", inline_bytes)
    # These arrays are tiny: without this, all would be padded, and none would keep its own memory.
    monkeypatch.setattr(codec, "SMALLEST_BUFFER_BYTES", 1)
    frame, taken = encoded(batches)
    compressed = [compress(frame, one) for one in CODECS]
    for reader in map(decode, (frame, *compressed, *[ship(one)[0] for one in (frame, *compressed)])):
        assert reader.num_batches == len(batches)
        for index, (structure, wanted) in enumerate(taken):
            assert reader.schema.structure == structure
            for column, (got, want) in enumerate(zip(reader.arrays(index), wanted, strict=True)):
                assert_same(got, want)
                assert not got.flags.writeable
                assert got.flags.c_contiguous
                assert reader.shape(index, column) == want.shape
            for private in (False, True):
                again, arrays = flatten(reader.batch(index, copy=private), where="test", bare_inputs=True)
                assert again == structure
                for got, want in zip(arrays, wanted, strict=True):
                    assert_same(got, want)
                    assert got.flags.writeable == private


@pytest.mark.parametrize("inline_bytes", [1, codec.INLINE_BYTES], ids=["own", "joined"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_dtype_arrives_exactly(ship, monkeypatch, inline_bytes, dtype):
    monkeypatch.setattr(codec, "INLINE_BYTES", inline_bytes)
    wanted = [make(seed, dtype, (3, 5)) for seed in range(3)]
    reader = decode(ship(encoded([(array, array) for array in wanted])[0])[0])
    for index, want in enumerate(wanted):
        for got in (*reader.arrays(index), *reader.batch(index, copy=True)):
            assert_same(got, want)


@pytest.mark.parametrize("order", ORDERS)
def test_a_large_array_arrives_with_its_padding_from_any_memory_order(ship, order):
    want = ORDERS[order](make(1, PADDED, (150, 100)))
    assert want.nbytes >= codec.INLINE_BYTES
    assert_same(decode(ship(encoded([(want, None)])[0])[0]).arrays(0)[0], want)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_the_small_floats_of_ml_dtypes_arrive_as_themselves(ship, name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    want = np.arange(6).astype(getattr(ml_dtypes, name)).reshape(2, 3)
    frame = encoded([(want, want)])[0]
    for got in decode(ship(frame)[0]).arrays(0):
        assert got.dtype == want.dtype
        assert got.dtype.type is want.dtype.type
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("num_axes", [31, 32, 33, 63, 64])
def test_an_array_may_have_as_many_axes_as_numpy_allows(ship, num_axes):
    want = np.arange(4.0).reshape(2, 2, *[1] * (num_axes - 2))
    got = decode(ship(encoded([(want, want)] * 2)[0])[0]).arrays(1)[0]
    assert_same(got, want)


def test_batches_of_another_number_of_axes_share_a_frame(ship):
    wanted = [np.ones((2, 3)), np.zeros((4,)), np.ones((1, 2, 2)), np.zeros((0, 7))]
    reader = decode(ship(encoded([(array, array) for array in wanted])[0])[0])
    for index, want in enumerate(wanted):
        assert_same(reader.arrays(index)[0], want)


def test_strings_of_another_width_keep_each_their_own(ship):
    wanted = [np.array(["a", "bc"]), np.array(["abcdefg"]), np.array([], "U9"), np.array(["", ""], "U0")]
    reader = decode(ship(encoded([(array, array.astype("S")) for array in wanted])[0])[0])
    for index, want in enumerate(wanted):
        text, data = reader.arrays(index)
        assert_same(text, want)
        assert_same(data, want.astype("S"))
        assert text.tolist() == want.tolist()


def test_unflatten_gives_the_batch_that_flatten_took_apart():
    for put in STRUCTURES:
        batch = put([np.ones((2, place)) for place in range(3)])
        structure, arrays = flatten(batch, where="test", bare_inputs=True)
        assert repr(unflatten(structure, arrays)) == repr(batch)
