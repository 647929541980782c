"""A crew of one: the thread at home, as a conductor sees it.

The thread may be in this process (`Feed`, ``trainer="driver"``), and is then started and ended here; or in the
caller's, which takes the mailbox's orders by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from rayfeed.errors import InternalError
from rayfeed.producer.crew import CrewEvent, Down, OnDone, Up
from rayfeed.producer.home import HomeThread
from rayfeed.producer.mailbox import Mailbox, Order
from rayfeed.producer.messages import Answer, Opened, SourceRecord, Ticket
from rayfeed.source.failure import Failure

TAKE_TIMEOUT_S = 60.0
"""How long the thread waits for orders before it looks again; `close` wakes it."""


class HomePool:
    """One member, number 0, that is neither lost nor replaced.

    Args:
        mailbox: Where its orders wait.
        sources: The user's objects by their names, to run here; None where another process has and runs them.
        batch_timeout_s: How long a ticket may take before the consumer is told.
        post: Takes events to the conductor.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        sources: Mapping[str, Any] | None,
        batch_timeout_s: float,
        post: Callable[[CrewEvent], None],
    ) -> None:
        self.num_threads = 1
        self.num_lost = 0
        self.span: tuple[int, int] = (1, 1)
        self.batch_timeout_s = batch_timeout_s
        self.can_replace = False
        self._mailbox = mailbox
        self._post = post
        self._thread = HomeThread(LocalOrders(mailbox), sources, shares_memory=True) if sources is not None else None

    def start(self) -> None:
        """Let it take orders."""
        if self._thread is not None:
            self._thread.start()
        self._post(Up(0, 0, None))

    def store(self, value: Any) -> Any:
        """Not for sources that stay at home."""
        raise InternalError("a source at home was to be sent away")

    def fetch(self, stored: Any) -> Any:
        """As above."""
        raise InternalError("a source at home was asked for from afar")

    def submit(self, worker: int, ticket: Ticket, record: SourceRecord, state: Any, on_done: OnDone) -> None:
        """Leave a ticket in the mailbox."""
        self._mailbox.post(ticket, record, lambda answer: on_done(0, answer, None))

    def close_stream(self, stream: int) -> None:
        """Take back what was not begun; the source itself is let go by the thread's end."""
        self._mailbox.drop_stream(stream)

    def num_members(self) -> int:
        """The one."""
        return 1

    def num_starting(self) -> int:
        """None: it is there from the start."""
        return 0

    def grow(self, number: int) -> None:
        """Never: a generator is one stream."""
        raise InternalError("a thread at home was asked for others")

    def retire(self, worker: int) -> None:
        """Never, as above."""
        raise InternalError("the thread at home was given back")

    def on_up(self, event: Up) -> bool:
        """It came."""
        return True

    def on_down(self, event: Down, making: str) -> bool:
        """Never: where its process ends, so does the consumer's."""
        raise InternalError(f"the thread at home was reported lost: {event.error!r}")

    def is_worth_asking(self, event: Down) -> bool:
        """Never, as above."""
        raise InternalError(f"the thread at home was reported cut off: {event.error!r}")

    def renew(self) -> None:
        """There is nothing to count."""

    def look(self, needed: Collection[int]) -> None:
        """It needs no place."""

    def draining(self) -> list[int]:
        """None: where its node goes, so does the caller."""
        return []

    def ask(self, worker: int) -> None:
        """Nothing: what it makes is one batch after the other, and it may be in another process."""

    def node(self, worker: int) -> str:
        """The caller's, whichever that is."""
        return ""

    def hangs(self, worker: int, waited_s: float) -> None:
        """Nobody can end user code in the caller's own process."""

    def is_connected(self) -> bool:
        """Whatever becomes of Ray's connection: where the mailbox is filled from afar, this process ends with it."""
        return True

    def processes(self) -> list[Opened]:
        """None of its own."""
        return []

    def working(self) -> list[int]:
        """The only one."""
        return [0]

    def gone(self) -> dict[int, str]:
        """None."""
        return {}

    def describe(self, worker: int) -> str:
        """Where it is, for messages."""
        return "a thread of the caller's process"

    def rest(self) -> None:
        """Nothing: the thread is told by `close`."""

    def close(self) -> None:
        """End the thread, or the part of it that is here: the mailbox."""
        self._mailbox.close()
        if self._thread is not None:
            self._thread.close()


class LocalOrders:
    """A mailbox of this process, as its thread sees it."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def take(self) -> list[Order] | None:
        return self._mailbox.take(TAKE_TIMEOUT_S)

    def answer(self, order: Order, answer: Answer) -> None:
        self._mailbox.answer(order.key, answer)

    def fail(self, failure: Failure) -> None:
        self._mailbox.fail(failure)
