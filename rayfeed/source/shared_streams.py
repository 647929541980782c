"""Finds out that threads of one producer draw from `random`, `numpy.random` or a framework's stream, which they share.

A batch of a seeded Sequence begins with these streams seeded for it; but another thread's batch seeds them again, and
draws between its draws. A lock would let one thread work at a time, so rayfeed tells the user instead. How it is found
out: whatever is drawn changes a stream's state, and every change is followed by the next seeding or by the end of the
batch that drew. Before the one and at the other the state is held against what the last seeding left.

    thread 0   seed, mark ----- draw ------------------------------> look
    thread 1                          look: changed; seed, mark ---> look

Costs a copy of the states a batch, for a seeded Sequence over several threads that draws from none; nothing more once
a draw was seen.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np

from rayfeed.source.framework_seeds import framework_states
from rayfeed.source.seeding import seed_batch


class SharedStreams:
    """Watches the streams of one process. Called by every thread that makes batches.

    Attributes:
        drawn: The streams that were drawn from; empty until it was seen.
    """

    def __init__(self) -> None:
        self.drawn: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._marks: dict[str, Any] = {}

    def seed(self, root: int, pass_index: int, index: int) -> None:
        """Seed for a batch that this thread is about to make, as `seed_batch` does."""
        with self._lock:
            self._compare()
            seed_batch(root, pass_index, index)
            if not self.drawn:
                self._marks = _states()

    def look(self) -> tuple[str, ...]:
        """The streams that were drawn from, this thread's batch being made."""
        with self._lock:
            self._compare()
            return self.drawn

    def _compare(self) -> None:
        if self._marks and not self.drawn:
            states = _states()
            # A framework that was imported meanwhile has no mark yet.
            self.drawn = tuple([name for name, mark in self._marks.items() if states.get(name, mark) != mark])


def _states() -> dict[str, Any]:
    legacy: Any = np.random.get_state()  # noqa: NPY002 - the stream that users draw from
    own = {"random": random.getstate(), "numpy.random": (legacy[1].tobytes(), *legacy[2:])}
    return own | framework_states()
