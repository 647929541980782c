"""`random`'s and `numpy.random`'s streams of this process, while user code runs seeded in it (contract G1).

Both streams are global: they are seeded for that code, and put back after it. Several threads may do so at once, a hook
beside training and a source that runs in line, and nobody waits for another, since a hook may hang.

    first in        takes down the process' own states
    first, inner    seeds; where its own thread goes on seeded, puts back what that had
    last out        puts the process' own states back

Whoever wants the process' own states gets them at any time.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np

States = tuple[Any, Any]
"""Of `random` and of `numpy.random`."""


def current() -> States:
    """The states as they are, whoever set them."""
    return random.getstate(), np.random.get_state()  # noqa: NPY002 - the stream that users draw from


def set_current(states: States) -> None:
    """Set both."""
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002 - as above


class OwnStreams:
    """The states of one process, and who runs seeded in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: list[int] = []  # threads, once for each time
        self._own: States | None = None

    def enter(self) -> States:
        """User code will run seeded in this thread; the states that it begins from."""
        with self._lock:
            found = current()
            if not self._inside:
                self._own = found
            self._inside.append(threading.get_ident())
            return found

    def leave(self, before: States) -> None:
        """It has run.

        Args:
            before: What `enter` gave.
        """
        with self._lock:
            self._inside.remove(threading.get_ident())
            if self._own is not None and not self._inside:
                set_current(self._own)
                self._own = None
            elif threading.get_ident() in self._inside:
                set_current(before)

    def get(self) -> States:
        """The process' own states."""
        with self._lock:
            return self._own if self._own is not None else current()

    def set(self, states: States) -> None:
        """Give the process other states; where code runs seeded, they count from its end on."""
        with self._lock:
            if self._own is not None:
                self._own = states
            else:
                set_current(states)


own_streams = OwnStreams()
"""This process'. There is one, as there is one of each stream."""
