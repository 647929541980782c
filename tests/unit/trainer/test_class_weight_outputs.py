"""Class weights by output: which forms there are, what they give, and what is refused with which words."""

from types import SimpleNamespace

import numpy as np
import pytest

from rayfeed.errors import OptionError
from rayfeed.trainer.class_weight import ClassWeight, Outputs, check_class_weight, outputs_of

LISTED = Outputs(("left", "right"), keyed=False)
KEYED = Outputs(("left", "right"), keyed=True)
WEIGHTS = {"left": {0: 2.0, 1: 3.0}}
LEFT, RIGHT = np.array([1, 0]), np.array([0.5, 0.25])


def plain(weights):
    if isinstance(weights, dict):
        return {name: array.tolist() for name, array in weights.items()}
    return tuple(array.tolist() for array in weights)


@pytest.mark.parametrize(
    "targets", [[LEFT, RIGHT], (LEFT, RIGHT), {"right": RIGHT, "left": LEFT}], ids=lambda t: type(t).__name__
)
def test_weights_come_in_the_structure_and_order_of_the_outputs(targets):
    assert plain(ClassWeight(WEIGHTS, LISTED).sample_weight(targets, None)) == ([3.0, 2.0], [1.0, 1.0])
    assert plain(ClassWeight(WEIGHTS, KEYED).sample_weight(targets, None)) == {"left": [3.0, 2.0], "right": [1.0, 1.0]}


@pytest.mark.parametrize(
    "own",
    [[np.array([2.0, 1.0]), np.array([5.0, 6.0])], {"right": np.array([5.0, 6.0]), "left": np.array([2.0, 1.0])}],
    ids=["list", "dict"],
)
def test_own_weights_of_each_output_are_multiplied_where_it_is_named_and_kept_where_not(own):
    assert plain(ClassWeight(WEIGHTS, LISTED).sample_weight([LEFT, RIGHT], own)) == ([6.0, 2.0], [5.0, 6.0])


def test_an_output_without_targets_or_own_weights_has_ones():
    weights = ClassWeight(WEIGHTS, KEYED).sample_weight({"left": LEFT}, {"left": np.array([2.0, 2.0])})
    assert plain(weights) == {"left": [6.0, 4.0], "right": [1.0, 1.0]}


def test_names_come_with_the_targets_where_the_model_has_none():
    weights = ClassWeight(WEIGHTS).sample_weight({"right": RIGHT, "left": LEFT}, None)
    assert plain(weights) == {"right": [1.0, 1.0], "left": [3.0, 2.0]}


@pytest.mark.parametrize("weights", [{"left": {0: 2.0, 1: 3.0}}, {0: 2.0, 1: 3.0}], ids=["named", "plain"])
def test_a_single_output_may_be_named(weights):
    one = Outputs(("left",), keyed=False)
    assert ClassWeight(check_class_weight(weights, one), one).sample_weight(LEFT, None).tolist() == [3.0, 2.0]
    keyed = Outputs(("left",), keyed=True)
    assert plain(ClassWeight(weights, keyed).sample_weight({"left": LEFT}, None)) == {"left": [3.0, 2.0]}


def test_weights_by_output_are_taken_as_plain_numbers():
    checked = check_class_weight({"left": {np.int64(1): np.float32(2)}}, LISTED)
    assert checked == {"left": {1: 2.0}}
    assert {type(label) for label in checked["left"]} == {int}


@pytest.mark.parametrize(
    ("class_weight", "text"),
    [
        ({"left": {0: 1.0}, 1: 2.0}, "class_weight has the key 1 beside the names of outputs."),
        (
            {"left": {0: 1.0}, "right": 2.0},
            "class_weight['right'] must be a dict of class number -> weight, got float 2.0.",
        ),
        (
            {"left": {}, "right": {0: 1.0}},
            "class_weight['left'] must be a dict of class number -> weight, got dict {}.",
        ),
        ({"left": {-1: 1.0}}, "class_weight['left'] must be a dict of class number -> weight; got -1: 1.0."),
        (
            {"up": {0: 1.0}},
            "class_weight names 'up', which is no output of the model.\n  Its outputs are 'left', 'right'.",
        ),
        (
            {0: 1.0, 1: 2.0},
            "class_weight={0: 1.0, 1: 2.0} does not say which output's classes these are: the model has 2 outputs:",
        ),
    ],
    ids=["mixed", "number", "empty", "negative", "unknown", "unnamed"],
)
def test_what_does_not_fit_the_outputs_is_refused_with_what_to_write(class_weight, text):
    with pytest.raises(OptionError) as caught:
        check_class_weight(class_weight, LISTED)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("outputs", "targets", "own", "text"),
    [
        (LISTED, [LEFT], None, "the targets are 1 arrays, and the model has 2 outputs: 'left', 'right'."),
        (LISTED, {"up": LEFT}, None, "the targets name 'up', which is no output of the model."),
        (LISTED, [LEFT, RIGHT], [LEFT], "the sample weights are 1 arrays, and the model has 2 outputs"),
        (None, [LEFT, RIGHT], None, "the targets are a list and the model's outputs have no names."),
        (None, {"up": LEFT}, None, "class_weight names 'left', which is no output of the model."),
        (None, LEFT, None, "class_weight is by output ('left'), and the targets are an array of shape (2,)."),
        (
            LISTED,
            [np.array([7]), RIGHT],
            None,
            "class_weight['left'] has no weight for class 7, which the targets hold.",
        ),
    ],
)
def test_batches_that_do_not_fit_the_outputs_are_refused(outputs, targets, own, text):
    with pytest.raises(OptionError) as caught:
        ClassWeight(WEIGHTS, outputs).sample_weight(targets, own)
    assert text in str(caught.value)


def test_plain_weights_and_targets_of_several_outputs_are_refused_when_they_meet():
    with pytest.raises(OptionError, match="the targets are of 2 outputs: 'left', 'right'"):
        ClassWeight({0: 1.0}).sample_weight({"left": LEFT, "right": RIGHT}, None)


def test_a_models_outputs_are_named_by_its_keys_or_else_its_layers():
    named = SimpleNamespace(output_names=["b", "a"], output={"z": None, "y": None})
    assert outputs_of(named) == Outputs(("y", "z"), keyed=True)
    assert outputs_of(SimpleNamespace(output_names=["b", "a"], output=[None, None])) == Outputs(("b", "a"), keyed=False)
    assert outputs_of(SimpleNamespace()) is None
