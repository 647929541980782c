"""The window of generators: one lane per copy, each bound to the producer that runs the copy.

A lane's tickets are answered in order. Ordered delivery takes one batch from each lane in turn, skipping lanes that
ended; so place i of lane k stands in the stream at

    position(k, i) = sum over lanes j of min(length of lane j, i + [j < k])

with the length of a running lane taken as endless. A bounded stream (`max_batches`) issues a place only when its
position lies inside the bound: no copy is run further than the stream needs, and a slow lane cannot be starved by a
fast one. Unordered delivery hands answers over as they come.

Where a producer is lost, so is its copy's position in the stream. What follows is the caller's choice (contract F2):
the copy begins anew and makes the lane's next batches, the lane ends there, or the stream does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rayfeed.errors import InternalError
from rayfeed.options import OnGeneratorLoss
from rayfeed.producer.messages import Ticket
from rayfeed.queue.bound import Bound
from rayfeed.queue.deliveries import Deliver, Delivery, StreamEnded, StreamFailed
from rayfeed.queue.window import DEPTH, Issued, Window


@dataclass(frozen=True)
class LanePlan:
    """How generator copies are read.

    Attributes:
        num_lanes: Copies; lane k is run by worker k.
        ordered: Whether batches alternate between lanes in a fixed order.
        max_batches: Batches in all; None for as long as the generators last.
        one_at_a_time: Whether a lane has one ticket out at a time, for producers of several threads.
        on_loss: What becomes of a copy whose producer is lost: "restart", "drop" or "error".
    """

    num_lanes: int = 1
    ordered: bool = True
    max_batches: int | None = None
    one_at_a_time: bool = False
    on_loss: OnGeneratorLoss = "error"


@dataclass
class Lane:
    """One copy of the generator."""

    number: int
    first: int = 0  # the next place to issue
    tickets: deque[int] = field(default_factory=deque)  # issued, not yet wholly handed over, in order
    length: int | None = None  # places, once the copy ended
    closed: bool = False  # it ended or failed: no new tickets

    @property
    def has_begun(self) -> bool:
        """Whether the copy was ever asked for a batch."""
        return self.first > 0


class LaneWindow(Window):
    """Tickets for the copies of a generator; see the module's docstring."""

    MAY_IDLE = False

    def __init__(self, *, stream: int, bound: Bound, plan: LanePlan) -> None:
        super().__init__(stream=stream, bound=bound)
        self.plan = plan
        self.lanes = [Lane(number) for number in range(plan.num_lanes)]
        self._turn = 0  # the lane whose batch comes next
        self._done: deque[int] = deque()  # unordered: tickets in the order of their answers
        self._ended = False

    @property
    def slots(self) -> int:
        """One batch at a time for each copy, whatever the producers' threads.

        Copies whose producer is not there count as well: were the bound to shrink with a lost producer, batches that
        wait for their turn could fill it, and leave no room for the one that is due.
        """
        return len(self.lanes)

    def breaks(self, worker: int) -> bool:
        """Whether losing this worker loses batches: its copy has begun, and not all that is wanted of it was made."""
        if worker >= len(self.lanes) or not self.lanes[worker].has_begun:
            return False
        lane = self.lanes[worker]
        if lane.closed:  # answers may come out of order: the end may be known before all batches are there
            return any(not self._is_past_end(lane, state) for state in self._waited_for(lane))
        return not self._is_made()

    def awaited(self) -> set[int]:
        """Workers that are not there though batches of their copies are wanted: no other worker can make them."""
        return {
            lane.number
            for lane in self.lanes
            if lane.number not in self.workers and not lane.closed and not self._is_complete(lane)
        }

    def answered(self, worker: int, ticket: Ticket, **answer: Any) -> bool:
        """As of every window; but an answer of the copy that was lost does not count once the new one was asked."""
        state = self.issued.get(ticket.number)
        if state is not None and ticket.attempt < state.ticket.attempt:
            self.held.get(worker, {}).pop((ticket.number, ticket.attempt), None)
            return False
        return super().answered(worker, ticket, **answer)

    def drop(self, worker: int) -> None:
        """A producer will be lost, and its copy is not begun anew: its lane ends with what was made."""
        lane = self.lanes[worker]
        for state in self._waited_for(lane):
            self.answered(worker, state.ticket, payload=None, num_batches=0, ended=True)
        if not lane.closed:
            lane.closed, lane.length = True, lane.first

    def is_last(self, worker: int) -> bool:
        """Whether no other copy makes batches any more."""
        return all(lane.closed for lane in self.lanes if lane.number != worker)

    def worker_lost(self, worker: int, *, died: bool = True) -> list[Ticket]:
        """A producer is gone; what it was asked for beyond its copy's end is settled, the rest waits for the next.

        Returns:
            Tickets for the copy that begins anew; none where the loss breaks nothing.
        """
        if self.breaks(worker) and self.plan.on_loss != "restart":
            raise InternalError(f"worker {worker} was lost with the position of its generator, and the stream goes on")
        for lane in self.lanes[worker : worker + 1]:
            for state in self._waited_for(lane):
                if self._is_past_end(lane, state):
                    self.answered(worker, state.ticket, payload=None, num_batches=0, ended=True)
        return super().worker_lost(worker, died=died)

    def deliver(self) -> Iterator[Delivery]:
        while not self._ended:
            item = self._next_in_turn() if self.plan.ordered else self._next_done()
            if item is None:
                if self._is_over():
                    self._ended = self.over = True
                    yield StreamEnded()
                return
            if isinstance(item, StreamFailed):
                self._ended = self.over = True
            else:
                self.num_handed_over += item.stop - item.start
            yield item

    def _next_in_turn(self) -> Deliver | StreamFailed | None:
        for _ in range(len(self.lanes)):
            lane = self.lanes[self._turn]
            while lane.tickets:
                state = self.issued[lane.tickets[0]]
                if not state.done:
                    return None
                if state.num_taken < state.num_batches:
                    # A single lane hands over whole answers; several alternate batch by batch.
                    step = 1 if len(self.lanes) > 1 else state.num_batches
                    start, state.num_taken = state.num_taken, state.num_taken + step
                    self._pass_turn()
                    return Deliver(state.payload, start, state.num_taken)
                del self.issued[lane.tickets.popleft()]
                if state.failure is not None:
                    return StreamFailed(state.failure)
            if not lane.closed and not self._is_complete(lane):
                return None
            self._pass_turn()
        return None

    def _next_done(self) -> Deliver | StreamFailed | None:
        while self._done:
            number = self._done[0]
            state = self.issued[number]
            if state.num_taken < state.num_batches:
                state.num_taken = state.num_batches
                return Deliver(state.payload, 0, state.num_batches)
            self._done.popleft()
            del self.issued[number]
            self.lanes[state.ticket.lane].tickets.remove(number)
            if state.failure is not None:
                return StreamFailed(state.failure)
        return None

    def _pass_turn(self) -> None:
        self._turn = (self._turn + 1) % len(self.lanes)

    def _is_over(self) -> bool:
        return not self.issued and all(lane.closed or self._is_complete(lane) for lane in self.lanes)

    def _is_made(self) -> bool:
        """Whether every batch that the stream will deliver has been made."""
        return all(state.done for state in self.issued.values()) and all(
            lane.closed or self._is_complete(lane) for lane in self.lanes
        )

    def _waited_for(self, lane: Lane) -> list[Issued]:
        return [state for state in map(self.issued.__getitem__, lane.tickets) if not state.done]

    @staticmethod
    def _is_past_end(lane: Lane, state: Issued) -> bool:
        return lane.length is not None and state.ticket.first >= lane.length

    def _is_complete(self, lane: Lane) -> bool:
        """Whether the stream's bound lies before the lane's next place."""
        return self._places_left(lane) == 0

    def _places_left(self, lane: Lane) -> int:
        """Places the lane may still issue inside the stream's bound."""
        limit = self.plan.max_batches
        if limit is None:
            return 1 << 62
        if not self.plan.ordered:
            return max(
                0, limit - self.num_made - sum(len(s.ticket.indices) for s in self.issued.values() if not s.done)
            )
        low, high = lane.first, lane.first + limit
        while low < high:  # the position grows with the place: find the first place outside
            middle = (low + high) // 2
            if self._position(lane.number, middle) < limit:
                low = middle + 1
            else:
                high = middle
        return low - lane.first

    def _position(self, number: int, place: int) -> int:
        total = 0
        for lane in self.lanes:
            before = place + (1 if lane.number < number else 0)
            total += before if lane.length is None else min(lane.length, before)
        return total

    def _next_ticket(self, room: int) -> Ticket | None:
        if room < 1:
            due = self._due()
            return None if due is None else self._ticket(due, 1)
        able = [lane for lane in self.lanes if self._lane_free(lane) and self._places_left(lane) and self._share(lane)]
        if not able:
            return None
        lane = min(able, key=lambda lane: lane.first)
        return self._ticket(lane, min(room, self._places_left(lane), self._share(lane)))

    def _due(self) -> Lane | None:
        """The lane that the consumer waits for, when no batch of it is there or on its way.

        It gets one place whatever the bound: a bound in bytes shrinks when batches grow, and may be filled by batches
        of lanes whose turn comes later.
        """
        if not self.plan.ordered or self.num_handed_over != self.num_consumed:
            return None
        for step in range(len(self.lanes)):
            lane = self.lanes[(self._turn + step) % len(self.lanes)]
            if any(self._unconsumed(self.issued[number]) for number in lane.tickets):
                return None
            if not lane.closed and self._places_left(lane):
                return lane if self._lane_free(lane) else None
        return None

    def _ticket(self, lane: Lane, count: int) -> Ticket:
        indices = tuple(range(lane.first, lane.first + count))
        ticket = Ticket(self._new_number(), self.stream, 0, lane.first, indices, lane=lane.number)
        lane.first += count
        lane.tickets.append(ticket.number)
        return ticket

    def _lane_free(self, lane: Lane) -> bool:
        """A lane takes a ticket while it has no more than its depth, whatever other lanes hold of the worker."""
        if lane.closed or lane.number not in self.workers:
            return False
        return len(self._waited_for(lane)) < (1 if self.plan.one_at_a_time else DEPTH)

    def _share(self, lane: Lane) -> int:
        """Batches the lane may still have outstanding: an equal part of the bound.

        Else ordered delivery could wait for a lane that has no room because faster ones took it.
        """
        waiting = sum(self._unconsumed(self.issued[number]) for number in lane.tickets)
        return max(0, max(1, self.limit // len(self.lanes)) - waiting)

    @staticmethod
    def _unconsumed(state: Issued) -> int:
        return state.num_batches - state.num_taken if state.done else len(state.ticket.indices)

    def _on_done(self, state: Issued) -> None:
        lane = self.lanes[state.ticket.lane]
        if state.ended or state.failure is not None:
            lane.closed = True
            places = state.ticket.first + state.num_batches
            lane.length = places if lane.length is None else min(lane.length, places)
        if not self.plan.ordered:
            self._done.append(state.ticket.number)

    def _worker_for(self, ticket: Ticket) -> int | None:
        return ticket.lane if ticket.lane in self.workers else None
