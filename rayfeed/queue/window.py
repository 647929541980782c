"""The bounded queue, as a state machine without I/O.

The window of outstanding tickets and unconsumed batches *is* the queue: no ticket is issued beyond the bound, so what
producers make always has a place. Events go in (`worker_ready`, `worker_lost`, `answered`, `consumed`), instructions
come out (`issue`: tickets for workers; `deliver`: what the consumer may have now). The driver carries them out.

A ticket answered once is done; every later answer to it is dropped. That is the whole of exactly-once delivery: a lost
worker's tickets are issued again elsewhere, and the first answer wins.

This file holds what both kinds of stream share; `sequence_window` and `lane_window` say which tickets there are and in
which order their batches are delivered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from rayfeed.errors import InternalError
from rayfeed.producer.messages import Ticket
from rayfeed.queue.alone import Alone
from rayfeed.queue.bound import Bound
from rayfeed.queue.deliveries import Delivery
from rayfeed.queue.sizer import Sizer

DEPTH = 2
"""Tickets a worker's thread holds: one being made, one waiting, which hides the way between feed and producer."""

DEADLY = 3
"""Workers lost while they made the same ticket, the last of them nothing else, after which it is taken for the reason.
With one worker its restarts (`ProducerOptions.max_restarts`) would be used up by the next."""


@dataclass
class Issued:
    """A ticket that is out or answered, until all its batches were handed over.

    Attributes:
        ticket: In its newest attempt.
        holders: Workers that hold an attempt of it.
        payload: The first answer's payload, once there is one.
        num_batches: Batches in that answer.
        num_taken: Of these, batches handed over already.
        ended: Whether the answer was the stream's end.
        failure: The answer's error, if it had one.
        deaths: Workers that were lost while they made it.
    """

    ticket: Ticket
    holders: set[int] = field(default_factory=set)
    done: bool = False
    payload: Any = None
    num_batches: int = 0
    num_taken: int = 0
    ended: bool = False
    failure: Any = None
    deaths: int = 0


