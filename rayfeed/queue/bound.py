"""The bounds of one stream's queue (contract C13).

    outstanding = batches in issued tickets that were not consumed yet  <=  limit

The bound in batches, and in bytes where there is one, is on what waits; one batch more is in each worker's hands. What
lies in hands is in the object store of the consumer's node as soon as it is made, so that all of it together has a
bound too: with large batches and many workers some of these are idle, and nothing is written to disk.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_BATCHES = 8
"""Batches in workers' hands before the first answer, where all that is outstanding has a bound in bytes: nobody knows
yet how large they are."""


@dataclass(frozen=True)
class Bound:
    """The bounds of one queue.

    Attributes:
        num_batches: Finished batches that may wait.
        num_bytes: Bytes of them; None for no bound.
        room_bytes: Bytes of all that is outstanding; None for no bound.
    """

    num_batches: int
    num_bytes: int | None = None
    room_bytes: int | None = None

    def limit(self, slots: int, batch_bytes: float) -> int:
        """Batches that may be outstanding.

        Args:
            slots: Batches that can be made at one time.
            batch_bytes: Of a batch; 0 before the first answer.
        """
        waiting = self.num_batches
        if self.num_bytes is not None:
            waiting = min(waiting, max(1, int(self.num_bytes / batch_bytes)) if batch_bytes else 1)
        if self.room_bytes is None:
            return waiting + slots
        room = max(1, int(self.room_bytes / batch_bytes)) if batch_bytes else waiting + FIRST_BATCHES
        return min(waiting + slots, room)
