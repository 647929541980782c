"""A generator's newest answers, kept in its producer because they may not arrive (contract F2).

A call whose connection broke is made again, and a generator cannot be turned back: its ticket is then answered as the
first time. The call that broke may still be under way in another thread, so that one ticket at a time is looked up,
made and noted.

An answer shares the memory of large arrays with the source until Ray has written it to the object store. A source that
fills the same array for every batch writes into the answer that is kept: its batches are copied, from the second on.
The first one cannot be given again then, and is `Forgotten`.

    made, kept ------> asked for again: given again
    first of a source that fills one array, or older than those kept ------> `Forgotten`
    a ticket that came before its turn, as the call before it broke -------> `OutOfTurn`
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from rayfeed.frame.layout import Frame
from rayfeed.producer.messages import Answer, Forgotten, OutOfTurn, Ticket


class Answers:
    """Those of one copy of a generator.

    Args:
        most: How many are kept: as many as may be asked for at once.

    Attributes:
        lock: Held from the look at a ticket to the note of its answer.
        refills: Whether the source was seen to fill again the memory of a batch that is kept.
    """

    def __init__(self, most: int) -> None:
        self.lock = threading.Lock()
        self.refills = False
        self._most = most
        self._kept: dict[int, Answer] = {}  # by their tickets' numbers, oldest first
        self._shared: list[np.ndarray] = []  # the newest one's arrays whose memory is the source's
        self._next_place: int | None = None
        self._refused: set[int] = set()

    def known(self, ticket: Ticket) -> Answer | None:
        """What a ticket is answered without a batch being made; None where its batches are to be made."""
        if ticket.number in self._kept:
            return self._kept[ticket.number]
        if self._next_place is None or ticket.first == self._next_place:
            return None
        if ticket.first < self._next_place:
            return Forgotten()
        if ticket.number in self._refused:  # what is missing was answered by the copy before this one
            return None
        self._refused.add(ticket.number)
        return OutOfTurn()

    def look_at(self, arrays: Sequence[np.ndarray]) -> None:
        """See whether a batch that was just made lies where the newest answer's does: that one is spoilt then."""
        if any(np.may_share_memory(array, kept) for array in arrays for kept in self._shared):
            self.refills = True
            self._shared = []
            if self._kept:
                del self._kept[next(reversed(self._kept))]

    def keep(self, ticket: Ticket, answer: Answer, frame: Frame | None, arrays: Sequence[np.ndarray]) -> None:
        """Note an answer.

        Args:
            ticket: What it answers.
            answer: The answer.
            frame: What was laid out for it, uncompressed; None where there was no batch.
            arrays: Of the last batch in it.
        """
        self._next_place = ticket.first + len(ticket.indices)
        if not self._most:
            return
        self._kept[ticket.number] = answer
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        self._shared = []
        if frame is not None and not frame.codec and not self.refills:
            owned = [column.layout == "own" for column in frame.columns]
            self._shared = [array for array, is_own in zip(arrays, owned, strict=True) if is_own]
