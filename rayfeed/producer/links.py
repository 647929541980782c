"""How fast frames come from other machines: measured for each, by some that hold nothing.

Each producer is told its share: what all of those machines can send at once comes in by one link, the consumer's.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rayfeed.producer.failed_call import is_loss
from rayfeed.producer.member import Member

LEAST_BYTES, MOST_BYTES = 1_000_000, 8_000_000
"""Of a probe. The first has the least; the most is what a frame has, mostly."""

PROBE_S = 0.1
"""How long a probe may take, by what those before it took: on a slow link it holds up frames."""

NUM_PROBES = 3
"""The fastest counts: one may have had to wait for a CPU, or behind frames."""


@dataclass
class _Node:
    """What is known of the way from one machine.

    Attributes:
        speeds: Bytes a second, by each probe that came.
        probe: The call that is under way.
        answer: When it came, or why it did not come.
    """

    speeds: list[float] = field(default_factory=list)
    probe: Any = None
    answer: concurrent.futures.Future[float] = field(default_factory=concurrent.futures.Future)

    def look(self, member: Member) -> None:
        """Take what came; ask this producer for the next."""
        if self.probe is not None and self.answer.done():
            error = self.answer.exception()
            if error is None:
                self.speeds.append(self.answer.result())
            elif not is_loss(error):
                raise error
            self.probe = None  # where the producer was lost meanwhile, another is asked
        if self.probe is None and len(self.speeds) < NUM_PROBES:
            self._ask(member)

    def _ask(self, member: Member) -> None:
        num_bytes = min(max(int(PROBE_S * max(self.speeds, default=0.0)), LEAST_BYTES), MOST_BYTES)
        answer: concurrent.futures.Future[float] = concurrent.futures.Future()
        began = time.perf_counter()

        def done(found: concurrent.futures.Future[Any]) -> None:
            error = found.exception()
            if error is None:
                answer.set_result(num_bytes / (time.perf_counter() - began))
            else:
                answer.set_exception(error)

        self.answer = answer
        self.probe = member.actor.probe.remote(num_bytes)
        self.probe.future().add_done_callback(done)

    def speed(self) -> float | None:
        """Bytes a second; None until all probes came."""
        return max(self.speeds) if len(self.speeds) == NUM_PROBES else None


class Links:
    """The links to the machines of one pool's producers. Used by the pool's thread.

    Args:
        here: The consumer's node.
    """

    def __init__(self, here: str) -> None:
        self._here = here
        self._nodes: dict[str, _Node] = {}
        self._told: dict[tuple[int, int], float] = {}

    def look(self, working: Sequence[Member]) -> None:
        """Measure what is not known yet, and tell each producer its share where that has changed.

        Args:
            working: The producers that are up.
        """
        away = {member.node_id: member for member in working if member.node_id not in (None, self._here)}
        for node_id, member in away.items():
            self._nodes.setdefault(node_id or "", _Node()).look(member)
        sharing = [member for member in working if member.node_id in away]
        for member in sharing:
            speed = self._nodes[member.node_id or ""].speed()
            who = (member.worker, member.life)
            if speed is not None and self._told.get(who) != (share := speed / len(sharing)):
                self._told[who] = share
                member.actor.link.remote(share)

    def under_way(self) -> list[Any]:
        """The calls that measure now."""
        return [node.probe for node in self._nodes.values() if node.probe is not None and not node.answer.done()]
