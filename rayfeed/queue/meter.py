"""How long a stream's consumer waits, and what it is given."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Waiting:
    """How long the consumer has waited. Its thread writes, the conductor's reads."""

    past_s: float = 0.0
    since: float | None = None

    def begin(self, now: float) -> None:
        """The consumer begins to wait."""
        self.since = now

    def end(self, now: float) -> None:
        """It waits no more."""
        since, self.since = self.since, None
        self.past_s += now - (since if since is not None else now)

    def total_s(self) -> float:
        """All of it, also of a wait that goes on."""
        since = self.since
        return self.past_s + (time.perf_counter() - since if since is not None else 0.0)


class Meter:
    """The consumer's own figures: batches, bytes and waiting."""

    def __init__(self) -> None:
        self.opened = time.perf_counter()
        self.batches = self.bytes = 0
        self.wait_s = self.first_wait_s = 0.0

    def waited(self, seconds: float) -> None:
        """Count time without a batch."""
        self.wait_s += seconds
        if self.batches == 0:
            self.first_wait_s += seconds

    def delivered(self, num_bytes: int) -> None:
        """Count a batch."""
        self.batches += 1
        self.bytes += num_bytes

    def run_s(self) -> float:
        """Seconds since the stream was opened."""
        return time.perf_counter() - self.opened
