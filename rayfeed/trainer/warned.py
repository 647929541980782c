"""Warnings of a job in the trainer's process: told to the caller while it runs, since some say what is waited for.

The caller's own filters decide what becomes of them: a warning that they make an error ends the call, as it would where
Keras trains in the caller's process.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rayfeed.queue.travel import callers_level

FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning)
"""What packages say to those who write them."""


@dataclass(frozen=True)
class WarningEvent:
    """A warning given in the trainer.

    Attributes:
        category: Its class.
        message: Its text.
    """

    category: type[Warning]
    message: str

    def give(self) -> None:
        """Give it in this process, at the first line outside of rayfeed."""
        warnings.warn(self.message, self.category, stacklevel=callers_level())


@contextmanager
def telling_warnings(tell: Callable[[WarningEvent], None]) -> Iterator[None]:
    """Have the warnings of any thread told, each once, and not shown here."""
    told: set[WarningEvent] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        event = WarningEvent(category, str(message))
        if event not in told and not issubclass(category, FOR_DEVELOPERS):
            told.add(event)
            tell(event)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield
