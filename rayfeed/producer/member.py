"""One producer of a pool, in its current life: its actor, and the two calls by which the pool hears of it."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rayfeed.producer.crew import CrewEvent, Down, Stands, Up
from rayfeed.producer.failed_call import is_cut
from rayfeed.producer.messages import Opened
from rayfeed.producer.restarts import Restarts

LATELY_S = 30.0
"""A producer that was out of reach longer ago than this has been within reach since."""


class State(Enum):
    """Where a producer stands."""

    WAITING = "waiting"
    WORKING = "working"
    GONE = "gone"
    DORMANT = "dormant"


@dataclass
class Member:
    """One producer.

    Attributes:
        worker: Its number.
        restarts: How often it may be replaced, and how soon.
        life: Counts its replacements.
        state: Where it stands.
        since: When it began to wait for its place.
        due: When its replacement may start; of one that is gone, when it may be replaced again.
        actor: The handle; None where there is none.
        held: The call that is never answered, and fails when the process ends.
        opening: The call that is answered when the process is up.
        opened: Its answer.
        node_id: The node it is asked for, or is on; when it was ended, the last one. None where it is not known.
        told: Stream -> the version of its source that this life was told.
        cut: The first and the last time of late that a call did not reach it.
    """

    worker: int
    restarts: Restarts
    life: int = 0
    state: State = State.WAITING
    since: float = 0.0
    due: float | None = None
    actor: Any = None
    held: concurrent.futures.Future[Any] | None = None
    opening: concurrent.futures.Future[Any] | None = None
    opened: Opened | None = None
    node_id: str | None = None
    told: dict[int, int] = field(default_factory=dict)
    cut: tuple[float, float] | None = None

    def __str__(self) -> str:
        place = f" (node {self.opened.node}, pid {self.opened.pid})" if self.opened is not None else ""
        return f"producer {self.worker}{place}"

    def launch(self, actor: Any, node_id: str | None, post: Callable[[CrewEvent], None]) -> None:
        """Begin this life with an actor that was just asked for, on this node if it has a place."""
        self.node_id = node_id
        self.state, self.opened, self.since, self.due = State.WAITING, None, time.monotonic(), None
        self.told, self.cut, self.actor = {}, None, actor
        # The holding call goes first: a producer that dies while it opens is reported by it, once.
        self.hold(post)
        self.open(post)

    def came(self, opened: Opened | None) -> None:
        """It has its place, and takes tickets."""
        self.state, self.opened, self.opening = State.WORKING, opened, None
        self.node_id = opened.node_id if opened is not None else None

    def let_go(self, state: State) -> None:
        """Forget the actor and the calls; it was ended, or is to be."""
        self.state, self.actor, self.held, self.opening = state, None, None, None

    def hold(self, post: Callable[[CrewEvent], None]) -> None:
        """Have the process' end reported, as `Down`."""
        worker, life = self.worker, self.life

        def on_gone(future: concurrent.futures.Future[Any]) -> None:
            error = future.exception()
            if error is not None:
                post(Down(worker, life, error))

        held: concurrent.futures.Future[Any] = self.actor.hold.remote().future()
        held.add_done_callback(on_gone)
        self.held = held

    def open(self, post: Callable[[CrewEvent], None]) -> None:
        """Have it reported that the process is up, as `Up`."""
        worker, life = self.worker, self.life

        def on_open(future: concurrent.futures.Future[Any]) -> None:
            if future.exception() is None:
                post(Up(worker, life, future.result()))

        opening: concurrent.futures.Future[Any] = self.actor.open.remote().future()
        opening.add_done_callback(on_open)
        self.opening = opening

    def ask(self, post: Callable[[CrewEvent], None]) -> None:
        """Have it reported which batches it makes, as `Stands`, if it answers."""
        worker = self.worker

        def on_told(future: concurrent.futures.Future[Any]) -> None:
            if future.exception() is None:  # its end is told by `hold`
                post(Stands(worker, future.result()))

        self.actor.standing.remote().future().add_done_callback(on_told)

    def was_not_heard(self) -> bool:
        """Whether the answer that it is up was lost on its way."""
        opening = self.opening
        return (
            self.state is State.WAITING
            and self.actor is not None
            and opening is not None
            and opening.done()
            and is_cut(opening.exception())
        )

    def note_cut(self, now: float, post: Callable[[CrewEvent], None]) -> float:
        """A call did not reach it, or its answer did not come: for how many seconds that has happened of late."""
        if self.cut is None or now - self.cut[1] > LATELY_S:
            self.cut = now, now
        self.cut = self.cut[0], now
        self.told.clear()  # what it was told may be what did not reach it
        if self.held is not None and self.held.done():
            self.hold(post)
        return now - self.cut[0]
