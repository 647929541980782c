"""A: `rayfeed.install()` puts the methods of Keras 2 back on `keras.Model`, until they are taken away again."""

import inspect

import keras
import pytest

import rayfeed
from tests.oracle.sources import Rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]

NAMES = ("fit_generator", "evaluate_generator", "predict_generator")


@pytest.fixture
def installed():
    with rayfeed.install() as installation:
        yield installation


def is_installed():
    return [hasattr(keras.Model, name) for name in NAMES] == [True] * 3


def test_an_old_script_trains_on_the_cluster_as_keras_does(installed, make_model, as_py_dataset, same_state):
    """With the positional arguments of Keras 2, in its order, up to `initial_epoch`."""
    ours, theirs = make_model(), make_model()
    data, held_out = Rows(), Rows(20, seed=1)
    seen = keras.callbacks.History()
    expected = theirs.fit(
        as_py_dataset(data),
        epochs=3,
        initial_epoch=1,
        shuffle=False,
        verbose=0,
        validation_data=as_py_dataset(held_out),
    )
    batches = (data[index % 10] for index in range(20))
    history = ours.fit_generator(batches, 10, 3, 0, [seen], held_out, None, {0: 1, 1: 1}, 10, 1, False, True, 1)
    assert history is seen
    assert (history.history, history.epoch) == (expected.history, [1, 2])
    same_state(ours, theirs)
    assert ours.evaluate_generator(held_out, None, None, 10, 1) == theirs.evaluate(as_py_dataset(held_out), verbose=0)
    predicted = ours.predict_generator(held_out, workers=0, trainer="driver")
    assert predicted.tolist() == theirs.predict(as_py_dataset(held_out), verbose=0).tolist()


def test_a_quotient_of_samples_and_batch_size_counts_up_as_in_keras_2(installed, make_model):
    data = Rows()
    assert len(data.x) / 8 == 9.5
    batches = (data[index % 10] for index in range(30))
    history = make_model().fit_generator(batches, len(data.x) / 8, 2, verbose=0, workers=0, trainer="driver")
    assert history.params["steps"] == 10


@pytest.mark.parametrize("kind", ["sequential", "functional", "subclass"])
def test_every_kind_of_model_has_the_methods(kind, installed):
    inputs = keras.Input((1,))
    models = {
        "sequential": lambda: keras.Sequential([inputs]),
        "functional": lambda: keras.Model(inputs, keras.layers.Dense(1)(inputs)),
        "subclass": type("Own", (keras.Model,), {}),
    }
    assert all(callable(getattr(models[kind](), name)) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_shows_the_functions_signature_and_words_without_the_model(name, installed):
    method, function = getattr(keras.Model, name), getattr(rayfeed, name)
    bound = inspect.signature(getattr(keras.Sequential(), name))
    assert list(bound.parameters.values()) == list(inspect.signature(function).parameters.values())[1:]
    assert method.__qualname__ == f"Model.{name}"
    assert "    generator: " in method.__doc__
    assert "    model: " not in method.__doc__
    assert "    model: " in function.__doc__


def test_a_wrong_argument_is_told_as_of_any_method(installed):
    with pytest.raises(TypeError, match="unexpected keyword argument 'nb_epoch'"):
        keras.Sequential().fit_generator(iter([]), nb_epoch=3)


def test_what_was_not_there_is_gone_afterwards_and_may_be_taken_away_twice():
    assert not is_installed()
    installation = rayfeed.install()
    assert is_installed()
    for _ in range(2):
        installation.uninstall()
        assert not any(hasattr(keras.Model, name) for name in NAMES)


def test_what_was_there_before_is_put_back(monkeypatch):
    def mine(self):
        return "mine"

    monkeypatch.setattr(keras.Model, "fit_generator", mine, raising=False)
    with rayfeed.install():
        assert keras.Model.fit_generator is not mine
    assert keras.Model.fit_generator is mine


def test_what_others_put_there_meanwhile_is_left_alone(monkeypatch):
    installation = rayfeed.install()
    monkeypatch.setattr(keras.Model, "fit_generator", lambda self: "theirs")
    installation.uninstall()
    assert keras.Model.fit_generator(None) == "theirs"
    monkeypatch.undo()  # puts back what was installed when it was patched
    del keras.Model.fit_generator


def test_installing_again_changes_nothing_and_the_inner_of_two_leaves_the_methods_in_place():
    with rayfeed.install():
        before = [getattr(keras.Model, name) for name in NAMES]
        with rayfeed.install():
            assert [getattr(keras.Model, name) for name in NAMES] == before
        assert [getattr(keras.Model, name) for name in NAMES] == before
    assert not is_installed()


def test_they_go_also_when_the_block_is_left_by_an_error():
    with pytest.raises(KeyError), rayfeed.install():
        raise KeyError
    assert not is_installed()
