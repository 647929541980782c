"""What a conductor drives: those who make the batches of its streams, wherever they are.

`Pool` has them in actors over the cluster; `HomePool` has one, a thread of the caller's process. A member has a number,
its *worker*; a replacement has the same number and a new *life*, so that news of the dead one cannot be taken for news
of the living.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from rayfeed.producer.messages import Answer, At, Opened, SourceRecord, Ticket


@dataclass(frozen=True)
class Up:
    """A member took its place and answers.

    Attributes:
        worker: Which.
        life: In which of its lives.
        opened: Its process; None for a thread of the caller's.
    """

    worker: int
    life: int
    opened: Opened | None


@dataclass(frozen=True)
class Down:
    """A member's process is gone, or never came."""

    worker: int
    life: int
    error: BaseException


@dataclass(frozen=True)
class Stands:
    """A member has told what it makes.

    Attributes:
        worker: Which.
        places: Where each of its threads stands.
    """

    worker: int
    places: tuple[At, ...]


CrewEvent = Up | Down | Stands

OnDone = Callable[[int, Answer | None, BaseException | None], None]
"""Takes the life of the member that held a ticket, and its answer or the machinery's error; from any thread."""


class Crew(Protocol):
    """Makes batches for any number of streams. Used by one thread, its conductor's, but for `start`, `store`, `fetch`.

    Attributes:
        num_threads: Batches that each member makes at a time.
        num_lost: Members lost so far.
        span: The least and the most members there may be.
        batch_timeout_s: How long a ticket may take before the consumer is told.
        can_replace: Whether a member may be replaced.
    """

    num_threads: int
    num_lost: int
    span: tuple[int, int]
    batch_timeout_s: float
    can_replace: bool

    def start(self) -> None:
        """Ask for all members; they report by `Up` as they come. Called once."""
        ...

    def store(self, value: Any) -> Any:
        """Put an object where the members find it; of a `Payload`, what `submit` takes as its state."""
        ...

    def fetch(self, stored: Any) -> Any:
        """What was put there; its arrays are read-only views."""
        ...

    def submit(self, worker: int, ticket: Ticket, record: SourceRecord, state: Any, on_done: OnDone) -> None:
        """Send a ticket to a member that works; `on_done` is told of its end, once."""
        ...

    def close_stream(self, stream: int) -> None:
        """Let members that work forget a stream's source."""
        ...

    def on_up(self, event: Up) -> bool:
        """Take note of a member that came; False if it is of an earlier life."""
        ...

    def on_down(self, event: Down, making: str) -> bool:
        """Take note of a lost member and replace it while its restarts last; False if it is of an earlier life.

        Args:
            event: The news.
            making: What it was making, for messages; empty where it was idle.
        """
        ...

    def is_worth_asking(self, event: Down) -> bool:
        """Whether a member that a call did not reach may be asked again: it has not been replaced, and only a moment
        has passed.
        """
        ...

    def num_members(self) -> int:
        """Members that work or are waited for."""
        ...

    def num_starting(self) -> int:
        """Members that were asked for and are not there yet."""
        ...

    def grow(self, number: int) -> None:
        """Ask for so many members more, up to the most."""
        ...

    def retire(self, worker: int) -> None:
        """Give back a member that has nothing in its hands; it may be asked for again."""
        ...

    def renew(self) -> None:
        """A new call begins: restarts, and the deadline for starting, count from here."""
        ...

    def look(self, needed: Collection[int]) -> str | None:
        """What is due by the clock: replacements that were put off, and the deadline for starting.

        Args:
            needed: Members whose work no other can do: each runs a generator's copy. Of the rest any one will do.

        Returns:
            What the consumer is to be told of members that wait for their places.

        Raises:
            PlacementError: A member's deadline for starting has passed, and the streams need it.
        """
        ...

    def draining(self) -> list[int]:
        """Members that work on a node that will go."""
        ...

    def ask(self, worker: int) -> None:
        """Have it reported, as `Stands`, which batches a member makes; not where it cannot be reached."""
        ...

    def node(self, worker: int) -> str:
        """The node of a member that works, as Ray names it."""
        ...

    def hangs(self, worker: int, waited_s: float) -> Down | None:
        """The news that a member has not answered for so long; None where it cannot be replaced."""
        ...

    def is_connected(self) -> bool:
        """Whether the members can still be reached at all."""
        ...

    def processes(self) -> list[Opened]:
        """The processes of the members that take tickets now; any thread may ask."""
        ...

    def working(self) -> list[int]:
        """The members that take tickets now."""
        ...

    def gone(self) -> dict[int, str]:
        """The members that were lost and may not be replaced now, and what is said of that."""
        ...

    def describe(self, worker: int) -> str:
        """A member's number and place, for messages."""
        ...

    def rest(self) -> None:
        """Have the members that work finish the batches in their hands, where that takes no longer than a moment."""
        ...

    def close(self) -> None:
        """End every member and wait until it is gone; they rest first, if they have not."""
        ...
