"""Which tickets take too long (contract F6): told, made elsewhere too, and at last taken from a producer that hangs.

What a worker makes are the first of the tickets it holds, one for each of its threads. A ticket's time counts from the
look at which it was first seen among them: to a second or so, and not the time it waited behind others. A ticket may be
for many batches: where one takes long its worker is asked which it is at (`stands`), and the time of that batch counts.
Of one that takes

    PATIENCE times what is usual, and LEAST_S      an idle worker makes it as well, and what waits behind it; the first
                                                   answer counts. If that one takes as long, so does a third, and so on,
                                                   with twice the patience each time
    `ProducerOptions.batch_timeout_s`              the consumer is told, and again each time that has doubled
    HANGS times that                               its producer is taken for lost: killed, and replaced

The first of these needs no word: making a Sequence's batch twice is free where someone is idle. It is what keeps the
stream flowing when a node is cut off, which Ray notices only after a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rayfeed.producer.messages import At, Ticket
from rayfeed.queue.window import Window

PATIENCE = 20.0
"""Times what is usual: batches differ, and processes wait for each other."""

LEAST_S = 3.0
"""Two looks and more: a pause of the machine is no reason."""

HANGS = 10.0
"""Times the timeout."""


@dataclass(frozen=True)
class Slow:
    """A batch that takes long, or a ticket of which it is not known which batch does.

    Attributes:
        worker: Who makes it.
        ticket: The ticket, for that batch alone where it is known.
        waited_s: For how long it has been made.
    """

    worker: int
    ticket: Ticket
    waited_s: float


@dataclass(frozen=True)
class Found:
    """What one look found.

    Attributes:
        slow: What the consumer should be told.
        hanging: Workers that should be taken for lost, with how long they have been at it.
        asked: Workers of whom it is to be found out which batch they make.
    """

    slow: list[Slow] = field(default_factory=list)
    hanging: dict[int, float] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)


class Watchdog:
    """Looks at one window again and again; has no clock.

    Args:
        timeout_s: Seconds after which a ticket is told of.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: dict[tuple[int, int, int], float] = {}  # (worker, ticket, attempt) -> first seen in the making
        self._offsets: dict[tuple[int, int, int], int] = {}  # which batch of it, where that is known
        self._tell_at_s: dict[tuple[int, int, int], float] = {}

    def stands(self, worker: int, at: At, now: float) -> None:
        """A worker has told which batch it makes.

        Args:
            worker: Who.
            at: Where it stands.
            now: Seconds, of the clock of `look`.
        """
        key = worker, at.number, at.attempt
        if key in self._since:
            if self._offsets.get(key) != at.offset:
                self._tell_at_s[key] = self._timeout_s
            self._offsets[key] = at.offset
            self._since[key] = max(now - at.seconds, self._since[key])

    def look(self, window: Window, now: float) -> Found:
        """Look at what is in the making; what takes too long is suspected, for `Window.issue` to give out again.

        Args:
            window: Always the same.
            now: Seconds.
        """
        making = [
            (worker, *ticket)
            for worker, slots in window.workers.items()
            for ticket in list(window.held[worker])[:slots]
        ]
        self._since = {key: self._since.get(key, now) for key in making}
        self._offsets = {key: self._offsets[key] for key in making if key in self._offsets}
        self._tell_at_s = {key: self._tell_at_s.get(key, self._timeout_s) for key in making}
        found = Found()
        for key, since in self._since.items():
            worker, number, _ = key
            waited_s = now - since
            if waited_s >= HANGS * self._timeout_s:
                found.hanging[worker] = waited_s
            state = window.issued.get(number)
            if state is None or state.done:  # made elsewhere meanwhile; what waits behind it waits on
                if waited_s >= self._patience_s(window, 1):
                    self._suspect_all(window, worker)
                continue
            ticket = state.ticket
            if len(ticket.indices) > 1 and waited_s >= min(LEAST_S, self._timeout_s / 2):
                found.asked.add(worker)
            if key in self._offsets:
                ticket = ticket.only(self._offsets[key])
            if waited_s >= self._tell_at_s[key]:
                self._tell_at_s[key] = 2 * waited_s
                found.slow.append(Slow(worker, ticket, waited_s))
            if waited_s >= self._patience_s(window, len(ticket.indices)) * 2 ** (len(state.holders) - 1):
                self._suspect_all(window, worker)
        return found

    @staticmethod
    def _suspect_all(window: Window, worker: int) -> None:
        for held in window.held[worker]:
            window.suspect(*held)

    def _patience_s(self, window: Window, num_batches: int) -> float:
        usual_s = window.sizer.usual_s()
        if usual_s is None:  # this may be a source that takes long to open
            return self._timeout_s
        return min(self._timeout_s, max(LEAST_S, PATIENCE * usual_s * num_batches))