class Window(ABC):
    """What both kinds of window do.

    Args:
        stream: The stream's number, for its tickets.
        bound: How many finished batches, and bytes, may wait.
    """

    MAY_IDLE: ClassVar[bool]
    """Whether a worker may be without a ticket for a while: not where its batches can be made by no other."""

    def __init__(self, *, stream: int, bound: Bound) -> None:
        self.stream = stream
        self.bound = bound
        self.sizer = Sizer()
        self.issued: dict[int, Issued] = {}
        self.lost: set[int] = set()  # tickets that nobody holds any more
        self.suspected: set[int] = set()  # tickets whose holder may never answer
        self.leaving: set[int] = set()  # workers that are given nothing more
        self.alone = Alone()
        self.workers: dict[int, int] = {}  # worker -> slots
        self.nodes: dict[int, str] = {}  # worker -> its node
        self.held: dict[int, dict[tuple[int, int], None]] = {}  # worker -> (ticket, attempt) that it holds, in order
        self.newest: dict[int, int] = {}  # worker -> number of the ticket it was given last
        self.outstanding = 0
        self.num_made = self.num_consumed = self.num_discarded = self.num_handed_over = self.num_remade = 0
        self.over = False
        self._numbers = 0

    # Events

    def worker_ready(self, worker: int, slots: int, node: str = "") -> None:
        """A producer takes tickets from now on, `slots` at a time, on this node."""
        if worker in self.workers:
            raise InternalError(f"worker {worker} became ready twice without being lost")
        self.workers[worker] = slots
        self.nodes[worker] = node
        self.held[worker] = {}

    def breaks(self, worker: int) -> bool:
        """Whether batches are lost with this worker, which no other can make."""
        return False

    def worker_lost(self, worker: int, *, died: bool = True) -> list[Ticket]:
        """A producer is gone.

        Args:
            worker: Which.
            died: Whether what it made may be the reason; not where it was only out of reach.

        Returns:
            Its unanswered tickets, which `issue` will give out again; those that it was making batch by batch, if any
            worker may make them.
        """
        self.leaving.discard(worker)
        self.alone.let_go(worker)
        slots = self.workers.pop(worker, 0)
        orphans: list[Ticket] = []
        for place, (number, attempt) in enumerate(self.held.pop(worker, {})):
            state = self.issued.get(number)
            if state is None or state.done:
                continue
            is_reason = died and place < slots  # the others waited for their turn
            state.deaths += is_reason
            state.holders.discard(worker)
            if not state.holders:
                self.num_remade += 1
                self.suspected.discard(number)
                parts = self._parts(state) if is_reason and len(state.ticket.indices) > 1 else [state.ticket]
                self.lost.update(part.number for part in parts)
                orphans += parts
            elif attempt == state.ticket.attempt:  # who is left was suspected before
                self.suspect(number, attempt)
        return orphans

    def holds(self, worker: int, ticket: Ticket) -> bool:
        """Whether a worker, in its present life, still owes this attempt."""
        return (ticket.number, ticket.attempt) in self.held.get(worker, {})

    def making(self, worker: int) -> list[Ticket]:
        """The tickets that a worker makes now: those that it was given first."""
        held = list(self.held.get(worker, ()))[: self.workers.get(worker, 0)]
        states = [self.issued.get(number) for number, _ in held]
        return [state.ticket for state in states if state is not None and not state.done]

    def deadly(self) -> Ticket | None:
        """A ticket that no worker should be given any more: it was being made each time too many were lost."""
        return next(
            (self.issued[number].ticket for number in sorted(self.lost) if self.issued[number].deaths >= DEADLY), None
        )

    def answered(
        self,
        worker: int,
        ticket: Ticket,
        *,
        payload: Any,
        num_batches: int,
        num_bytes: int = 0,
        seconds: float = 0.0,
        ended: bool = False,
        failure: Any = None,
    ) -> bool:
        """A producer answered a ticket.

        Returns:
            Whether this is the ticket's first answer; a later one is to be dropped.
        """
        # The attempt tells a late answer of a worker's earlier life from the one its replacement still owes.
        self.held.get(worker, {}).pop((ticket.number, ticket.attempt), None)
        state = self.issued.get(ticket.number)
        if state is None or state.done:
            return False
        missing = len(ticket.indices) - num_batches
        if missing < 0 or (missing and not ended and failure is None):
            raise InternalError(f"{num_batches} batches answer a ticket for {len(ticket.indices)} ({ticket})")
        state.holders.discard(worker)
        state.done, state.payload, state.num_batches = True, payload, num_batches
        state.ended, state.failure = ended, failure
        self.lost.discard(ticket.number)  # answered late by a worker taken for lost: no need to make it again
        self.suspected.discard(ticket.number)
        self.alone.is_done(ticket.number)
        self.outstanding -= missing
        self.num_made += num_batches
        self.sizer.observe(num_batches=num_batches, num_bytes=num_bytes, seconds=seconds)
        self._on_done(state)
        return True

    def consumed(self, num_batches: int) -> None:
        """The consumer has taken this many of the delivered batches."""
        self.num_consumed += num_batches
        self.outstanding -= num_batches

    # Instructions

    def issue(self) -> Iterator[tuple[int, Ticket]]:
        """Tickets to send now, with the worker each goes to."""
        while not self.over:
            again = self._again()
            if again is not None:
                worker, state = again
                state.ticket = replace(state.ticket, attempt=state.ticket.attempt + 1)
            else:
                ticket = self._next_ticket(self._room())
                if ticket is None:
                    return
                worker = self._worker_for(ticket)
                if worker is None:
                    raise InternalError(f"a ticket was made that no worker takes ({ticket})")
                state = Issued(ticket)
                self.issued[ticket.number] = state
                self.outstanding += len(ticket.indices)
            state.holders.add(worker)
            self.held[worker][state.ticket.number, state.ticket.attempt] = None
            self.newest[worker] = state.ticket.number
            yield worker, state.ticket

    def _again(self) -> tuple[int, Issued] | None:
        """A ticket that is to be made again, and by whom. Earliest lost ones first, then those that are suspected."""
        for number in sorted(self.lost, key=self._place_of):
            state = self.issued[number]
            is_alone = self.MAY_IDLE and state.deaths == DEADLY - 1
            worker = self.alone.worker_for(number, self._staying()) if is_alone else self._worker_for(state.ticket)
            if worker is not None:
                self.lost.remove(number)
                return worker, state
        for number in sorted(self.suspected, key=self._place_of):
            state = self.issued[number]
            # What keeps one worker of a node from answering may keep them all: others first.
            nodes = {self.nodes[holder] for holder in state.holders}
            idle = [worker for worker, held in self._staying().items() if not held and worker not in self.alone]
            worker = min(idle, key=lambda worker: (self.nodes[worker] in nodes, worker), default=None)
            if worker is not None:
                self.suspected.remove(number)
                self.num_remade += 1
                return worker, state
        return None

    def _place_of(self, number: int) -> tuple[int, int, int]:
        """Where a ticket's batches come in the stream."""
        ticket = self.issued[number].ticket
        return ticket.pass_index, ticket.first, number

    def suspect(self, number: int, attempt: int) -> None:
        """The holder of a ticket's newest attempt may never answer: an idle worker, if there is one, makes it as well.

        Only where any worker can make it.
        """
        state = self.issued.get(number)
        if not self.MAY_IDLE or state is None or state.done or not state.holders:
            return
        if attempt == state.ticket.attempt:  # the attempts before were suspected in their time
            self.suspected.add(number)

    def leave(self, worker: int) -> None:
        """A worker's node will go: it finishes what it holds and gets nothing more."""
        if worker in self.workers:
            self.leaving.add(worker)
            self.alone.let_go(worker)

    @abstractmethod
    def deliver(self) -> Iterator[Delivery]:
        """What the consumer gets next, as far as it is there. Each thing is given out once."""

    # For the two kinds

    @abstractmethod
    def _next_ticket(self, room: int) -> Ticket | None:
        """The next new ticket for at most `room` batches, when a worker is free for it; else None."""

    @abstractmethod
    def _on_done(self, state: Issued) -> None:
        """A ticket got its first answer."""

    @abstractmethod
    def _worker_for(self, ticket: Ticket) -> int | None:
        """The worker that should take the ticket now, or None."""

    def _parts(self, state: Issued) -> list[Ticket]:
        """Tickets that take the place of one during which its worker died."""
        return [state.ticket]

    def _new_number(self) -> int:
        self._numbers += 1
        return self._numbers - 1

    @property
    def slots(self) -> int:
        """Batches that can be made at one time."""
        return sum(self.workers.values())

    @property
    def limit(self) -> int:
        """Batches that may be outstanding."""
        return self.bound.limit(self.slots, self.sizer.bytes_per_batch)

    def _room(self) -> int:
        """Batches the next ticket may hold; 0 when it should wait."""
        limit = self.limit
        if (room := limit - self.outstanding) < 1:
            return 0
        size = self.sizer.count(bound=limit, slots=self.slots, may_idle=self.MAY_IDLE)
        # A crumb would cost a whole object's control work: wait for a ticket's worth of room while others are out.
        if room < size and any(not state.done for state in self.issued.values()):
            return 0
        return max(0, min(size, room))

    def _free(self, worker: int) -> bool:
        may = worker not in self.leaving and worker not in self.alone
        return may and len(self.held.get(worker, ())) < DEPTH * self.workers.get(worker, 0)

    def _staying(self) -> dict[int, dict[tuple[int, int], None]]:
        """What the workers hold that may get more."""
        return {worker: held for worker, held in self.held.items() if worker not in self.leaving}
