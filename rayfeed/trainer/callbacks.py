"""rayfeed's own callbacks.

The user's callbacks run beside the model, in Keras' own `CallbackList`. Around them stand two of ours: `Opening` comes
first in each hook and keeps the adapters in step with Keras; `Closing` comes last and stops training before an epoch
that would have no data; a training that is saved has `History` and `Saving` behind it. All of them are in an
`EpochCallbacks`. What is shown of the progress is in `progress`, and callbacks that run in the caller's process
in `relay` and `driver_callbacks`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras

from rayfeed.errors import OptionError
from rayfeed.trainer.adapter import FeedAdapter
from rayfeed.trainer.slices import Slices

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

    Keras leaves a loop that was broken off as it leaves one that is done, and would show the user's callbacks, and a
    checkpoint, the end of an epoch that has not ended. So each end is looked at first.

    Args:
        training: Feeds the training.
        testing: Feeds the validation, the evaluation or the prediction.
        check_wanted: Raises where the caller wants no more of the job.

    Attributes:
        first_epoch: The epoch that training began with; a callback may have set another than the caller. None before.
    """

    def __init__(
        self, training: FeedAdapter | None, testing: FeedAdapter | None, check_wanted: Callable[[], None]
    ) -> None:
        super().__init__()
        self._training = training
        self._testing = testing
        self._check_wanted = check_wanted
        self.first_epoch: int | None = None

    def _check(self) -> None:
        self._check_wanted()
        for adapter in (self._training, self._testing):
            if adapter is not None and adapter.slices.failure is not None:  # Keras took it for the data's end
                raise adapter.slices.failure.error from adapter.slices.failure.cause

    def on_train_begin(self, logs: Any = None) -> None:
        if self._training is not None:
            self._training.go_live()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.first_epoch is None:
            self.first_epoch = epoch
        if self._training is not None and self.params is not None:
            self.params["steps"] = self._training.next_length()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check()

    def on_test_begin(self, logs: Any = None) -> None:
        self._check()  # a validation that nobody waits for may take long
        if self._testing is not None:
            self._testing.go_live()

    def on_test_end(self, logs: Any = None) -> None:
        self._check()
        if self._testing is not None:
            self._testing.rest()

    on_predict_begin = on_test_begin

    def on_predict_end(self, logs: Any = None) -> None:
        self._check()


class Closing(keras.callbacks.Callback):
    """Last in each hook: stops training after the epoch in which, or exactly with which, the stream ended.

    Not earlier: Keras' JAX backend takes a batch ahead where there is a GPU, and finds the end before the last step.
    """

    def __init__(self, slices: Slices, epochs: int) -> None:
        super().__init__()
        self._slices = slices
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        model: Any = self.model
        if epoch + 1 == self._epochs or model.stop_training:
            return
        if self._slices.has_ended and not self._slices.is_complete:  # Keras has warned
            model.stop_training = True
        elif not self._slices.has_more():
            warnings.warn(RAN_OUT, stacklevel=2)
            model.stop_training = True


class EpochCallbacks(keras.callbacks.CallbackList):
    """Keras' container. Keras counts an epoch's steps from 0: in an epoch that is resumed, they are counted on.

    Args:
        slices: The training's.
        callbacks: As of `keras.callbacks.CallbackList`.
        **others: Likewise.
    """

    def __init__(self, slices: Slices, callbacks: list[keras.callbacks.Callback], **others: Any) -> None:
        super().__init__(callbacks, **others)
        self._slices = slices

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_begin(batch + self._slices.num_before, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch + self._slices.num_before, logs)
