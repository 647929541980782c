"""Sources that stay in the caller's process while the model is in the trainer's (contract D3).

    caller                                        trainer actor
    thread at home ---take_orders------------->   Mailbox <--post-- conductor
                   <--------------- orders ----
          next()   ---answer_order(frame)----->   Mailbox --answer-> conductor --> window

`MailboxHost` is the actor's part, `Home` the caller's. The mailbox is as old as its job: each job opens a new one. The
thread asks for the next orders before it makes those it has, so that their way is hidden behind the making.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray

from rayfeed.producer.failed_call import is_loss
from rayfeed.producer.home import HomeThread
from rayfeed.producer.mailbox import Mailbox, Order
from rayfeed.producer.messages import Answer
from rayfeed.source.failure import Failure
from rayfeed.trainer.lost import answer_of

if TYPE_CHECKING:  # Keras must not be imported before the actor has chosen its backend
    from rayfeed.trainer.messages import Job

TAKE_TIMEOUT_S = 1.0
"""How long a call for orders waits for some, before it answers that there are none."""

NUM_THREADS = 2
"""Of the actor's group "home": one call waits for orders while another brings an answer."""


class MailboxHost:
    """What a trainer actor does for sources at home; all of it in the concurrency group "home"."""

    mailbox: Mailbox | None = None

    @ray.method(concurrency_group="home")
    def open_mailbox(self) -> None:
        """A job with sources at home comes next."""
        self.mailbox = Mailbox()

    @ray.method(concurrency_group="home")
    def take_orders(self) -> list[Order] | None:
        """The orders that wait, none after a moment without any, None when the job is over."""
        return self.mailbox.take(TAKE_TIMEOUT_S) if self.mailbox is not None else None

    @ray.method(concurrency_group="home")
    def answer_order(self, key: str, answer: Answer) -> None:
        """Take an order's batches."""
        if self.mailbox is not None:
            self.mailbox.answer(key, answer)

    @ray.method(concurrency_group="home")
    def fail_orders(self, failure: Failure) -> None:
        """The thread at home has ended by this."""
        if self.mailbox is not None:
            self.mailbox.fail(failure)


class ActorOrders:
    """A trainer actor's mailbox, as the thread at home sees it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._asked: Any = None
        self._sent: list[Any] = []  # answers on their way

    def take(self) -> list[Order] | None:
        asked, self._asked = self._asked or self._actor.take_orders.remote(), None
        try:
            self._check_sent()
            orders: list[Order] | None = ray.get(asked)
        except Exception as error:
            if not is_loss(error):
                raise
            return None  # it is the caller's own thread that reports the trainer's death
        if orders:
            self._asked = self._actor.take_orders.remote()
        return orders

    def answer(self, order: Order, answer: Answer) -> None:
        # The call's arguments are pickled before it returns: the source may use its memory again.
        self._sent.append(self._actor.answer_order.remote(order.key, answer))

    def fail(self, failure: Failure) -> None:
        self._actor.fail_orders.remote(failure)

    def _check_sent(self) -> None:
        """Raise what became of an answer that did not arrive: the trainer would wait for it for ever."""
        if self._sent:
            arrived, self._sent = ray.wait(self._sent, num_returns=len(self._sent), timeout=0)
            ray.get(arrived)


class Home:
    """One job's sources in the caller's process, and the thread that runs them.

    Args:
        actor: The trainer.
        sources: The sources by their names; without any, nothing is started.
    """

    def __init__(self, actor: Any, sources: Mapping[str, Any]) -> None:
        self._actor = actor
        self._thread = HomeThread(ActorOrders(actor), sources, shares_memory=False) if sources else None

    def start(self) -> None:
        """Begin, before the job does.

        Raises:
            Lost: The actor was lost.
        """
        if self._thread is not None:
            answer_of(self._actor.open_mailbox.remote())
            self._thread.start()

    def close(self) -> None:
        """End the thread; one that hangs in user code is left after a while."""
        if self._thread is not None:
            self._thread.close()


def leave_home(job: Job) -> tuple[Job, dict[str, Any]]:
    """Take a job's sources that stay here out of it: the job to send, and those sources by their names."""
    sources: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    for place, spec in (("stream", job.stream), ("validation", job.validation)):
        if spec is not None and spec.is_home:
            sources[spec.name] = spec.source
            changed[place] = replace(spec, source=None)
    return (replace(job, **changed) if changed else job), sources
