"""Tickets that are made alone, by a worker that does nothing else meanwhile.

Of several tickets that were in a lost worker's hands nobody knows which was the reason. The one during which too many
were lost is given to a worker without others: if that one is lost as well, it is the reason, and else it is innocent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized


class Alone:
    """Workers that are kept for one ticket each."""

    def __init__(self) -> None:
        self._kept: dict[int, int] = {}  # worker -> number of the ticket

    def __contains__(self, worker: int) -> bool:
        return worker in self._kept

    def worker_for(self, number: int, held: Mapping[int, Sized]) -> int | None:
        """The worker that makes a ticket alone, once its hands are empty; from the first asking on one is kept for it.

        Args:
            number: The ticket's.
            held: What the workers have in their hands that may be kept.
        """
        worker = next((worker for worker, kept in self._kept.items() if kept == number), None)
        if worker is None:
            free = [worker for worker in held if worker not in self._kept]
            if not free:
                return None
            worker = min(free, key=lambda worker: (len(held[worker]), worker))
            self._kept[worker] = number
        return worker if not held[worker] else None

    def is_done(self, number: int) -> None:
        """A ticket needs nobody any more."""
        self._kept = {worker: kept for worker, kept in self._kept.items() if kept != number}

    def let_go(self, worker: int) -> None:
        """A worker was lost, or will be."""
        self._kept.pop(worker, None)
