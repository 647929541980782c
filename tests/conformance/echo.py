"""A model that tells which batches it was given, and never learns from them.

Fed with `tests.sources.batch(n)` its loss in that step is n, so that what Keras trained on and validated on can be read
from the logs of an ordinary callback, wherever the trainer runs.
"""

from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

import rayfeed
from rayfeed.trainer.session import OneCall

FEEDS = {
    "in line": {"workers": 0},
    "threads": {"workers": 3},
    "processes": {"workers": 2, "use_multiprocessing": True},
}
"""The three ways a source can run."""

ONE_STREAM = {"in line": {"workers": 0}, "threads": {"workers": 3}, "process": {"use_multiprocessing": True}}
"""The ways in which a generator is one stream."""


def make_echo():
    """Inputs of two columns n give 2 n, the target is n, the loss is their distance."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.0), "mae")
    return model


class Seen(keras.callbacks.Callback):
    """The numbers of the batches, for each epoch and each validation."""

    def __init__(self):
        super().__init__()
        self.epochs = []
        self.validations = []
        self.steps = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])
        self.steps.append(self.params["steps"])

    def on_test_begin(self, logs=None):
        self.validations.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.epochs[-1].append(logs["loss"])

    def on_test_batch_end(self, batch, logs=None):
        self.validations[-1].append(logs["loss"])


@dataclass(frozen=True)
class Trained:
    """What a training saw: numbers of batches, `params['steps']` at each epoch's begin, and the History."""

    epochs: list
    validations: list
    steps: list
    history: keras.callbacks.History


def kept(model):
    """A trainer in this process, for tests of several calls that may have the same producers."""
    return OneCall(model, "driver")


def trained(model, source, *arguments, callbacks=(), **options):
    """Train the echo, silently and in this process unless told otherwise; or a trainer of it."""
    seen = Seen()
    fit = partial(rayfeed.fit_generator, model, trainer="driver")
    if isinstance(model, rayfeed.Trainer):
        fit = model.fit_generator
    history = fit(source, *arguments, callbacks=[seen, *callbacks], **({"verbose": 0} | options))
    return Trained(_numbers(seen.epochs), _numbers(seen.validations), seen.steps, history)


def _numbers(rounds):
    """The logs hold the running mean: a batch's number is the difference of the totals."""
    totals = [np.round(np.array(means) * np.arange(1, len(means) + 1)).astype(int) for means in rounds]
    return [np.diff(total, prepend=0).tolist() for total in totals]
