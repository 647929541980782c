"""What is a batch, what is none, and how one is taken apart and put together."""

from collections import OrderedDict

import numpy as np
import pytest

from rayfeed.batch import SHOWN_CHARACTERS, Group, Structure, flatten, map_arrays, shown, unflatten
from rayfeed.errors import BatchError

X, Y, W = np.zeros((3, 2)), np.ones(3), np.full(3, 2.0)
WHERE = "producer 3 (node 10.0.4.17, pid 8812), batch 431 of pass 2"
A_BATCH_IS = "\n  A batch is (inputs, targets) or (inputs, targets, sample_weight)"
ARRAY, NONE = Group("array"), Group("none", size=0)


class ArrayLike:
    """As tensors and pandas columns are."""

    def __array__(self, dtype=None, copy=None):
        return np.arange(3)


def refusal(batch, **options):
    with pytest.raises(BatchError) as caught:
        flatten(batch, where=WHERE, **options)
    text = str(caught.value)
    assert text.startswith(f"{WHERE}: ")
    return text.removeprefix(f"{WHERE}: ")


FORMS = {
    "pair": ((X, Y), "tuple", (ARRAY, ARRAY), ["inputs", "targets"]),
    "triple": ((X, Y, W), "tuple", (ARRAY, ARRAY, ARRAY), ["inputs", "targets", "sample_weight"]),
    "list": ([X, Y], "list", (ARRAY, ARRAY), ["inputs", "targets"]),
    "no targets": ((X, None), "tuple", (ARRAY, NONE), ["inputs"]),
    "weights alone": ((X, None, W), "tuple", (ARRAY, NONE, ARRAY), ["inputs", "sample_weight"]),
    "no weights": ((X, Y, None), "tuple", (ARRAY, ARRAY, NONE), ["inputs", "targets"]),
    "several": (([X, X], (Y, W)), "tuple", (Group("list", size=2), Group("tuple", size=2)),
                ["inputs[0]", "inputs[1]", "targets[0]", "targets[1]"]),
    "names": (({"b": X, "a": Y}, {"out": W}), "tuple", (Group("dict", ("b", "a"), 2), Group("dict", ("out",), 1)),
              ["inputs['b']", "inputs['a']", "targets['out']"]),
    "empty list": (([], Y), "tuple", (Group("list", size=0), ARRAY), ["targets"]),
}  # fmt: skip
BARE = {
    "array": (X, "bare", (ARRAY,), ["inputs"]),
    "dict": ({"a": X}, "bare", (Group("dict", ("a",), 1),), ["inputs['a']"]),
    "four arrays": ([X, Y, W, X], "bare", (Group("list", size=4),), [f"inputs[{place}]" for place in range(4)]),
    "four in a tuple": ((X, Y, W, X), "bare", (Group("tuple", size=4),), [f"inputs[{place}]" for place in range(4)]),
    "in a tuple": ((X,), "tuple", (ARRAY,), ["inputs"]),
    "in a list": ([X], "list", (ARRAY,), ["inputs"]),
    "list in a tuple": (([X, Y],), "tuple", (Group("list", size=2),), ["inputs[0]", "inputs[1]"]),
    "two places": ([X, Y], "list", (ARRAY, ARRAY), ["inputs", "targets"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "bare_inputs"),
    [(form, bare) for form in FORMS.values() for bare in (False, True)] + [(form, True) for form in BARE.values()],
    ids=[f"{name}-{bare}" for name in FORMS for bare in ("fit", "predict")] + [f"{name}-bare" for name in BARE],
)
def test_each_form_of_batch_is_described_and_put_together_again(form, bare_inputs):
    batch, kind, groups, names = form
    structure, arrays = flatten(batch, where=WHERE, bare_inputs=bare_inputs)
    assert structure == Structure(kind, groups)
    assert structure.names() == tuple(names)
    assert structure.num_arrays == len(arrays) == len(names)
    again = unflatten(structure, arrays)
    assert type(again) is type(batch)
    assert repr(again) == repr(batch)


def test_numpy_arrays_are_passed_on_untouched():
    fortran = np.asfortranarray(np.zeros((3, 4)))[:, ::2]
    _, arrays = flatten(({"a": X, "b": fortran}, Y), where=WHERE)
    assert arrays[0] is X
    assert arrays[1] is fortran
    assert arrays[2] is Y


def test_array_likes_become_arrays():
    structure, arrays = flatten((ArrayLike(), [ArrayLike()]), where=WHERE)
    assert structure.names() == ("inputs", "targets[0]")
    assert [type(array) for array in arrays] == [np.ndarray] * 2
    assert arrays[0].tolist() == [0, 1, 2]


class OnADevice(ArrayLike):
    """A tensor that NumPy cannot read, as torch's on a GPU or with gradients."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def test_a_tensor_that_numpy_cannot_read_is_refused_with_its_name_and_reason():
    assert refusal(({"left": OnADevice()}, Y)) == (
        "inputs['left'] (OnADevice) does not become a NumPy array: can't convert cuda:0 device type tensor to numpy\n"
        "  Convert it in the source; of a torch tensor, `.detach().cpu()` always does."
    )


def test_subclasses_of_arrays_and_dicts_arrive_as_plain_ones():
    structure, arrays = flatten((OrderedDict(a=np.zeros(2).view(np.recarray)), None), where=WHERE)
    assert type(arrays[0]) is np.ndarray
    assert type(unflatten(structure, arrays)[0]) is dict


def test_a_batch_of_no_samples_is_a_batch():
    assert flatten((np.zeros((0, 3)), np.zeros(0)), where=WHERE)[1][0].shape == (0, 3)


def test_structures_of_like_batches_are_equal_and_hash_alike():
    one, _ = flatten(({"a": X}, Y), where=WHERE)
    other, _ = flatten(({"a": X + 1}, Y[:2].repeat(3)[:3]), where=WHERE)
    assert one == other
    assert hash(one) == hash(other)


def test_map_arrays_keeps_the_structure():
    assert map_arrays(len, ({"a": X}, None, [Y])) == ({"a": 3}, None, [3])
    assert map_arrays(len, X) == 3


@pytest.mark.parametrize(
    ("batch", "options", "text"),
    [
        (X[:1, 0], {}, f"found ndarray array([0.]).{A_BATCH_IS}, as a tuple or a list."),
        ({"a": 1}, {}, f"found dict {{'a': 1}}.{A_BATCH_IS}, as a tuple or a list."),
        (None, {}, f"found NoneType None.{A_BATCH_IS}, as a tuple or a list."),
        ((), {}, f"found a tuple of 0 places: tuple ().{A_BATCH_IS}."),
        ([1], {}, f"found a list of 1 places: list [1].{A_BATCH_IS}."),
        ((1, 2, 3, 4), {}, f"found a tuple of 4 places: tuple (1, 2, 3, 4).{A_BATCH_IS}."),
        ((1, 2, 3, 4), {"bare_inputs": True}, f"found a tuple of 4 places: tuple (1, 2, 3, 4).{A_BATCH_IS}."),
        ((), {"bare_inputs": True}, f"found a tuple of 0 places: tuple ().{A_BATCH_IS}."),
        (([], None), {}, f"found no array in tuple ([], None).{A_BATCH_IS}."),
        ({}, {"bare_inputs": True}, f"found no array in dict {{}}.{A_BATCH_IS}."),
    ],
    ids=["array", "dict", "None", "empty", "one", "four", "four numbers bare", "empty bare", "no array", "no names"],
)
def test_what_is_no_batch_is_refused_with_what_was_found(batch, options, text):
    assert refusal(batch, **options) == text


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ((None, Y), "inputs is NoneType None."),
        ((X, 5), "targets is int 5."),
        ((X, Y, "abc"), "sample_weight is str 'abc'."),
        ((X, {1, 2}), "targets is set {1, 2}."),
    ],
    ids=["None", "number", "text", "set"],
)
def test_a_role_that_holds_something_else_is_refused_with_its_name(batch, text):
    assert refusal(batch) == (
        f"{text}\n  It must be an array, a list or tuple of arrays, or a dict of name -> array. Arrays are NumPy's, or "
        "anything that numpy.asarray makes one of by its __array__, such as a tensor."
    )


def test_bare_inputs_that_are_something_else_are_refused():
    assert refusal(7, bare_inputs=True).startswith("inputs is int 7.\n  It must be an array")


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (([1, 2, 3], Y), "inputs[0] is int 1, not an array."),
        ((X, (Y, None)), "targets[1] is NoneType None, not an array."),
        (({"a": [X]}, Y), f"inputs['a'] is {shown([X])}, not an array."),
    ],
    ids=["numbers", "None", "nested"],
)
def test_a_member_that_is_no_array_is_refused_with_its_name(batch, text):
    assert refusal(batch) == (
        f"{text}\n  In a list or tuple of inputs or targets every member is an array: use numpy.asarray for numbers."
    )


@pytest.mark.parametrize(
    ("value", "found"), [(np.float64(3), "float64 np.float64(3.0)"), (np.array(3), "ndarray array(3)")]
)
def test_a_single_value_is_refused_since_it_has_no_length(value, found):
    assert refusal((X, [Y, value])) == (
        f"targets[1] is a single value ({found}) and has no length.\n"
        "  Each array of a batch has the samples on its first axis: use numpy.asarray([...])."
    )


def test_a_key_that_is_no_name_is_refused():
    assert refusal(({"a": X, 7: X}, Y)) == "inputs is a dict with the key int 7.\n  Keys are names: use strings."


def test_arrays_of_different_length_are_refused_with_each_name_and_length():
    assert refusal(({"a": X, "b": X[:2]}, Y)) == (
        "the arrays of one batch differ in length: inputs['a']: 3, inputs['b']: 2, targets: 3.\n"
        "  All arrays of a batch hold the same samples: give them the same first axis."
    )


def test_a_masked_array_is_refused_since_its_mask_would_be_lost():
    assert refusal((np.ma.masked_array(Y, Y > 0), Y)) == (
        "inputs is a masked array; its mask would be lost.\n  Use `.filled(value)`."
    )


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.array(["a", None, [1]], dtype=object), "dtype('O') (shape (3,))"),
        (np.zeros((3, 2), [("a", "i4"), ("b", "O")]), "dtype([('a', '<i4'), ('b', 'O')]) (shape (3, 2))"),
        (np.array(["a", "b", "c"], np.dtypes.StringDType()), "StringDType() (shape (3,))"),
    ],
    ids=["objects", "field of objects", "strings of any length"],
)
def test_an_array_of_python_objects_is_refused_with_what_to_do(array, found):
    assert refusal((X, array)) == (
        f"targets has dtype {found}, which holds Python objects and has no fixed width.\n"
        "  Convert it in the source: strings with .astype('U'), numbers with .astype('float32'), rows of unequal "
        "length by padding."
    )


def test_an_unexpected_value_is_shown_up_to_100_characters():
    assert shown("a" * (SHOWN_CHARACTERS - 2)) == "str '" + "a" * (SHOWN_CHARACTERS - 2) + "'"
    assert shown("a" * 1000) == "str '" + "a" * (SHOWN_CHARACTERS - 4) + "..."
    assert len(refusal([1] * 1000)) < 300
