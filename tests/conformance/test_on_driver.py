"""E5: callbacks that stay in the caller's process."""

import os

import keras
import pytest

import rayfeed
from tests.conformance.contract import line
from tests.conformance.echo import trained
from tests.sources import Numbered

pytestmark = pytest.mark.usefixtures("shared_trainer")

each_trainer = pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "actor"])


@line("E5 driver")
@each_trainer
def test_on_driver_hooks_run_in_the_callers_process_and_fill_what_closures_captured(trainer, echo):
    told, pids = [], set()

    def note(epoch, logs):
        told.append((epoch, sorted(logs), round(logs["loss"], 4)))
        pids.add(os.getpid())

    callback = keras.callbacks.LambdaCallback(on_epoch_end=note)
    trained(
        echo,
        Numbered(3),
        epochs=3,
        validation_data=Numbered(2),
        callbacks=[rayfeed.on_driver(callback)],
        workers=0,
        trainer=trainer,
    )
    assert told == [(epoch, ["loss", "val_loss"], 1.0) for epoch in range(3)]
    assert pids == {os.getpid()}


class StopsAfter(keras.callbacks.Callback):
    """Holds what no process could be sent."""

    def __init__(self, epoch, file):
        super().__init__()
        self.epoch = epoch
        self.file = file

    def on_epoch_end(self, epoch, logs=None):
        self.file.write(f"{epoch}\n")
        self.model.stop_training = self.model.stop_training or epoch >= self.epoch


@line("E5 driver")
@each_trainer
def test_an_on_driver_callback_may_hold_an_open_file_and_stops_the_training(trainer, echo, tmp_path):
    with (tmp_path / "epochs").open("w") as file:
        stops = rayfeed.on_driver(StopsAfter(2, file))
        run = trained(echo, Numbered(2), epochs=500, callbacks=[stops], workers=0, trainer=trainer)
    assert 3 <= len(run.history.epoch) < 500
    assert echo.stop_training
    written = (tmp_path / "epochs").read_text().split()
    assert written == [str(epoch) for epoch in run.history.epoch]


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise ZeroDivisionError("in the caller's process")


@line("E5 driver")
@each_trainer
def test_an_exception_in_an_on_driver_callback_ends_the_call(trainer, echo):
    with pytest.raises(ZeroDivisionError, match="in the caller's process"):
        trained(echo, Numbered(50), epochs=50, callbacks=[rayfeed.on_driver(Fails())], workers=0, trainer=trainer)
