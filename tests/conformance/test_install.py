"""`rayfeed.install`: Keras 2's methods, back on the model."""

import keras
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import Seen
from tests.sources import Numbered, batch

METHODS = ("fit_generator", "evaluate_generator", "predict_generator")


@line("A install")
@complaint(
    "tensorflow/tensorflow#39523",
    there="rewriting a Sequence to tf.data was not smooth, and users went elsewhere",
    here="the old call works as it stands, arguments by position included",
)
def test_installed_methods_take_keras_2_arguments_by_position_and_go_again(echo):
    seen = Seen()
    with rayfeed.install():
        history = echo.fit_generator(
            Numbered(3), 2, 3, 0, [seen], Numbered(2), 1, None, 5, 2, True, True, 1, trainer="driver"
        )
        assert echo.evaluate_generator(Numbered(4), 3, None, 5, 2, True, 0, trainer="driver") == 1.0
        assert echo.predict_generator(Numbered(3), 2, trainer="driver").shape == (8, 1)
    assert history.epoch == [1, 2]
    assert isinstance(history, keras.callbacks.History)
    assert (seen.steps, len(seen.validations)) == ([2, 2], 2)
    assert not any(hasattr(echo, method) for method in METHODS)


@line("A install")
def test_what_was_installed_can_be_taken_back_and_serves_every_kind_of_model():
    handle = rayfeed.install()
    try:
        assert all(hasattr(keras.Model, method) for method in METHODS)
        source = keras.Input((2,))
        model = keras.Model(source, keras.layers.Dense(1)(source))
        model.compile("sgd", "mse")
        assert model.fit_generator((batch(0) for _ in range(2)), 2, verbose=0, trainer="driver").epoch == [0]
    finally:
        handle.uninstall()
    assert not any(hasattr(keras.Model, method) for method in METHODS)
    with pytest.raises(AttributeError):
        model.fit_generator(Numbered(2))
