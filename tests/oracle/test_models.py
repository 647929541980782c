"""E7: any Keras model travels, trains elsewhere as it would here, and comes home as if it had."""

import zipfile

import keras
import numpy as np
import pytest

import rayfeed
from tests.oracle.models import MODELS, unbuilt

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]


def optimizers(model):
    found = [value for value in vars(model).values() if isinstance(value, keras.Optimizer)]
    return list({id(optimizer): optimizer for optimizer in found}.values())


def assert_alike(ours, theirs):
    """Weights, random states and optimizers are equal to the last bit."""
    for one, other in zip([ours, *optimizers(ours)], [theirs, *optimizers(theirs)], strict=True):
        values = [[variable.numpy() for variable in owner.variables] for owner in (one, other)]
        assert len(values[0]) == len(values[1])
        for mine, keras_own in zip(*values, strict=True):
            np.testing.assert_array_equal(mine, keras_own)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_model_trains_in_the_trainer_as_in_this_process_and_a_second_call_goes_on(make, rows, as_py_dataset):
    keras.utils.set_random_seed(11)
    theirs = make()
    expected = [
        theirs.fit(as_py_dataset(rows()), epochs=2, shuffle=False, verbose=0).history,
        theirs.fit(as_py_dataset(rows(seed=1)), epochs=1, shuffle=False, verbose=0).history,
    ]
    keras.utils.set_random_seed(11)
    ours = make()
    with rayfeed.Trainer(ours) as trainer:
        first = trainer.fit_generator(rows(), epochs=2, shuffle=False, verbose=0, workers=0)
        assert first.history == expected[0]
        assert first.model is ours
        second = trainer.fit_generator(rows(seed=1), epochs=1, shuffle=False, verbose=0, workers=0)
    assert second.history == expected[1]
    assert_alike(ours, theirs)
    x = rows().x
    np.testing.assert_array_equal(ours.predict(x, verbose=0), theirs.predict(x, verbose=0))


def test_a_function_that_builds_the_model_is_taken_for_it(rows, as_py_dataset):
    def make():
        keras.utils.set_random_seed(5)
        return unbuilt()

    theirs = make()
    expected = theirs.fit(as_py_dataset(rows()), epochs=2, shuffle=False, verbose=0)
    history = rayfeed.fit_generator(make, rows(), epochs=2, shuffle=False, verbose=0, workers=0)
    assert history.history == expected.history
    assert_alike(history.model, theirs)


def named_alike():
    """Classes that no other process can import, two of one name, one known to Keras by another name."""

    def layer(shift):
        class Shift(keras.layers.Layer):
            def call(self, x):
                return x + shift

        return Shift

    @keras.saving.register_keras_serializable("tests", "of_its_own")
    class Ones(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None, **_):
            return keras.ops.ones(shape, dtype=dtype)

    softmax = keras.layers.Dense(2, activation="softmax", kernel_initializer=Ones())
    model = keras.Sequential([layer(0.1)(), layer(0.2)(), softmax])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_classes_of_one_name_and_registered_ones_of_a_function_are_told_apart(rows, as_py_dataset, tmp_path):
    theirs, ours = named_alike(), named_alike()
    expected = theirs.fit(as_py_dataset(rows()), shuffle=False, verbose=0)
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "model.keras"))
    history = rayfeed.fit_generator(ours, rows(), shuffle=False, verbose=0, workers=0, callbacks=[checkpoint])
    assert history.history == expected.history
    assert_alike(ours, theirs)
    # What the trainer saved names the class as Keras knows it here.
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        assert "tests>of_its_own" in file.read("config.json").decode()


class Ids(keras.callbacks.Callback):
    """Which model object each run trained."""

    def __init__(self):
        super().__init__()
        self.ids = []

    def on_train_begin(self, logs=None):
        self.ids.append(id(self.model))


def test_a_kept_trainer_builds_the_model_once_also_where_its_learning_rate_changed(rows, make_model):
    model, ids = make_model(), Ids()
    with rayfeed.Trainer(model) as trainer:
        for _ in range(3):
            trainer.fit_generator(rows(), verbose=0, workers=0, callbacks=[ids])
            model.optimizer.learning_rate = float(model.optimizer.learning_rate) / 2
        assert len(set(ids.ids)) == 1
        model.layers[-1].trainable = False
        trainer.fit_generator(rows(), verbose=0, workers=0, callbacks=[ids])
    assert len(set(ids.ids)) == 2


