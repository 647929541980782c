"""Answers for which there was no room, neither in the object store nor on the disk behind it.

Others may fill both for a while, and let go of them again: the tickets are sent again after a pause, the consumer is
told once, and only a state that lasts is an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rayfeed.errors import StoreFullError
from rayfeed.producer.messages import Ticket

LASTS_S, LEAST_TRIES = 60.0, 5
"""How long, and how often in a row, there may be no room at all. Ray itself waits for seconds before it says so."""

TO_DO = (
    "Free what other jobs hold in Ray's object store, or disk space where Ray keeps its session (/tmp/ray), lower "
    "max_queue_size or max_queue_bytes, or start Ray with a larger object_store_memory."
)


class Fullness:
    """For how long no answer had room. Used by one thread.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._tries = 0
        self._told = False

    def had_room(self) -> None:
        """An answer came."""
        self._since, self._tries = None, 0

    def had_none(self, ticket: Ticket, described: str, reason: str) -> str | None:
        """An answer had no room.

        Args:
            ticket: What it answers.
            described: Who made it.
            reason: What Ray said.

        Returns:
            What the consumer is to be told, once.

        Raises:
            StoreFullError: That has lasted too long.
        """
        now = self._clock()
        self._since = self._since if self._since is not None else now
        self._tries += 1
        text = f"there is no room for {ticket} of {described}: {_first_line(reason)}"
        if now - self._since >= LASTS_S and self._tries >= LEAST_TRIES:
            raise StoreFullError(f"{text}\n  For {now - self._since:.0f} s no batch had room. {TO_DO}")
        if self._told:
            return None
        self._told = True
        return f"{text}\n  It is asked for again until there is room, for {LASTS_S:.0f} s at most. {TO_DO}"


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
