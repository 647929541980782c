"""What a job in the trainer has to tell its caller, in order: progress to draw, hooks to run.

The training thread (and Keras' dispatch threads) put; one call at a time of the caller's takes, and waits a moment for
something to take. Each job has an outbox of its own, known by the job's number, so that a call that is still waiting
when its job ends, or comes before its job has begun, never meets another's.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it stands beside the models, and a trainer's process answers before Keras is loaded
    from rayfeed.trainer.messages import Event


GATHER_S = 0.01
"""How long events are gathered into one answer while nobody waits for theirs: an answer can cost as much as a step."""


class Outbox:
    """One job's events.

    Args:
        number: The job's, among those of one trainer.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._events: list[Event] = []
        self._is_urgent = False
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, event: Event) -> None:
        """Add an event."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def flush(self) -> None:
        """The job waits for what the caller makes of the events so far: let them go."""
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Event]:
        """The events since the last call; waits for one, at most so long, and a moment for more, while the job runs."""
        with self._changed:
            if self._changed.wait_for(lambda: self._events or self._is_closed, timeout_s):
                self._changed.wait_for(lambda: self._is_urgent or self._is_closed, GATHER_S)
            events, self._events = self._events, []
            self._is_urgent = False
            return events

    def close(self) -> list[Event]:
        """The job is over: let whoever waits go. Returns the events that nobody has taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        return self.take(0)
