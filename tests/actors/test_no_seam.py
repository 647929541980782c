"""C8: producers live for the whole call, and make the next pass before it is asked for."""

import keras
import pytest

import rayfeed
from tests.actors.sources import Pids, WithHook
from tests.conftest import wait_until
from tests.sources import Log, Numbered


@pytest.mark.parametrize("kind", [Pids, WithHook], ids=["without a hook", "with a hook"])
def test_the_next_pass_is_made_by_the_same_producers_before_it_is_asked_for(kind, log):
    with rayfeed.Feed(kind(4, log=log), 2, use_multiprocessing=True) as feed:
        assert len(list(feed.take(4))) == 4
        wait_until(lambda: len(log.lines()) > 8, lambda: f"only {len(log.lines())} batches were made")
        assert len(list(feed.take(20))) == 20
    assert len(set(log.lines())) <= 2  # six passes: a producer made anew for each would show


class WaitsForMore(keras.callbacks.Callback):
    """Ends a validation only when batches of the next epoch were made meanwhile."""

    def __init__(self, path, wanted):
        super().__init__()
        self.path = path
        self.wanted = wanted
        self.made = []

    def on_test_end(self, logs=None):
        log = Log(self.path)
        wait_until(lambda: len(log.lines()) >= self.wanted, lambda: f"only {len(log.lines())} batches were made")
        self.made.append(len(log.lines()))


def test_the_next_epoch_is_made_during_validation(log):
    source = Numbered(4, log=log)
    shape = source[0][0].shape[1:]  # the first line of the log
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = WaitsForMore(log.path, wanted=1 + 4 + 2)
    rayfeed.fit_generator(
        model,
        source,
        epochs=2,
        verbose=0,
        validation_data=Numbered(2),
        callbacks=[callback],
        workers=2,
        trainer="driver",
    )
    assert len(callback.made) == 2