def transfers(monkeypatch):
    """What crosses between the models from now on: the places sent, and those fetched."""
    from rayfeed.trainer import model_link

    sent, fetched = [], []
    deliver, write = model_link._deliver, model_link.write

    def deliver_and_note(actor, message):
        if isinstance(message, list):
            sent.extend(place for place, _ in message)
        return deliver(actor, message)

    def write_and_note(model, values):
        fetched.extend(place for place, _ in values)
        return write(model, values)

    monkeypatch.setattr(model_link, "_deliver", deliver_and_note)
    monkeypatch.setattr(model_link, "write", write_and_note)
    return sent, fetched


def test_a_frozen_backbone_is_sent_once_and_never_comes_home(rows, monkeypatch):
    backbone = keras.Sequential([keras.Input((10,)), keras.layers.Dense(64), keras.layers.Dense(64)])
    backbone.trainable = False
    model = keras.Sequential([keras.Input((10,)), backbone, keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    sent, fetched = transfers(monkeypatch)
    with rayfeed.Trainer(model) as trainer:
        trainer.fit_generator(rows(), verbose=0, workers=0)
        assert {(0, number) for number in range(4)} <= set(sent)
        assert {place for place in fetched if place[0] == 0} == {(0, 4), (0, 5)}
        sent.clear()
        fetched.clear()
        trainer.fit_generator(rows(), verbose=0, workers=0)
        assert sent == []
        model.layers[0].layers[0].bias.assign(np.ones(64))
        trainer.evaluate_generator(rows(), workers=0)
        assert sent == [(0, 1)]


class Open(keras.layers.Layer):
    def __init__(self, file):
        super().__init__()
        self.file = file

    def call(self, x):
        return x


def test_what_cannot_travel_is_named_and_the_way_out_too(rows, tmp_path):
    with (tmp_path / "table").open("w") as file:
        model = keras.Sequential([keras.Input((10,)), Open(file), keras.layers.Dense(2, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        with pytest.raises(
            ValueError, match=r"model .*\.file is a TextIOWrapper \(it is open in this process\)"
        ) as caught:
            rayfeed.fit_generator(model, rows(), verbose=0)
    assert "function without arguments that builds and compiles the model" in " ".join(caught.value.__notes__)


class Forgetful(keras.Model):
    """Has a weight that is nobody's attribute."""

    def __init__(self):
        super().__init__()
        self.add_weight(shape=(3,), name="lost")
        self.dense = keras.layers.Dense(2, activation="softmax")

    def call(self, x):
        return self.dense(x)


def test_a_model_whose_weights_cannot_be_told_apart_is_refused_and_not_mixed_up(rows):
    model = Forgetful()
    model(np.zeros((1, 10)))
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"is not the same at both ends: 3 variables were sent and 2 are there"):
        rayfeed.fit_generator(model, rows(), verbose=0, workers=0)


def test_what_is_neither_a_model_nor_makes_one_is_refused(rows):
    with pytest.raises(ValueError, match=r"model must be a keras\.Model, or a function .*got builtins\.int"):
        rayfeed.fit_generator(3, rows())
    with pytest.raises(ValueError, match=r"model: nothing\(\) must return a keras\.Model, got NoneType"):
        rayfeed.fit_generator(lambda_nothing(), rows(), verbose=0, workers=0)
    with pytest.raises(ValueError, match="must be compiled before fit_generator"):
        rayfeed.fit_generator(lambda: keras.Sequential([keras.layers.Dense(1)]), rows(), verbose=0, workers=0)


def lambda_nothing():
    def nothing():
        return None

    return nothing


class Counting(keras.Model):
    """Changes a weight of its own in each test step, as models that keep statistics do."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2, activation="softmax")
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")

    def call(self, x):
        return self.dense(x)

    def test_step(self, data):
        self.steps.assign_add(1.0)
        return super().test_step(data)


def test_what_an_evaluation_changes_in_the_model_comes_home_too(rows):
    model = Counting()
    model.compile("adam", "sparse_categorical_crossentropy")
    with rayfeed.Trainer(model) as trainer:
        trainer.evaluate_generator(rows(), workers=0)
        assert float(model.steps) == len(rows())
        model.steps.assign(100.0)
        trainer.evaluate_generator(rows(), workers=0)
    assert float(model.steps) == 100 + len(rows())


class Fails(keras.layers.Layer):
    def get_config(self):
        return {**super().get_config(), "unknown": 1}


def test_a_model_that_cannot_be_built_there_is_an_error_that_names_why(rows):
    broken = keras.Sequential([keras.Input((10,)), Fails(), keras.layers.Dense(2)])
    broken.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"cannot be built again in the trainer: TypeError: .*\{'unknown': 1\}"):
        rayfeed.fit_generator(broken, rows(), verbose=0, workers=0)
