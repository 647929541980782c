"""Tickets that are out, and those that are asked for again: their connection broke, or there was no room for an answer.

A call whose connection breaks may have been carried out or not. A Sequence's batches are made again elsewhere, as if
the producer were lost. A generator's cannot be, and its producer mostly lives: it keeps its newest answers, so it is
asked for the same tickets again, and gives what it made or makes it now. All that was out has to come back first, and
nothing new goes out before: a generator's batches are made in the order in which they are asked for.

Where there was no room for an answer, whatever its source, its producer is asked again after a pause.
"""

from __future__ import annotations

from collections import Counter

from rayfeed.producer.messages import Ticket


class Asking:
    """What a conductor keeps of its tickets. Used by its thread."""

    def __init__(self) -> None:
        self._out: Counter[int] = Counter()  # worker -> tickets without an answer, those of closed streams included
        self._broken: dict[int, list[tuple[int, Ticket]]] = {}
        self._paused: set[int] = set()

    @property
    def is_idle(self) -> bool:
        """Whether every ticket came back."""
        return not self._out.total()

    def sent(self, worker: int) -> None:
        """A ticket went out."""
        self._out[worker] += 1

    def came_back(self, worker: int) -> None:
        """A ticket was answered, or its call failed."""
        self._out[worker] -= 1

    def broke(self, worker: int, stream: int, ticket: Ticket) -> None:
        """A ticket came back unanswered: a generator's whose connection broke, or any that had no room."""
        self._broken.setdefault(worker, []).append((stream, ticket))

    def pause(self, worker: int) -> None:
        """Ask this producer nothing until `resume`."""
        self._paused.add(worker)

    def resume(self) -> list[int]:
        """The pause is over; the producers that may be asked again."""
        paused, self._paused = sorted(self._paused), set()
        return paused

    def holds_back(self, worker: int) -> bool:
        """Whether a new ticket has to wait for those that broke."""
        return worker in self._broken

    def again(self, worker: int) -> list[tuple[int, Ticket]]:
        """What is to be sent again now, in this order: (stream, ticket). Nothing while others are still out."""
        if self._out[worker] or worker in self._paused:
            return []
        return sorted(self._broken.pop(worker, []), key=lambda found: found[1].number)

    def lost(self, worker: int) -> None:
        """The producer is lost after all: its windows know what that means for the tickets."""
        self._broken.pop(worker, None)
        self._paused.discard(worker)
