"""E1: class weights of several outputs, as Keras' own fit gives with sample weights worked out by hand, bit for bit."""

import keras
import numpy as np
import pytest

import rayfeed
from tests.oracle.sources import TwoOutputs

pytestmark = pytest.mark.slow

WEIGHTS = {"left": {0: 0.25, 1: 3.0}, "right": {0: 1.0, 1: 0.5, 2: 4.0}}


class ByHand:
    """A source with explicit weights for each output, in a tuple or a dict as Keras takes them.

    Args:
        source: Gives batches with dicts of targets and, maybe, weights.
        weights: Output name -> class -> weight.
        form: "list" or "dict".
    """

    def __init__(self, source, weights, form):
        self.source = source
        self.weights = weights
        self.form = form

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        x, y, *own = self.source[index]
        targets, weights = {}, {}
        for place, (name, labels) in enumerate(zip(("left", "right"), self.source.labels(index), strict=True)):
            of_class = self.weights.get(name)
            targets[name] = y[name] if isinstance(y, dict) else y[place]
            weights[name] = np.array([of_class[int(label)] if of_class else 1.0 for label in labels], "float32")
            if own:
                each = {np.ndarray: lambda w: w, list: lambda w, i=place: w[i], dict: lambda w, n=name: w[n]}
                weights[name] *= each[type(own[0])](own[0])
        if self.form == "dict":
            return x, targets, weights
        return x, tuple(targets.values()), tuple(weights.values())


def two_outputs(outputs, one_hot=False, **compile_arguments):
    """A model of two classifiers, whose outputs are in a list or a dict; the same first weights each time."""
    keras.utils.set_random_seed(5)
    x = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="relu")(x)
    left = keras.layers.Dense(2, activation="softmax", name="left")(hidden)
    right = keras.layers.Dense(3, activation="softmax", name="right")(hidden)
    model = keras.Model(x, {"left": left, "right": right} if outputs == "dict" else [left, right])
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    model.compile(
        "adam", {"left": loss, "right": loss}, weighted_metrics=[["accuracy"], ["accuracy"]], **compile_arguments
    )
    return model


def compare(source, same_state, *, outputs="list", class_weight=WEIGHTS, model=None, epochs=2, **arguments):
    """Train with class weights, and with weights worked out by hand in Keras; both must be equal."""
    make = model or two_outputs
    ours, theirs = make(outputs), make(outputs)
    by_hand = ByHand(source, class_weight, outputs)
    expected = theirs.fit(
        (by_hand[index % len(by_hand)] for index in range(epochs * len(by_hand))),
        steps_per_epoch=len(by_hand),
        epochs=epochs,
        shuffle=False,
        verbose=0,
    )
    arguments = {"shuffle": False, "verbose": 0, "workers": 0, "trainer": "driver"} | arguments
    history = rayfeed.fit_generator(ours, source, epochs=epochs, class_weight=class_weight, **arguments)
    assert history.history == expected.history
    same_state(ours, theirs)


@pytest.mark.parametrize("targets", ["list", "dict"])
@pytest.mark.parametrize("outputs", ["list", "dict"])
def test_each_output_has_its_own_class_weights(outputs, targets, same_state):
    compare(TwoOutputs(targets if outputs == "list" else "dict"), same_state, outputs=outputs)


@pytest.mark.parametrize("weights", ["array", "list", "dict"])
def test_sample_weights_are_multiplied_one_array_for_all_outputs_or_one_for_each(weights, same_state):
    compare(TwoOutputs("dict", weights=weights), same_state)


@pytest.mark.parametrize("weights", [None, "array", "dict"])
def test_an_output_that_is_not_named_keeps_its_own_weights(weights, same_state):
    compare(TwoOutputs("list", weights=weights), same_state, class_weight={"right": WEIGHTS["right"]})


def test_one_hot_targets_are_classes_too(same_state):
    compare(TwoOutputs("list", one_hot=True), same_state, model=lambda outputs: two_outputs(outputs, one_hot=True))


@pytest.mark.parametrize(
    ("arguments", "outputs"),
    [({"steps_per_execution": 3}, "list"), ({"steps_per_execution": 3}, "dict"), ({"jit_compile": True}, "list")],
    ids=["steps-list", "steps-dict", "jit-list"],
)
def test_it_holds_in_a_graph_of_several_steps_and_when_compiled(arguments, outputs, same_state):
    compare(
        TwoOutputs("dict", weights="array"),
        same_state,
        outputs=outputs,
        model=lambda outputs: two_outputs(outputs, **arguments),
    )


