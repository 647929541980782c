"""E7: weights travel in parts, straight from the variables' memory: the caller holds no second copy of them."""

import os
import pickle
import signal
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import rayfeed
from rayfeed.errors import TrainerDiedError
from rayfeed.trainer import model_link

pytestmark = pytest.mark.slow

LAYERS, UNITS = 16, 2048
WEIGHT_BYTES = LAYERS * UNITS * UNITS * 4

LOOK_S = 0.005
"""How often this process' own memory is looked at, which sends no event."""


def private_bytes():
    """Memory that this process has for itself; the object store is shared, and not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Peak:
    """The most memory this process had for itself while this was open."""

    def __enter__(self):
        self.bytes = private_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(LOOK_S):
            self.bytes = max(self.bytes, private_bytes())


def ones():
    while True:
        yield np.ones((2, UNITS), "float32"), np.ones((2, 1), "float32")


def large_model():
    hidden = [keras.layers.Dense(UNITS, use_bias=False, kernel_initializer="zeros") for _ in range(LAYERS)]
    model = keras.Sequential([keras.Input((UNITS,)), *hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


@pytest.mark.usefixtures("shared_trainer")
def test_a_call_takes_far_less_than_the_weights_memory_in_the_callers_process():
    model = large_model()
    with rayfeed.Trainer(model) as trainer:
        trainer.predict_generator(ones, 1, workers=0)
        before = private_bytes()
        with Peak() as peak:
            trainer.fit_generator(ones, 2, verbose=0, workers=0)
        assert peak.bytes - before < 0.6 * WEIGHT_BYTES
    assert (model.layers[-1].bias.numpy() != 0).all()


class Moves(keras.callbacks.Callback):
    """Changes all weights, so that all go home, and tells its process."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_begin(self, logs=None):
        self.path.write_text(str(os.getpid()))

    def on_train_end(self, logs=None):
        self.model.set_weights([np.ones_like(weight) for weight in self.model.get_weights()])


class KillsAfterFirst:
    """A `pickle` that kills the trainer once the first part of a model has come."""

    load = staticmethod(pickle.load)

    def __init__(self, path):
        self.path = path
        self.num_parts = 0

    def dump(self, *arguments, **options):
        pickle.dump(*arguments, **options)
        self.num_parts += 1
        if self.num_parts == 1:
            os.kill(int(self.path.read_text()), signal.SIGKILL)


def test_a_trainer_lost_while_its_model_comes_home_leaves_the_callers_as_it_was_and_is_replaced(monkeypatch, tmp_path):
    moves = Moves(tmp_path / "pid")
    model = large_model()
    kills = KillsAfterFirst(moves.path)
    monkeypatch.setattr(model_link, "pickle", kills)
    with pytest.raises(TrainerDiedError, match="the caller's has the state it had before the call"):
        rayfeed.fit_generator(model, ones, 2, verbose=0, workers=0, callbacks=[moves])
    assert kills.num_parts == 1
    assert not any(weight.any() for weight in model.get_weights()[:LAYERS])

    kills = KillsAfterFirst(moves.path)
    monkeypatch.setattr(model_link, "pickle", kills)
    once = rayfeed.TrainerOptions(max_failures=1)
    with pytest.warns(UserWarning, match="was lost during fit: it begins again"):
        rayfeed.fit_generator(model, ones, 2, verbose=0, workers=0, callbacks=[moves], trainer=once)
    assert kills.num_parts > LAYERS * UNITS * UNITS * 4 / model_link.MOST_IN_MEMORY
    assert all((weight == 1).all() for weight in model.get_weights())


class InterruptedOnce:
    """A `pickle` during whose first call, of one of its functions, Ctrl-C is pressed.

    Args:
        function: Its name: parts that come are dumped, parts that are written are loaded.
        path: Where the trainer's process is told, which is lost at that moment; None where it lives on.
    """

    def __init__(self, function, path=None):
        self.function = function
        self.path = path
        self.num_calls = 0

    def __getattr__(self, name):
        function = getattr(pickle, name)
        return self.interrupted if name == self.function else function

    def interrupted(self, *arguments, **options):
        self.num_calls += 1
        result = getattr(pickle, self.function)(*arguments, **options)
        if self.num_calls == 1:
            if self.path is not None:
                os.kill(int(self.path.read_text()), signal.SIGKILL)
            signal.raise_signal(signal.SIGINT)
        return result


@pytest.fixture
def hears_ctrl_c():
    """A shell's background jobs, as this process may be one, ignore Ctrl-C unless told otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_while_the_model_comes_home_leaves_it_whole_with_what_was_trained(monkeypatch, tmp_path):
    moves = Moves(tmp_path / "pid")
    model = large_model()
    interrupted = InterruptedOnce("dump")
    monkeypatch.setattr(model_link, "pickle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rayfeed.fit_generator(model, ones, 2, verbose=0, workers=0, callbacks=[moves])
    assert interrupted.num_calls > WEIGHT_BYTES / model_link.MOST_IN_MEMORY  # all came again after the first
    assert all((weight == 1).all() for weight in model.get_weights())


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_while_the_model_is_written_leaves_it_whole_though_the_trainer_is_lost(monkeypatch, tmp_path):
    moves = Moves(tmp_path / "pid")
    model = large_model()
    monkeypatch.setattr(model_link, "pickle", InterruptedOnce("load", moves.path))
    with pytest.raises(KeyboardInterrupt):
        rayfeed.fit_generator(model, ones, 2, verbose=0, workers=0, callbacks=[moves])
    assert all((weight == 1).all() for weight in model.get_weights())
