"""Producers that outlive a call: the pool of one `rayfeed.Trainer`, handed from each of its calls to the next.

A call that asks for what the last one had gets that call's processes, whatever its source. They are replaced when the
demand is another, when some were lost beyond their restarts, and when one still runs user code of the call before: a
process that hangs there would hold up the new one for ever.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from rayfeed.errors import FeedClosedError
from rayfeed.options import ProducerOptions
from rayfeed.producer.cluster import ensure_ray
from rayfeed.producer.placement import producer_claim
from rayfeed.producer.pool import Pool
from rayfeed.queue.conductor import Conductor

SETTLE_TIMEOUT_S = 5.0
"""How long a call waits for what the one before left unfinished: starting other producers takes no longer."""


@dataclass(frozen=True)
class Demand:
    """What a call wants of its pool; pools of equal demand can take each other's place.

    Attributes:
        num_producers: Processes, at most.
        num_threads: Threads of each.
        options: What each process needs.
        least: Processes at the start and always, where their number follows the consumer's waiting.
    """

    num_producers: int
    num_threads: int
    options: ProducerOptions
    least: int | None = None


class Keeper:
    """Keeps one pool, with its conductor. One thread asks for it; any thread may close.

    Args:
        knows_sources: Whether producers keep a Sequence for a later call that sends the same bytes; that costs looking
            at all of them.

    Attributes:
        is_closed: Whether it gives no pool any more.
    """

    def __init__(self, *, knows_sources: bool = True) -> None:
        self.knows_sources = knows_sources
        self.is_closed = False
        self._changing = threading.Lock()
        self._closing = threading.Lock()
        self._demand: Demand | None = None
        self._conductor: Conductor | None = None

    def conductor(self, demand: Demand) -> Conductor:
        """The conductor of a pool as demanded, running and without streams.

        Raises:
            PlacementError: No node could ever hold a producer.
            FeedClosedError: The keeper was closed.
        """
        with self._changing:
            kept, self._conductor = self._conductor, None
        if kept is not None and not (
            demand == self._demand and kept.is_usable() and kept.settle(SETTLE_TIMEOUT_S) and kept.is_usable()
        ):
            kept.close()
            kept = None
        conductor = kept or _started(demand)
        with self._changing:
            if not self.is_closed:
                self._demand, self._conductor = demand, conductor
                return conductor
        conductor.close()
        raise FeedClosedError("this trainer was closed while a call began: open a new one.")

    def close(self) -> None:
        """End the producers and wait until they are gone; may be called twice, and then waits as well."""
        with self._closing:
            with self._changing:
                self.is_closed = True
                kept, self._conductor = self._conductor, None
            if kept is not None:
                kept.close()


def _started(demand: Demand) -> Conductor:
    ensure_ray()
    claim = producer_claim(demand.options, demand.num_producers)
    conductor = Conductor(
        lambda post: Pool(
            num_producers=demand.num_producers,
            least=demand.least,
            num_threads=demand.num_threads,
            claim=claim,
            options=demand.options,
            post=post,
        )
    )
    try:
        conductor.start()
    except BaseException:  # Ctrl-C, above all: some producers were asked for
        conductor.close()
        raise
    return conductor
