"""Calls that Ctrl-C ends, in a process of their own: one for all of them, as its start takes longer than they do."""

import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import keras
import numpy as np

import rayfeed
from rayfeed.trainer import remote
from tests.conftest import start_script, wait_until
from tests.dying import Stays
from tests.oracle.sources import Blocks, Numbers, hangs_after
from tests.oracle.test_epochs import identity


class Touches(keras.callbacks.Callback):
    """Lets the test know that a step was trained."""

    def __init__(self, step, path):
        super().__init__()
        self.step = step
        self.path = path

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.step:
            Path(self.path).touch()


class Busy(Touches):
    """Never returns from its hook."""

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        threading.Event().wait()


def producers_hang(model, path):
    rayfeed.fit_generator(
        model,
        Blocks(3),
        shuffle=False,
        workers=2,
        use_multiprocessing=True,
        verbose=0,
        callbacks=[Touches(0, path)],
    )


def generator_at_home_hangs(model, path):
    warnings.simplefilter("ignore")
    source = hangs_after(3)
    next(source)
    rayfeed.fit_generator(model, source, 100, verbose=0, callbacks=[Touches(1, path)])


def callback_on_driver_hangs(model, path):
    rayfeed.fit_generator(
        model,
        Numbers(100_000),
        workers=2,
        use_multiprocessing=True,
        verbose=0,
        callbacks=[rayfeed.on_driver(Busy(0, path))],
    )


class UntilInterrupted(Touches):
    """Stays in a step until the call is given up; tells of each batch of a validation."""

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if batch == self.step:
            wait_until(lambda: self.model.stop_training, "the call is not given up", seconds=60)

    def on_test_batch_begin(self, batch, logs=None):
        Path(f"{self.path}-tested").touch()


def validation_follows(model, path):
    ones = np.ones((2, 1), "float32")
    rayfeed.fit_generator(
        model, Numbers(10), validation_data=(ones, ones), workers=0, verbose=0, callbacks=[UntilInterrupted(4, path)]
    )


def step_outlasts_the_callers_patience(model, path):
    """The step ends once the caller told that it waits; then the training goes on from what was saved."""
    remote.ABORT_TELL_S = 0.1
    saved = f"{path}-saved"
    Path(saved).mkdir()

    def fit(**options):
        rayfeed.fit_generator(
            model,
            Numbers(10),
            epochs=2,
            shuffle=False,
            workers=0,
            verbose=0,
            callbacks=[Touches(4, path), Stays((0, 4), Path(path).parent)],
            trainer=rayfeed.TrainerOptions(checkpoint_dir=saved, save_every=3, **options),
        )

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        waits = threading.Thread(target=open_gate_once_told, args=(told, Path(path).parent))
        waits.start()
        try:
            fit()
        except KeyboardInterrupt:
            waits.join()
            (warning,) = told
            Path(f"{path}-interrupted").write_text(f"{int(model.optimizer.iterations.numpy())}: {warning.message}")
            fit(resume=True)
            raise


def open_gate_once_told(told, folder):
    wait_until(lambda: told, "no warning came", seconds=120)
    (folder / "gate").touch()


def main():
    """Carry out the calls that the lines of the input name, each with a folder for its signs."""
    for line in sys.stdin:
        name, folder = line.split()
        with (Path(folder) / "errors").open("w") as errors:
            os.dup2(errors.fileno(), sys.stderr.fileno())
        model = identity()
        try:
            globals()[name](model, f"{folder}/running")
        except KeyboardInterrupt:
            from ray._private.state import state

            left = [actor for actor in state.actor_table(None).values() if actor["State"] != "DEAD"]
            told = {"actors left": len(left), "steps": int(model.optimizer.iterations.numpy())}
        else:
            told = {"interrupted": False}
        (Path(folder) / "written").write_text(json.dumps(told))
        (Path(folder) / "written").rename(Path(folder) / "told")


class Interruptible:
    """The process."""

    def __init__(self):
        self._process = start_script("from tests.oracle.interrupted import main\nmain()", RAY_ADDRESS="local")

    def interrupt(self, name, folder):
        """Begin a call of this module, send Ctrl-C once it says that it runs; what it told, and its errors."""
        process = self._process
        process.stdin.write(f"{name} {folder}\n")
        process.stdin.flush()
        running, told = folder / "running", folder / "told"
        wait_until(lambda: running.exists() or process.poll() is not None, "nothing was trained", seconds=90)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: told.exists() or process.poll() is not None, "the call does not end", seconds=60)
        errors = (folder / "errors").read_text()
        assert told.exists(), errors
        return json.loads(told.read_text()), errors

    def close(self):
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
