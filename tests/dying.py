"""Callbacks that end the trainer's process, or hold it, at named steps."""

from pathlib import Path

import keras

from tests.sources import Gate, die


class AtSteps(keras.callbacks.Callback):
    """Does something after each step, (epoch, batch) or (epoch, "test", batch)."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.after(self.epoch, batch)

    def on_test_batch_end(self, batch, logs=None):
        self.after(self.epoch, "test", batch)


class Dies(AtSteps):
    """Ends its process after each of these steps, the first time."""

    def __init__(self, at, once):
        super().__init__()
        self.at = at
        self.once = once

    def after(self, *step):
        if step in self.at and self.once("-".join(map(str, step))):
            die()


class Stays(AtSteps):
    """Stays in a step until the gate of this folder is open; "there" tells that it is there."""

    def __init__(self, at, folder):
        super().__init__()
        self.at = at
        self.folder = folder

    def after(self, *step):
        if step == self.at:
            Path(self.folder, "there").touch()
            Gate(f"{self.folder}/gate").wait()
