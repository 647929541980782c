"""C8, E2: a validation is made by the training's own producers, ahead, while the epoch before it still trains."""

import keras
import pytest

import rayfeed
from tests.actors.sources import BothProcesses, Pids, pids
from tests.conftest import wait_until
from tests.sources import Gate, Log


class BeforeLastStep(keras.callbacks.Callback):
    """Holds each epoch's last step back until batches of the validation that follows were made."""

    def __init__(self, log, steps, validation_steps):
        super().__init__()
        self.log, self.steps, self.validation_steps = log, steps, validation_steps
        self.made = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, step, logs=None):
        if step == self.steps - 1:
            wanted = self.epoch * self.validation_steps + 1
            wait_until(lambda: len(self.log.lines()) >= wanted, "no batch of the next validation was made")
            self.made.append(len(self.log.lines()))


@pytest.mark.parametrize("kind", ["sequence", "generator"])
def test_a_validation_is_made_by_the_same_processes_before_the_epochs_last_step_is_trained(kind, log):
    held_out = Log(log.path + "-validation")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = BeforeLastStep(held_out, steps=5, validation_steps=3)
    rayfeed.fit_generator(
        model,
        BothProcesses(5, log=log, gate=Gate(log.path + "-gate")),
        epochs=3,
        verbose=0,
        validation_data=Pids(3, log=held_out) if kind == "sequence" else pids(held_out),
        validation_steps=3,
        callbacks=[callback],
        workers=2,
        use_multiprocessing=True,
        trainer="driver",
    )
    assert len(callback.made) == 3
    assert set(held_out.lines()) <= set(log.lines())
    assert len(set(log.lines())) == 2
