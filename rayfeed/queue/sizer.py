"""How many batches one ticket asks for.

An object of the store costs the same control work whatever its size, which for a small one is far more than its copy,
so small batches share a frame:

    n = min(TARGET_BYTES / bytes per batch, TARGET_S / seconds per batch, bound / tickets),   at least 1

The last term keeps that many tickets inside the queue's bound. Two per worker hide the way between feed and producer:
one is being made while the other travels. Where all that a worker may hold is made faster than a ticket travels, its
idleness costs nothing and the tickets themselves do: then it is one per worker, of twice the size, if any worker may
take any ticket; but two in all, one to be consumed while the other is made. Until a stream's first answer n is 1, so
that training starts with the first batch made. Bytes and seconds are moving averages.
"""

from __future__ import annotations

import statistics
from collections import deque

TARGET_BYTES = 32_000_000
"""Control work is paid once per object, so larger is faster, up to about what a processor's last cache holds. One batch
in a reader's hands keeps all of its frame in the store."""

TARGET_S = 0.02
"""A ticket that takes longer to make delays the batches before it in its frame more than its control work costs."""

WAY_S = 0.004
"""What a ticket and its answer take to travel when several processes want the CPU."""

SMOOTHING = 0.3
"""Weight of the newest answer in the moving averages: follows a change within about five frames."""


NEWEST = 15
"""Answers by which it is told what is usual."""


class Sizer:
    """The averages of one stream, and the size of its next ticket."""

    def __init__(self) -> None:
        self.bytes_per_batch = 0.0
        self.seconds_per_batch = 0.0
        self._observed = False
        self._newest: deque[float] = deque(maxlen=NEWEST)  # seconds per batch

    def observe(self, *, num_batches: int, num_bytes: int, seconds: float) -> None:
        """Take one answer into the averages."""
        if num_batches == 0:
            return
        weight = SMOOTHING if self._observed else 1.0
        self.bytes_per_batch += weight * (num_bytes / num_batches - self.bytes_per_batch)
        self.seconds_per_batch += weight * (seconds / num_batches - self.seconds_per_batch)
        self._observed = True
        self._newest.append(seconds / num_batches)

    def usual_s(self) -> float | None:
        """Seconds that a batch usually takes: the median, as a producer's first batch may say nothing of the others.

        None before the first answer.
        """
        return statistics.median(self._newest) if self._newest else None

    def count(self, *, bound: int, slots: int, may_idle: bool = False) -> int:
        """Batches of the next ticket.

        Args:
            bound: Batches that may be outstanding in all.
            slots: Workers (processes times threads) that share them.
            may_idle: Whether a worker may have one ticket only, where its batches are quickly made.
        """
        if not self._observed:
            return 1
        by_bytes = TARGET_BYTES / max(self.bytes_per_batch, 1.0)
        by_time = TARGET_S / max(self.seconds_per_batch, 1e-9)
        slots = max(slots, 1)
        is_quick = bound / slots * self.seconds_per_batch < WAY_S
        tickets = max(2, slots if may_idle and is_quick else 2 * slots)
        return max(1, int(min(by_bytes, by_time, bound / tickets)))
