"""`rayfeed.on_driver` and the caller's half of it: hooks that arrive from the trainer run here, in the calling thread.

The trainer's half is `relay`. Nothing of a driver callback is pickled: what travels is its place in the list and the
names of its hooks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras

from rayfeed.errors import OptionError
from rayfeed.trainer.messages import DriverSlot, HookCall, Verdict

REPORT_INTERVAL_S = 0.05
"""Hooks quicker than this are reported together: each report is a message, and training's lead is many hooks."""

FAILURE_TIMEOUT_S = 60.0
"""How long the trainer may take to end a job after a driver callback raised: it finishes the step it is in, which may
be the first, with its compilation. Then its process is ended."""

HOOKS = (
    "on_epoch_begin",
    "on_epoch_end",
    *(
        f"on_{kind}{batch}_{end}"
        for kind in ("train", "test", "predict")
        for batch in ("", "_batch")
        for end in ("begin", "end")
    ),
)
"""Every hook that Keras calls."""

OLDER_NAMES = {"on_batch_begin": "on_train_batch_begin", "on_batch_end": "on_train_batch_end"}
"""Keras 2's names, which the base class' own hooks still call."""


class OnDriver(keras.callbacks.Callback):
    """A callback marked to run in the caller's process; made by `on_driver`.

    In Keras' own `fit` it is the callback that it holds.
    """

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        super().__init__()
        self.callback = callback
        self.async_safe = getattr(callback, "async_safe", False)
        for hook in hooks_of(callback):
            setattr(self, hook, getattr(callback, hook))

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self.callback.set_model(model)

    def set_params(self, params: Any) -> None:
        super().set_params(params)
        self.callback.set_params(params)

    def __reduce__(self) -> Any:
        raise TypeError("on_driver(...) stays in the caller's process: it must itself be a member of `callbacks`")


def on_driver(callback: keras.callbacks.Callback) -> keras.callbacks.Callback:
    """Mark a callback to run in the caller's process, hook by hook, while training runs in the trainer.

    For callbacks that hold what cannot travel, or what they should fill while training runs: an open file, a list that
    a closure captured, a connection, a window. The trainer posts each hook and the calling thread runs it. Every Keras
    hook that the callback has reaches it in Keras' order with Keras' arguments and ``params``, and all have run before
    the call returns. Hooks that it has not cost nothing; batch hooks are posted for each step.

    - ``self.model`` is the caller's model. It has the trained weights when the call has ended, not while it runs. What
      depends on the weights of an epoch (`ModelCheckpoint`, ``restore_best_weights``) belongs in the trainer.
    - ``self.model.stop_training = True`` stops training at the next step. At the end of an epoch, training waits up to
      one second for the callback, so that its decision holds for the next epoch, as in Keras.
    - A callback that is slower does not hold training up, until 50 of its hooks are outstanding; then training waits.
      Its decisions come as late as it does.
    - An exception ends the training and reaches the caller as it was raised, with what was trained until then.
    - Arrays in ``logs`` (predictions) are NumPy arrays. What the callback adds to ``logs`` is not seen by others.

    Where training runs in the caller's process (``trainer="driver"``, or Keras' own `fit`) it is the callback as it is.

    Args:
        callback: A Keras callback.

    Returns:
        A callback to pass in ``callbacks``, in its place among the others.

    Raises:
        OptionError: `callback` is no Keras callback.

    Example:
        >>> losses = []
        >>> show = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
        >>> rayfeed.fit_generator(model, images, epochs=3, callbacks=[rayfeed.on_driver(show)])
    """
    if isinstance(callback, OnDriver):
        return callback
    if not isinstance(callback, keras.callbacks.Callback):
        raise OptionError(f"on_driver takes a keras.callbacks.Callback object, got {callback!r}.")
    return OnDriver(callback)


def unwrapped(callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    """The callbacks as they are where nothing is remote."""
    return [callback.callback if isinstance(callback, OnDriver) else callback for callback in callbacks]


def hooks_of(callback: keras.callbacks.Callback) -> frozenset[str]:
    """The hooks that a callback has of its own; those it has from Keras' base class do nothing."""

    def is_own(hook: str) -> bool:
        return getattr(getattr(callback, hook), "__func__", None) is not getattr(keras.callbacks.Callback, hook)

    older = {new for old, new in OLDER_NAMES.items() if is_own(old)}
    return frozenset(older | {hook for hook in HOOKS if is_own(hook)})


class DriverHooks:
    """Runs one job's driver callbacks in the calling thread.

    Args:
        callbacks: All of the job's.
        model: The caller's model.

    Attributes:
        others: The callbacks that travel.
        slots: What the trainer knows of those that do not.
        error: What a hook raised; later hooks are not run.
        wants_stop: Whether a hook set the model's `stop_training`.
    """

    def __init__(self, callbacks: list[keras.callbacks.Callback], model: Any) -> None:
        self._own = [callback.callback for callback in callbacks if isinstance(callback, OnDriver)]
        self._model = model
        self._params: list[dict[str, Any]] = [{} for _ in self._own]
        self._job = 0
        self._send: Callable[[Verdict], object] = lambda _: None
        self._num_done = 0
        self._num_reported = 0
        self._reported_at = 0.0
        self._failed_at = 0.0
        self.others = [callback for callback in callbacks if not isinstance(callback, OnDriver)]
        self.slots = [
            DriverSlot(place, hooks_of(callback.callback))
            for place, callback in enumerate(callbacks)
            if isinstance(callback, OnDriver)
        ]
        self.error: Exception | None = None
        self.wants_stop = False

    def begin(self, job: int, send: Callable[[Verdict], object]) -> None:
        """Before the job is sent: give the callbacks their model, as Keras does before any hook.

        Args:
            job: The job's number.
            send: Takes a verdict to the trainer, without waiting.
        """
        self._job, self._send = job, send
        self._num_done = self._num_reported = 0  # a trainer that was lost had counts of its own
        if self._own:
            self._model.stop_training = False  # an earlier job's; Keras does this too, but elsewhere
        for callback in self._own:
            callback.set_model(self._model)

    def run(self, call: HookCall) -> None:
        """Run one hook, unless an earlier one raised."""
        if self.error is None:
            try:
                self._run(call)
            except Exception as error:  # noqa: BLE001 - the user's; raised when the trainer has ended the job
                self.error, self._failed_at = error, time.monotonic()
            news = self.error is not None or (self._model.stop_training and not self.wants_stop)
            self.wants_stop = bool(self._model.stop_training)
        else:
            news = False
        self._num_done = call.serial
        if news or time.monotonic() - self._reported_at > REPORT_INTERVAL_S:
            self.report()

    def report(self) -> None:
        """Tell the trainer how far the callbacks are, where it does not know."""
        if self._num_done > self._num_reported:
            self._num_reported, self._reported_at = self._num_done, time.monotonic()
            self._send(Verdict(self._job, self._num_done, self.wants_stop, self.error is not None))

    def check(self) -> None:
        """Raise what a hook raised, where the trainer has not ended the job within `FAILURE_TIMEOUT_S`."""
        if self.error is not None and time.monotonic() - self._failed_at > FAILURE_TIMEOUT_S:
            self.finish()

    def finish(self) -> None:
        """Raise what a hook raised."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _run(self, call: HookCall) -> None:
        callback, params = self._own[call.callback], self._params[call.callback]
        params.update(call.params)  # the dict that the callback was given, as in Keras
        if call.has_stopped:
            self._model.stop_training = self.wants_stop = True
        if call.hook == "set_params":
            callback.set_params(params)
        else:
            getattr(callback, call.hook)(*call.args, **call.kwargs)
