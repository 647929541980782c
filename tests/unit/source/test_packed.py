"""A source taken apart and put together is what pickle makes of it, and its large pieces are told apart."""

import pickle
import threading

import numpy as np
import pyarrow as pa
import pytest

from rayfeed.errors import SourceError
from rayfeed.source.packed import PIECE_BYTES, Packed, PackedWriter, reader_of
from rayfeed.source.shipping import pack, put_together, take_apart, unpack

LARGE = PIECE_BYTES  # elements of a byte, so that each array is a piece


def sent(source):
    return put_together(take_apart(source, name="generator").copied())


def sizes(source):
    return [piece.nbytes for piece in take_apart(source, name="generator").pieces]


class Holder:
    def __init__(self, **members):
        self.__dict__.update(members)


class Slotted:
    __slots__ = ("inputs", "order")


class Reduced:
    """Tells pickle itself how it is made again."""

    def __init__(self, inputs):
        self.inputs = inputs
        self.cache = {"made": "here"}

    def __reduce__(self):
        return Reduced, (self.inputs,)


class Stated(Holder):
    def __getstate__(self):
        return {"inputs": self.inputs}


class Own(np.ndarray):
    pass


def read_only(array):
    array.flags.writeable = False
    return array


def numbers(length=LARGE):
    return np.arange(length, dtype="uint8" if length < 256 else "int64")