@pytest.mark.usefixtures("shared_trainer")
def test_a_generator_in_producers_and_a_trainer_actor_are_weighted_alike(same_state):
    source = TwoOutputs("dict", weights="list")

    def batches():
        while True:
            yield from (source[index] for index in range(len(source)))

    ours, theirs = two_outputs("dict"), two_outputs("dict")
    by_hand = ByHand(source, WEIGHTS, "dict")
    expected = theirs.fit(
        (by_hand[index] for index in range(len(by_hand))), steps_per_epoch=len(by_hand), shuffle=False, verbose=0
    )
    history = rayfeed.fit_generator(ours, batches, len(source), verbose=0, class_weight=WEIGHTS, workers=2)
    assert history.history == expected.history
    same_state(ours, theirs)


class Subclassed(keras.Model):
    """Names its outputs only when it is called."""

    def __init__(self):
        super().__init__()
        self.left = keras.layers.Dense(2, activation="softmax")
        self.right = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return {"left": self.left(x), "right": self.right(x)}


def subclassed(_=None):
    keras.utils.set_random_seed(5)
    model = Subclassed()
    model(np.zeros((1, 6), "float32"))
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", {"left": loss, "right": loss})
    return model


def test_a_subclassed_models_outputs_are_named_by_its_targets(same_state):
    compare(TwoOutputs("dict"), same_state, outputs="dict", model=subclassed)


def test_validation_of_several_outputs_is_not_weighted_by_class():
    def losses(**arguments):
        model = two_outputs("list")
        model.optimizer.learning_rate = 0.0
        source = TwoOutputs("dict")
        settings = {"shuffle": False, "verbose": 0, "workers": 0, "trainer": "driver", "validation_data": source}
        return rayfeed.fit_generator(model, source, **settings, **arguments).history

    plain, weighted = losses(), losses(class_weight=WEIGHTS)
    for name in ("val_loss", "val_left_loss", "val_right_loss"):
        assert weighted[name] == plain[name]
    assert weighted["loss"] != plain["loss"]


def fit(class_weight, outputs="list", source=None, make=two_outputs):
    """Train in a Ray actor: what is refused beforehand starts none."""
    source = source or TwoOutputs("dict")
    return rayfeed.fit_generator(
        make(outputs), source, verbose=0, class_weight=class_weight, trainer="driver", workers=0
    )


NEVER = {"workers": 1, "verbose": 0}


@pytest.fixture
def nothing_starts(monkeypatch):
    """Fails a test that comes as far as to open a stream or a trainer."""

    def refuse(*_, **__):
        raise AssertionError("something was started")

    monkeypatch.setattr("rayfeed.trainer.session.RemoteTrainer", refuse)
    monkeypatch.setattr("rayfeed.trainer.session.ensure_ray", refuse)


@pytest.mark.parametrize("outputs", ["list", "dict"])
def test_weights_without_a_name_are_refused_for_several_outputs_before_anything_starts(outputs, nothing_starts):
    text = (
        r"class_weight=\{0: 1\.0, 1: 5\.0\} does not say which output's classes these are: the model has 2 outputs: "
        r"'left', 'right'.\n  Write class_weight=\{name: \{0: 1\.0, 1: 5\.0\}\}"
    )
    with pytest.raises(rayfeed.errors.OptionError, match=text):
        rayfeed.fit_generator(two_outputs(outputs), TwoOutputs("dict"), class_weight={0: 1, 1: 5}, **NEVER)


def test_an_unknown_output_is_named_with_those_there_are_before_anything_starts(nothing_starts):
    text = r"class_weight names 'middle', which is no output of the model.\n  Its outputs are 'left', 'right'\."
    with pytest.raises(rayfeed.errors.OptionError, match=text):
        rayfeed.fit_generator(two_outputs("list"), TwoOutputs("dict"), class_weight={"middle": {0: 1}}, **NEVER)


def test_a_class_without_a_weight_is_named_with_its_output():
    with pytest.raises(rayfeed.errors.OptionError, match=r"class_weight\['right'\] has no weight for class 2, which"):
        fit({"left": {0: 1, 1: 1}, "right": {0: 1, 1: 1}})


def test_a_subclassed_model_tells_of_an_unknown_output_when_its_first_targets_come():
    with pytest.raises(rayfeed.errors.OptionError, match=r"class_weight names 'middle'.*\n.*are 'left', 'right'"):
        fit({"middle": {0: 1}}, make=subclassed)
    with pytest.raises(rayfeed.errors.OptionError, match=r"does not say which.*: the targets are of 2 outputs: 'left'"):
        fit({0: 1, 1: 1}, make=subclassed)
