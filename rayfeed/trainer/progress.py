"""What a job shows of its progress: noted beside the model by `Tap`, drawn in the caller's process by `ProgressBar`.

Keras' own bar draws; only how often is decided here. A terminal or a notebook shows each step, over the one before.
Where standard output is neither (a file, a pipe, a batch system's log) what is drawn stays for good, and a bar that
moves would fill it: there ``verbose=1`` draws each epoch's begin and its full bar with all values, and
``verbose="auto"`` is 2. Keras 3 takes "auto" for 1 everywhere, and draws up to 20 steps a second everywhere.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import keras

from rayfeed.trainer.messages import Job, ProgressEvent

DRAW_INTERVAL_S = 0.05
"""Steps closer together than this are drawn as one: Keras' own bar redraws every 0.05 s."""


def can_redraw() -> bool:
    """Whether what is drawn on standard output can be drawn over: a terminal, a notebook, or PyCharm's window."""
    is_terminal = sys.stdout is not None and hasattr(sys.stdout, "isatty") and sys.stdout.isatty()
    return is_terminal or "ipykernel" in sys.modules or "PYCHARM_HOSTED" in os.environ


class Tap(keras.callbacks.Callback):
    """Takes down what a progress bar would be told.

    Hooks run in the training thread, or in Keras' dispatch threads. Steps that follow each other faster than they can
    be seen are left out.

    Args:
        put: Takes each event: to the caller, or to the bar.
        each_step: Whether steps are drawn, or only beginnings and ends.
    """

    async_safe = True  # lets Keras dispatch steps without waiting for their values

    def __init__(self, put: Callable[[ProgressEvent], None], *, each_step: bool) -> None:
        super().__init__()
        self._put = put
        self._each_step = each_step
        self._drawn_at = 0.0

    def _note(self, hook: str, number: int | None, logs: Any) -> None:
        values = {name: float(value) for name, value in (logs or {}).items() if _is_number(value)}
        self._put(ProgressEvent(hook, number, values, (self.params or {}).get("steps")))

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


class ProgressBar:
    """Draws a job's progress in this process with Keras' own bar.

    Args:
        job: Says how much is drawn.

    Attributes:
        each_step: Whether steps are drawn.
    """

    def __init__(self, job: Job) -> None:
        self.each_step = job.verbose == 1 and can_redraw()
        self._verbose = job.verbose
        self._epochs = job.epochs
        self._logger = keras.callbacks.ProgbarLogger()
        self._steps: int | None = None

    def draw(self, event: ProgressEvent) -> None:
        """Draw what happened."""
        if not self._verbose:
            return
        if event.steps is not None and event.steps != self._steps:
            self._steps = event.steps
            self._logger.set_params({"verbose": self._verbose, "epochs": self._epochs, "steps": event.steps})
        hook = getattr(self._logger, event.hook)
        if event.number is None:
            hook(event.logs)
        else:
            hook(event.number, event.logs)
