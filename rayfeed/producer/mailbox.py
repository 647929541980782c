"""Between a conductor and the thread at home: tickets wait here until that thread takes them, answers come back.

It lies in the conductor's process. Where that is the caller's too, the thread uses it directly; else by calls to the
trainer's actor. It has a lock, since any thread may call it; what it calls back only posts an event.

    conductor --post--> waiting --take--> thread at home --answer--> on_answer --> conductor
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rayfeed.producer.messages import Answer, Ended, Raised, Run, SourceRecord, Ticket
from rayfeed.source.failure import Failure

NO_RUN = Run(None, 0, 0.0, 0.0, asked=False)
"""No batch, made in no time."""


@dataclass(frozen=True)
class Order:
    """A ticket on its way to the thread at home.

    Attributes:
        key: Names the order among those of all mailboxes, so that an answer that comes too late meets no other.
        ticket: What to make.
        record: The stream's source.
    """

    key: str
    ticket: Ticket
    record: SourceRecord


class Orders(Protocol):
    """The mailbox as the thread at home sees it; that thread alone calls it."""

    def take(self) -> list[Order] | None:
        """The orders that wait; none after a moment without any, and None once no more will come."""
        ...

    def answer(self, order: Order, answer: Answer) -> None:
        """Send an order's batches. The memory of its arrays may be used again afterwards."""
        ...

    def fail(self, failure: Failure) -> None:
        """Tell that this thread makes nothing any more: every order, also those to come, raises this."""
        ...


class Mailbox:
    """See the module's docstring. It is open from the first, until `close`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Order] = []
        self._out: dict[str, Callable[[Answer], None]] = {}
        self._failure: Failure | None = None
        self._is_closed = False

    def post(self, ticket: Ticket, record: SourceRecord, on_answer: Callable[[Answer], None]) -> None:
        """Leave a ticket for the thread at home. Called by the conductor."""
        order = Order(uuid.uuid4().hex, ticket, record)
        with self._changed:
            if self._is_closed:
                return
            failure = self._failure
            if failure is None:
                self._out[order.key] = on_answer
                self._waiting.append(order)
                self._changed.notify_all()
        if failure is not None:
            on_answer(_raised(failure))

    def take(self, timeout_s: float) -> list[Order] | None:
        """The orders that wait, or none after `timeout_s` seconds without any; None once the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed, timeout_s)
            taken, self._waiting = self._waiting, []
            return None if self._is_closed else taken

    def answer(self, key: str, answer: Answer) -> None:
        """Take an order's answer; one that nobody waits for is dropped."""
        with self._changed:
            on_answer = self._out.pop(key, None)
        if on_answer is not None:
            on_answer(answer)

    def fail(self, failure: Failure) -> None:
        """Answer every order with this failure, those to come as well."""
        with self._changed:
            self._failure = self._failure or failure
            out, self._out, self._waiting = self._out, {}, []
        for on_answer in out.values():
            on_answer(_raised(failure))

    def drop_stream(self, stream: int) -> None:
        """Take back the orders of a stream that were not taken yet: they end without a batch."""
        with self._changed:
            dropped = [order for order in self._waiting if order.ticket.stream == stream]
            self._waiting = [order for order in self._waiting if order.ticket.stream != stream]
            told = [self._out.pop(order.key) for order in dropped]
        for on_answer in told:
            on_answer(Ended(NO_RUN))

    def close(self) -> None:
        """Wake the thread at home, for the last time; drop what is on its way. May be called twice."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._out.clear()
            self._changed.notify_all()


def _raised(failure: Failure) -> Raised:
    return Raised(NO_RUN, failure)
