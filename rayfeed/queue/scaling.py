"""How many producers a call has, where it was asked to find out: ``workers="auto"`` or ``(min, max)`` (contract C12).

What counts is whether the consumer waits, not how busy the machines are. At every look of the conductor's:

    the consumer waited for more than WAITED of the time,
    and every producer has work, and none is starting       -> half as many again, up to the most
    nobody waited, and SPARE producers or more had nothing
    to do, at each of the last PATIENCE looks               -> one less, down to the least

One producer with nothing to do is kept: it is the margin by which the others are enough. A producer is given back only
while it has nothing in its hands, so that nothing is made twice for it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from rayfeed.producer.crew import Crew
from rayfeed.queue.stream import StreamState

WAITED = 0.05
"""Share of the time that the consumer may wait: less is the cost of taking a batch, not of too few producers."""

SPARE = 2
"""Producers with nothing to do at which one is given back."""

PATIENCE = 8
"""Looks, each a second apart, over which producers must have had nothing to do: a validation's end is no reason."""


@dataclass(frozen=True)
class Look:
    """What was seen since the look before.

    Attributes:
        waited: Share of the time that consumers waited for a batch.
        num_working: Producers that take tickets.
        num_idle: Of these, producers with no ticket.
        num_starting: Producers that are yet to come.
    """

    waited: float
    num_working: int
    num_idle: int
    num_starting: int


@dataclass
class Scaler:
    """Decides from look to look; knows neither producers nor clocks.

    Attributes:
        least: Producers that are always kept.
        most: Producers that there may be.
    """

    least: int
    most: int
    _looks: deque[Look] = field(default_factory=deque)

    def decide(self, look: Look) -> int:
        """Producers to add; negative for producers to give back."""
        self._looks.append(look)
        while len(self._looks) > PATIENCE:
            self._looks.popleft()
        num = look.num_working + look.num_starting
        if look.waited > WAITED and not look.num_idle and not look.num_starting and look.num_working:
            return min(math.ceil(num / 2), self.most - num)
        is_calm = all(one.waited <= WAITED and one.num_idle >= SPARE for one in self._looks)
        if is_calm and len(self._looks) == PATIENCE and num > self.least:
            self._looks.clear()  # what follows is judged by itself
            return -1
        return 0


class Scaling:
    """Applies a scaler's decisions to a crew. Used by the conductor's thread.

    Args:
        crew: The producers.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._scaler = Scaler(*crew.span)
        self._waited_s = 0.0

    def look(self, streams: Collection[StreamState], seconds: float) -> None:
        """Look at streams that run, and add a producer or give one back.

        Args:
            streams: The conductor's.
            seconds: Time since the look before.
        """
        if self._scaler.least == self._scaler.most:
            return
        waited_s = sum(state.waiting.total_s() for state in streams)
        waited, self._waited_s = max(waited_s - self._waited_s, 0.0) / seconds, waited_s
        windows = [state.window for state in streams if state.started]
        working = self._crew.working()
        idle = [worker for worker in working if not any(window.held.get(worker) for window in windows)]
        if not windows or all(window.over for window in windows):
            return
        change = self._scaler.decide(Look(waited, len(working), len(idle), self._crew.num_starting()))
        if change > 0:
            self._crew.grow(change)
        elif change < 0 and idle[-1:] and idle[-1] >= self._scaler.least:  # the first are bound to streams of their own
            for window in windows:
                window.worker_lost(idle[-1])
            self._crew.retire(idle[-1])
