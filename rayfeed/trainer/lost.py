"""Calls to the trainer, so that only a failure of theirs says that it was lost.

A model's function, a hook in the caller's process or a source may raise errors of Ray's too, of an actor of the user's
own: those are never asked here. What users raise in the trainer comes as a value (`Failure`).
"""

from __future__ import annotations

from typing import Any

import ray

from rayfeed.errors import RayfeedError
from rayfeed.producer.failed_call import is_loss


class Lost(RayfeedError):  # noqa: N818 - no error of the user's: whoever called says what it means
    """The trainer's process, or the way to it, was lost during a call; Ray's error is the cause."""


def answer_of(call: Any, *, timeout_s: float | None = None) -> Any:
    """Wait for a call to the trainer, and return what it gave.

    Args:
        call: What the actor's method returned.
        timeout_s: Ray's `GetTimeoutError` comes after so long; None for no limit.

    Raises:
        Lost: The trainer was lost.
    """
    try:
        return ray.get(call, timeout=timeout_s)
    except Exception as error:
        if not is_loss(error):
            raise
        raise Lost(str(error)) from error
