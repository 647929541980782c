"""Class weights become sample weights."""

import numpy as np
import pytest

from rayfeed.errors import OptionError
from rayfeed.trainer.class_weight import MAX_CLASS, ClassWeight, check_class_weight

WEIGHTS = {0: 1.0, 1: 10.0, 3: 0.5}
LABELS = [1, 0, 3, 1]
WEIGHT_OF_EACH = [10.0, 1.0, 0.5, 10.0]


def one_hot(labels, dtype="f4"):
    return np.eye(4, dtype=dtype)[labels]


@pytest.mark.parametrize(
    "targets",
    [
        np.array(LABELS),
        np.array(LABELS, np.uint8),
        np.array(LABELS, np.float32),
        np.array(LABELS)[:, None],
        one_hot(LABELS),
        one_hot(LABELS, bool),
        0.6 * one_hot(LABELS) + 0.1,
    ],
    ids=["whole", "bytes", "floats", "column", "one-hot", "one-hot bools", "smoothed"],
)
def test_each_sample_has_the_weight_of_its_class(targets):
    weights = ClassWeight(WEIGHTS).sample_weight(targets, None)
    assert weights.dtype == np.float32
    assert weights.tolist() == WEIGHT_OF_EACH


def test_targets_that_are_no_whole_numbers_are_of_the_nearest_class():
    assert ClassWeight(WEIGHTS).sample_weight(np.array([0.9, 0.1, 2.9, 1.2]), None).tolist() == WEIGHT_OF_EACH


def test_a_target_that_is_no_number_has_no_class():
    with pytest.raises(OptionError, match="class_weight has no weight for class -1"):
        ClassWeight(WEIGHTS).sample_weight(np.array([1.0, np.nan]), None)


def test_binary_targets_in_one_column_are_classes_0_and_1():
    assert ClassWeight(WEIGHTS).sample_weight(np.array([[True], [False]]), None).tolist() == [10.0, 1.0]


def test_a_batchs_own_weights_are_multiplied():
    weights = ClassWeight(WEIGHTS).sample_weight(np.array(LABELS), np.array([1.0, 2.0, 2.0, 0.0]))
    assert weights.dtype == np.float32
    assert weights.tolist() == [10.0, 2.0, 1.0, 0.0]


def test_weights_of_several_axes_are_multiplied_sample_by_sample():
    weights = ClassWeight(WEIGHTS).sample_weight(np.array(LABELS), np.ones((4, 2)))
    assert weights.tolist() == [[weight] * 2 for weight in WEIGHT_OF_EACH]


def test_a_batch_of_no_samples_has_no_weights():
    assert ClassWeight(WEIGHTS).sample_weight(np.zeros((0, 4)), None).shape == (0,)


def test_the_batchs_own_arrays_are_not_changed():
    targets, own = np.array(LABELS), np.ones(4, np.float32)
    targets.flags.writeable = own.flags.writeable = False
    ClassWeight(WEIGHTS).sample_weight(targets, own)
    assert own.tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("labels", "missing"),
    [
        ([0, 2, 1], "2"),
        ([-1, 0], "-1"),
        ([9, 2, 9, 1], "2, 9"),
        (list(range(4, 30)), "4, 5, 6, 7, 8, 9, 10, 11, 12, 13"),
    ],
    ids=["hole", "negative", "two", "many"],
)
def test_a_class_without_a_weight_is_named(labels, missing):
    with pytest.raises(OptionError) as caught:
        ClassWeight(WEIGHTS).sample_weight(np.array(labels), None)
    assert str(caught.value) == (
        f"class_weight has no weight for class {missing}, which the targets hold.\n"
        "  Give every class a weight; 1.0 leaves a class as it is."
    )


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (np.zeros((2, 3, 4)), "an array of shape (2, 3, 4)."),
        ({"a": np.zeros(2)}, "dict {'a': array([0., 0.])}."),
        (None, "NoneType None."),
    ],
    ids=["axes", "dict", "none"],
)
def test_targets_that_are_no_classes_are_refused_with_what_was_found(targets, found):
    with pytest.raises(OptionError) as caught:
        ClassWeight(WEIGHTS).sample_weight(targets, None)
    assert str(caught.value) == (
        f"class_weight needs targets in one array of classes, of shape (n,), (n, 1) or (n, classes); got {found}"
    )


def test_weights_are_taken_as_plain_numbers():
    assert check_class_weight(None) is None
    checked = check_class_weight({np.int64(1): np.float32(2), 0: 1})
    assert checked == {1: 2.0, 0: 1.0}
    assert {type(label) for label in checked} == {int}
    assert {type(weight) for weight in checked.values()} == {float}


@pytest.mark.parametrize("weights", [{}, [1.0, 2.0], "balanced", 3], ids=["empty", "list", "text", "number"])
def test_what_is_no_dict_of_weights_is_refused(weights):
    with pytest.raises(OptionError, match=r"^class_weight must be a dict of class number -> weight, got "):
        check_class_weight(weights)


@pytest.mark.parametrize(
    ("label", "weight"),
    [("a", 1.0), (-1, 1.0), (True, 1.0), (0.5, 1.0), (MAX_CLASS, 1.0), (0, -1.0), (0, "1"), (0, True), (0, None)],
    ids=["name", "negative", "bool", "fraction", "too large", "negative weight", "text", "bool weight", "none"],
)
def test_a_class_or_weight_that_cannot_be_is_refused_with_both(label, weight):
    with pytest.raises(OptionError) as caught:
        check_class_weight({0: 1.0, label: weight})
    assert str(caught.value) == (
        f"class_weight must be a dict of class number -> weight; got {label!r}: {weight!r}.\n"
        "  Classes are whole numbers from 0, weights are numbers of at least 0."
    )
