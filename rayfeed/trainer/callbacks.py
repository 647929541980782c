"""rayfeed's own callbacks.

The user's callbacks run beside the model, in Keras' own `CallbackList`. Around them stand two of ours: `Opening` comes
first in each hook and keeps the adapters in step with Keras; `Closing` comes last and stops training before an epoch
that would have no data. `Tap` takes the place of Keras' progress bar and passes its events to the caller, who draws.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import keras

from rayfeed.errors import OptionError
from rayfeed.trainer.adapter import FeedAdapter
from rayfeed.trainer.messages import ProgressEvent
from rayfeed.trainer.outbox import Outbox
from rayfeed.trainer.slices import Slices

DRAW_INTERVAL_S = 0.05
"""Steps closer together than this are drawn as one: Keras' own bar redraws every 0.05 s."""

RAN_OUT = (
    "Your input ran out of data; interrupting training. Make sure that your dataset or generator can generate at least "
    "`steps_per_epoch * epochs` batches."
)
"""Keras' own warning, for the case it cannot see: the stream ended exactly with an epoch."""


def listed(callbacks: Any) -> list[keras.callbacks.Callback]:
    """The user's callbacks as a flat list, as Keras accepts them.

    Raises:
        OptionError: One is no Keras callback.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    flat = keras.tree.flatten(callbacks) if callbacks is not None else []
    for callback in flat:
        if not isinstance(callback, keras.callbacks.Callback):
            raise OptionError(f"callbacks must be keras.callbacks.Callback objects, got {callback!r}.")
    return flat


class Opening(keras.callbacks.Callback):
    """First in each hook: tells the adapters what begins, and keeps ``params['steps']`` true.

    Attributes:
        first_epoch: The epoch that training began with; a callback may have set another than the caller. None before.
    """

    def __init__(self, training: FeedAdapter | None, testing: FeedAdapter | None) -> None:
        super().__init__()
        self._training = training
        self._testing = testing
        self.first_epoch: int | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        if self._training is not None:
            self._training.go_live()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.first_epoch is None:
            self.first_epoch = epoch
        if self._training is not None and self.params is not None:
            self.params["steps"] = self._training.next_length()

    def on_test_begin(self, logs: Any = None) -> None:
        if self._testing is not None:
            self._testing.go_live()

    def on_test_end(self, logs: Any = None) -> None:
        if self._testing is not None:
            self._testing.rest()

    on_predict_begin = on_test_begin


class Closing(keras.callbacks.Callback):
    """Last in each hook: stops training where the stream ended exactly with an epoch."""

    def __init__(self, slices: Slices, epochs: int) -> None:
        super().__init__()
        self._slices = slices
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        model: Any = self.model
        if epoch + 1 < self._epochs and not model.stop_training and not self._slices.has_more():
            warnings.warn(RAN_OUT, stacklevel=2)
            model.stop_training = True


class Tap(keras.callbacks.Callback):
    """Takes down what a progress bar would be told, for the caller to draw.

    Hooks run in the training thread, or in Keras' dispatch threads. Steps that follow each other faster than they can
    be seen are left out.

    Args:
        outbox: Takes the events to the caller.
        each_step: Whether steps are drawn, or only beginnings and ends.
    """

    async_safe = True  # lets Keras dispatch steps without waiting for their values

    def __init__(self, outbox: Outbox, *, each_step: bool) -> None:
        super().__init__()
        self._outbox = outbox
        self._each_step = each_step
        self._drawn_at = 0.0

    def _note(self, hook: str, number: int | None, logs: Any) -> None:
        values = {name: float(value) for name, value in (logs or {}).items() if _is_number(value)}
        self._outbox.put(ProgressEvent(hook, number, values, (self.params or {}).get("steps")))

    def _step(self, hook: str, number: int, logs: Any) -> None:
        now = time.monotonic()
        if self._each_step and now - self._drawn_at >= DRAW_INTERVAL_S:
            self._drawn_at = now
            self._note(hook, number, logs)

    def on_train_begin(self, logs: Any = None) -> None:
        self._note("on_train_begin", None, None)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._note("on_epoch_begin", epoch, None)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._note("on_epoch_end", epoch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        self._note("on_test_begin", None, None)

    def on_test_end(self, logs: Any = None) -> None:
        self._note("on_test_end", None, logs)

    def on_predict_begin(self, logs: Any = None) -> None:
        self._note("on_predict_begin", None, None)

    def on_predict_end(self, logs: Any = None) -> None:
        self._note("on_predict_end", None, None)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step("on_train_batch_end", batch, logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step("on_test_batch_end", batch, logs)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step("on_predict_batch_end", batch, None)


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__")
