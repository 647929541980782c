"""What a source's batches have in common, and the refusal of the batch that differs."""

import dataclasses
import json

import numpy as np
import pytest

from rayfeed.batch import flatten
from rayfeed.errors import BatchError
from rayfeed.frame import FrameSchema, conform, dtypes
from rayfeed.frame.dtypes import arrow_type, build, describe

SINGLE = np.zeros((2, 3), np.float32)
LABELS = np.zeros(2, np.int64)
WORDS = np.array(["a", "bc"])
DATES = np.zeros(2, "M8[s]")
ADVICE = "\n  Every batch of one source has the same structure and dtypes: convert it in the source."


def schema_of(batch):
    return FrameSchema.of(*flatten(batch, where="test", bare_inputs=True))


def refusal(first, later, **options):
    structure, arrays = flatten(later, where="test", **options)
    with pytest.raises(BatchError) as caught:
        conform(schema_of(first), structure, arrays, where="producer 3, batch 431 of pass 2")
    return str(caught.value)


def test_another_dtype_is_refused_with_the_arrays_name():
    later = {"a": np.zeros((2, 3))}, LABELS
    assert refusal(({"a": SINGLE}, LABELS), later) == (
        "producer 3, batch 431 of pass 2: inputs['a'] is float64 where this source's first batch had float32." + ADVICE
    )


KEYS = "a dict with the keys ['{}', '{}'], in this order"
DIFFERENCES = {
    "none": ((SINGLE, LABELS), (SINGLE, None), "targets", "None", "one array"),
    "roles": (
        (SINGLE, LABELS),
        (SINGLE, LABELS, LABELS),
        "the batch",
        "a tuple (inputs, targets, sample_weight)",
        "a tuple (inputs, targets)",
    ),
    "list": (
        (SINGLE, LABELS),
        [SINGLE, LABELS],
        "the batch",
        "a list (inputs, targets)",
        "a tuple (inputs, targets)",
    ),
    "count": (([SINGLE], LABELS), ([SINGLE, SINGLE], LABELS), "inputs", "a list of 2 arrays", "a list of 1 array"),
    "container": (([SINGLE], LABELS), ((SINGLE,), LABELS), "inputs", "a tuple of 1 array", "a list of 1 array"),
    "keys": (
        ({"a": SINGLE, "b": SINGLE}, LABELS),
        ({"b": SINGLE, "a": SINGLE}, LABELS),
        "inputs",
        KEYS.format("b", "a"),
        KEYS.format("a", "b"),
    ),
    "byte order": ((SINGLE, LABELS), (SINGLE, LABELS.astype(">i8")), "targets", ">i8", "int64"),
    "strings": ((WORDS, LABELS), (WORDS.astype("S"), LABELS), "inputs", "'|S' strings", "'<U' strings"),
    "unit": ((SINGLE, DATES), (SINGLE, DATES.astype("M8[ms]")), "targets", "datetime64[ms]", "datetime64[s]"),
    "raw bytes": ((SINGLE, np.zeros(2, "V3")), (SINGLE, np.zeros(2, "V4")), "targets", "|V4", "|V3"),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_difference_is_named_as_found_and_as_learnt(case):
    first, later, name, found, learnt = DIFFERENCES[case]
    text = f"{name} is {found} where this source's first batch had {learnt}."
    assert refusal(first, later) == f"producer 3, batch 431 of pass 2: {text}{ADVICE}"


def test_bare_inputs_differ_from_inputs_in_a_tuple():
    text = refusal(SINGLE, (SINGLE,), bare_inputs=True)
    assert "the batch is a tuple (inputs) where this source's first batch had inputs alone." in text


def test_a_long_list_of_keys_or_fields_is_cut():
    fields = np.dtype([(f"field_{place}", "f4") for place in range(100)])
    many = {f"key_{place}": LABELS for place in range(100)}
    assert len(refusal((SINGLE, np.zeros(2, fields)), (SINGLE, LABELS))) < 400
    assert len(refusal((SINGLE, LABELS), (SINGLE, many))) < 400


def test_shapes_and_the_width_of_strings_may_differ():
    first = np.array([["a", "b"]]), np.zeros((1, 2))
    later = np.array(["abcdef", "", "c"]), np.zeros((3, 4, 5))
    conform(schema_of(first), *flatten(later, where="test"), where="test")


def test_a_dtype_that_no_description_rebuilds_is_refused_with_the_arrays_name():
    odd = np.zeros(2, np.dtype([((7, "n"), "i4")]))  # a field's title may be any object
    with pytest.raises(BatchError, match=r"^targets: dtype .* cannot travel: it has no fixed width, or is"):
        schema_of((SINGLE, odd))
    assert refusal((SINGLE, LABELS), (SINGLE, odd)).startswith("producer 3, batch 431 of pass 2: targets: dtype ")


def test_a_dtype_that_is_rebuilt_as_another_is_refused_before_anything_is_sent(monkeypatch):
    monkeypatch.setattr(dtypes, "build", lambda description, itemsize: np.dtype("i4"))
    with pytest.raises(BatchError, match=r"^inputs: dtype dtype\('float32'\) cannot travel"):
        schema_of((SINGLE, LABELS))


def test_equal_schemas_differ_in_nothing_and_hash_alike():
    one, other = schema_of(({"a": SINGLE}, LABELS)), schema_of(({"a": SINGLE + 1}, LABELS))
    assert one.difference(other) is None
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    "batch",
    [
        (SINGLE, LABELS),
        [SINGLE, None, LABELS],
        SINGLE,
        (SINGLE,),
        ([SINGLE, SINGLE], (LABELS,)),
        ({'"\ud800é\n': SINGLE, "": SINGLE}, LABELS),
        (np.array(["a", "b"]), np.zeros(2, [("x", "f4", 3), (("t", "y"), ">U2")])),
    ],
    ids=["tuple", "list", "bare", "one role", "groups", "names", "dtypes"],
)
def test_json_gives_the_schema_back(batch):
    schema = schema_of(batch)
    assert FrameSchema.from_json(schema.to_json()) == schema
    json.loads(schema.to_json().decode("ascii"))