ARRAYS = {
    "large": numbers(),
    "small": numbers(7),
    "Fortran order": np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
    "every other": np.arange(200_000)[::2],
    "transposed": np.arange(200_000).reshape(400, 500).T,
    "axes exchanged": np.arange(200_000).reshape(100, 50, 40).transpose(1, 0, 2),
    "no rows": np.zeros((0, 5)),
    "no columns, Fortran order": np.zeros((5, 0), order="F"),
    "number": np.array(3.5),
    "objects": np.array([None, "a", ("b", 1)] * 50_000, object),
    "strings": np.array(["wort", "längeres Wort"] * 20_000),
    "dates": np.arange("2020", "2200", dtype="datetime64[h]"),
    "records": np.zeros(20_000, [("a", "f4"), ("b", "i8")]),
    "big-endian": np.arange(100_000).astype(">i4"),
    "subclass": np.arange(100_000).view(Own),
    "masked": np.ma.masked_array(np.arange(100_000), np.arange(100_000) % 3 == 0),
    "read-only": read_only(numbers()),
    "read-only, every other": read_only(np.arange(200_000)[::2]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_every_array_arrives_as_pickle_alone_would_bring_it(array):
    here, there = unpack(pack(Holder(array=array), name="generator")).array, sent(Holder(array=array)).array
    assert type(there) is type(here)
    assert (there.dtype, there.shape, there.strides) == (here.dtype, here.shape, here.strides)
    assert np.array_equal(np.asarray(there), np.asarray(here))
    for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS", "WRITEABLE", "ALIGNED"):
        assert there.flags[flag] == here.flags[flag], flag
    assert not np.shares_memory(there, array)


def test_an_array_mapped_from_a_file_arrives_in_memory(tmp_path):
    path = tmp_path / "data"
    np.arange(100_000).tofile(path)
    mapped = np.memmap(path, np.int64, "r")
    here, there = unpack(pack(mapped, name="generator")), sent(mapped)
    assert type(there) is type(here)
    assert there.flags.writeable == here.flags.writeable
    assert np.array_equal(there, mapped)


def test_tables_strings_and_bytes_arrive():
    source = {
        "table": pa.table({"a": np.arange(50_000), "s": ["text"] * 50_000}),
        "bytes": bytes(range(256)) * 1000,
        "bytearray": bytearray(200_000),
        "text": "wört" * 100_000,
        "list": [str(number) for number in range(100_000)],
        "big": [b"q" * 70_000, b"q" * 70_000],
    }
    there = sent(source)
    assert there == source
    there["bytearray"].append(1)
    source["bytearray"].append(1)  # nobody holds on to it


def test_one_array_in_two_places_stays_one():
    array = numbers()
    there = sent(Holder(a=array, b=array, inside={"c": [array]}))
    assert there.a is there.b
    assert there.inside["c"][0] is there.a


def test_a_view_arrives_as_an_array_of_its_own_as_with_pickle_alone():
    array = numbers()
    for arrive in (sent, lambda source: unpack(pack(source, name="generator"))):
        there = arrive(Holder(array=array, view=array[: LARGE // 2], whole=array[:]))
        there.array[:] = 0
        assert np.array_equal(there.view, array[: LARGE // 2])
        assert np.array_equal(there.whole, array)


@pytest.mark.parametrize("kind", [Slotted, Reduced, Stated, Holder])
def test_every_way_of_having_members_arrives(kind):
    source = kind(inputs=numbers()) if kind in (Stated, Holder) else kind(numbers()) if kind is Reduced else kind()
    if kind is Slotted:
        source.inputs, source.order = numbers(), [3, 1]
    there = sent(source)
    assert np.array_equal(there.inputs, numbers())
    there.inputs[0] = 9
    assert source.inputs[0] == 0
    if kind is Slotted:
        assert there.order == [3, 1]


def test_a_class_that_only_this_process_has_arrives_with_its_arrays():
    weights = numbers()

    class Local:
        inputs = weights

        def first(self):
            return int(weights[1])

    there = sent(Local())
    assert there.first() == 1
    assert np.array_equal(there.inputs, weights)


def test_objects_that_refer_to_each_other_arrive():
    source = Holder(array=numbers())
    source.itself = [source]
    there = sent(source)
    assert there.itself[0] is there


def test_large_memory_is_a_piece_and_is_not_copied_and_small_is_not():
    large, small, text = np.arange(100_000), np.arange(10), bytes(70_000)
    packed = take_apart(Holder(large=large, small=small, text=text), name="generator")
    assert sizes(Holder(large=large, small=small, text=text)) == [70_000, 800_000]
    assert len(packed.cuts) == 1
    assert len(packed.stream) < 1000
    assert np.shares_memory(packed.pieces[1], large)
    assert packed.pieces[0].base is text


def test_pieces_of_the_stream_are_the_same_again_where_their_objects_are():
    rows = [f"row {number}" for number in range(50_000)]
    one, other = (take_apart(Holder(order=[order], rows=rows), name="generator") for order in (1, 2))
    same = [np.array_equal(a, b) for a, b in zip(one.pieces, other.pieces, strict=True)]
    assert len(same) > 5
    assert same[1:] == [True] * (len(same) - 1)


def test_what_cannot_travel_is_refused_as_by_pack():
    lock = threading.Lock()
    lock.acquire()
    messages = []
    for send in (pack, take_apart):
        with pytest.raises(SourceError) as caught:
            send(Holder(array=numbers(), lock=lock), name="generator")
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "generator.lock is a lock (it is locked)" in messages[0]


def test_a_digest_tells_sources_apart_and_knows_them_again():
    array = np.arange(100_000)

    def digest(**members):
        return take_apart(Holder(**members), name="generator").digest()

    assert digest(array=array, order=[1]) == digest(array=array.copy(), order=[1])
    assert len({digest(array=array), digest(array=array + 1), digest(array=array, order=[1])}) == 3
    assert Packed(b"ab", (), [b"c"]).digest() != Packed(b"a", (), [b"bc"]).digest()


@pytest.mark.parametrize("wanted", [1, PIECE_BYTES, 10 * PIECE_BYTES])
@pytest.mark.parametrize("lengths", [[], [3], [LARGE], [0, LARGE, LARGE + 1, 2, 3, 3 * LARGE, 1]])
def test_a_stream_is_read_as_it_was_written_however_it_is_read(lengths, wanted):
    writer = PackedWriter()
    runs = [bytes([number + 1]) * length for number, length in enumerate(lengths)]
    for run in runs:
        writer.write(run)
    file, buffers = reader_of(writer.packed())
    assert buffers == []
    assert b"".join(iter(lambda: file.read(wanted), b"")) == b"".join(runs)


def test_a_pickler_without_buffers_reads_its_stream_from_the_pieces():
    writer = PackedWriter()
    value = {"text": "x" * 200_000, "list": list(range(100_000))}
    pickle.Pickler(writer, 5).dump(value)
    packed = writer.packed()
    assert len(packed.pieces) > 2
    file, _ = reader_of(packed)
    assert pickle.Unpickler(file).load() == value