def test_json_of_the_same_content_is_parsed_once():
    data = schema_of((SINGLE, LABELS)).to_json()
    assert FrameSchema.from_json(data) is FrameSchema.from_json(bytes(bytearray(data)))


GOOD = json.loads(schema_of(({"a": SINGLE}, LABELS)).to_json())
GROUP = GOOD["groups"][0]


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {**GOOD, "format": 2},
        {**GOOD, "kind": "set"},
        {**GOOD, "kind": "bare"},
        {**GOOD, "groups": []},
        {**GOOD, "groups": GOOD["groups"] * 3},
        {**GOOD, "groups": 3},
        {**GOOD, "groups": [{**GROUP, "kind": "set"}, GOOD["groups"][1]]},
        {**GOOD, "groups": [{**GROUP, "size": 2}, GOOD["groups"][1]]},
        {**GOOD, "groups": [{**GROUP, "size": -1}, GOOD["groups"][1]]},
        {**GOOD, "groups": [{**GROUP, "size": True}, GOOD["groups"][1]]},
        {**GOOD, "groups": [{**GROUP, "keys": [1]}, GOOD["groups"][1]]},
        {**GOOD, "groups": [{**GROUP, "keys": []}, GOOD["groups"][1]]},
        {**GOOD, "groups": [{**GROUP, "keys": ["a", "a"], "size": 2}, GOOD["groups"][1]], "dtypes": ["<f4"] * 3},
        {**GOOD, "groups": [{"kind": "none", "keys": [], "size": 0}] * 2, "dtypes": []},
        {**GOOD, "groups": [{"kind": "array", "keys": [], "size": 2}]},
        {**GOOD, "dtypes": ["<f4"]},
        {**GOOD, "dtypes": ["<f4", 8]},
        {**GOOD, "dtypes": ["<f4", "|O"]},
        {**GOOD, "dtypes": ["<f4", "float32"]},
        {**GOOD, "dtypes": ["<f4", "f4,f4"]},
        {**GOOD, "dtypes": ["<f4", "<U3"]},
        {**GOOD, "dtypes": ["<f4", "ml_dtypes.__file__"]},
        {**GOOD, "dtypes": ["<f4", "ml_dtypes.finfo"]},
        {**GOOD, "dtypes": ["<f4", "os.system"]},
        {**GOOD, "dtypes": ["<f4", "{"]},
        {**GOOD, "dtypes": ["<f4", "{}"]},
        {**GOOD, "dtypes": ["<f4", describe(np.dtype([("x", "f4")])).replace('"itemsize":4', '"itemsize":2')]},
        {**GOOD, "dtypes": ["<f4", describe(np.dtype([("x", "f4")])).replace("<f4", "|O")]},
    ],
    ids=repr,
)
def test_a_schema_that_is_none_is_refused(content):
    with pytest.raises(
        BatchError, match=r"^a frame's (schema|dtype) cannot be read: .*\n  The frame was damaged, or writ"
    ):
        FrameSchema.from_json(json.dumps(content).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "open", "bytes", "deep"])
def test_bytes_that_are_no_json_are_refused(data):
    with pytest.raises(BatchError, match="a frame's schema cannot be read"):
        FrameSchema.from_json(data)


@pytest.mark.parametrize(("description", "itemsize"), [("<U", 6), ("|S", -1), (">U", 1)])
def test_a_string_of_an_impossible_width_is_refused(description, itemsize):
    with pytest.raises(BatchError, match="a frame's dtype cannot be read"):
        build(description, itemsize)


def test_a_schema_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        schema_of((SINGLE, LABELS)).dtypes = ()


@pytest.mark.parametrize("code", ["b", "h", "i", "l", "B", "H", "I", "L", "e", "f", "d"])
def test_what_arrow_has_is_stored_as_its_own_type(code):
    dtype = np.dtype(code)
    assert str(arrow_type(describe(dtype))) == {"e": "halffloat", "f": "float", "d": "double"}.get(code, dtype.name)


@pytest.mark.parametrize("code", ["?", "F", "D", "g", "U3", "S3", "V3", "M8[s]", "m8[s]", ">f4", ">i8"])
def test_what_arrow_lacks_is_stored_as_bytes(code):
    assert str(arrow_type(describe(np.dtype(code)))) == "uint8"
