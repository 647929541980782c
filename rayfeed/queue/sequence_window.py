"""The window of a Sequence: passes in order, each batch exactly once, any worker for any ticket.

The *script* is what the consumer will see, as far as it is decided: ticket numbers and pass ends. Ordered delivery
takes it from the left; unordered delivery takes whatever is done before the next pass end. Where `on_epoch_end` does
something, a pass end enters the script only after every batch of the pass was made and the hook has run, and no ticket
of the next pass is issued before; otherwise passes follow each other without a seam. `on_epoch_begin` is run together
with it, or alone before the first pass and after a pass that was cut short, and not where no pass follows.

    draining --all made--> hooks --pass_ready--> issuing (next pass) --last ticket--> draining
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from rayfeed.errors import InternalError
from rayfeed.producer.messages import Ticket
from rayfeed.queue.bound import Bound
from rayfeed.queue.deliveries import Deliver, Delivery, PassBegun, PassEnded, StreamEnded, StreamFailed
from rayfeed.queue.position import START, Position
from rayfeed.queue.window import DEADLY, Issued, Window
from rayfeed.source.seeding import pass_order


class Phase(Enum):
    """Where the current pass stands."""

    ISSUING = "issuing"
    DRAINING = "draining"
    HOOK = "hook"
    OVER = "over"


@dataclass(frozen=True)
class Hooks:
    """The hooks to run now, between two passes, in this order.

    Attributes:
        ended: The pass whose `on_epoch_end` is due; None where none is.
        begun: The pass whose `on_epoch_begin` is due; None where none is.
        replayed: Passes before these whose hooks are run again first: the stream goes on from a saved state.
        pass_cap: Batches of a replayed pass that were wanted; one cut short had no `on_epoch_end`.
    """

    ended: int | None
    begun: int | None
    replayed: int = 0
    pass_cap: int | None = None


@dataclass(frozen=True)
class SequencePlan:
    """How a Sequence is traversed.

    Attributes:
        length: Batches of the first pass.
        has_epoch_end: Whether the hook runs between passes.
        shuffle: Whether each pass has its own random order.
        root: Root seed of those orders.
        ordered: Whether delivery follows the order.
        max_passes: Passes in all; None for no end.
        max_batches: Batches in all; None for no end.
        pass_cap: Batches of a pass that are wanted; a pass cut short this way has no `on_epoch_end`.
        has_epoch_begin: Whether a hook runs before each pass.
        start: Where the stream begins; passes and batches before it are made by nobody.
    """

    length: int
    has_epoch_end: bool = False
    shuffle: bool = False
    root: int = 0
    ordered: bool = True
    max_passes: int | None = None
    max_batches: int | None = None
    pass_cap: int | None = None
    has_epoch_begin: bool = False
    start: Position = START

    def must_replay(self) -> bool:
        """Whether hooks have to run before the first batch, though not for its own pass."""
        return self.start.pass_index > 0 and (self.has_epoch_end or self.has_epoch_begin)


class SequenceWindow(Window):
    """Tickets for the passes of a Sequence; see the module's docstring.

    Args:
        stream: The stream's number.
        bound: The queue's bounds.
        plan: How the Sequence is traversed.
    """

    MAY_IDLE = True

    def __init__(self, *, stream: int, bound: Bound, plan: SequencePlan) -> None:
        super().__init__(stream=stream, bound=bound)
        self.plan = plan
        self.phase = Phase.ISSUING
        self.pass_index = plan.start.pass_index - 1
        self._has_begun = False
        self.version = 0  # hooks run so far: which state of the Sequence makes the current pass
        self.script: deque[int | PassEnded | PassBegun | StreamEnded] = deque()
        self.num_ordered = 0  # batches given tickets so far, over all passes
        self._making: set[int] = set()  # tickets of the current pass that are not made yet
        self._ended = False
        if plan.max_batches == 0 or (plan.max_passes is not None and plan.start.pass_index >= plan.max_passes):
            self.phase = Phase.OVER
            self.script.append(StreamEnded())
        elif plan.has_epoch_begin or plan.must_replay():
            self.phase = Phase.DRAINING
        else:
            self._begin_pass(plan.length)

    def wants_hooks(self) -> Hooks | None:
        """The hooks that must run now; asked once, answered by `pass_ready`."""
        if self.phase is not Phase.DRAINING or self._making:
            return None
        self.phase = Phase.HOOK
        return self._hooks()

    def pass_ready(self, next_length: int) -> None:
        """The hooks have run; the next pass has this many batches."""
        if self.phase is not Phase.HOOK:
            raise InternalError(f"pass {self.pass_index} became ready in phase {self.phase.value}")
        self.version += 1
        if not self._has_begun:
            self._begin_pass(next_length)
        else:
            self._end_pass(next_length)

    def deliver(self) -> Iterator[Delivery]:
        while self.script and not self._ended:
            head = self.script[0]
            match head:
                case PassEnded() | PassBegun():
                    self.script.popleft()
                    yield head
                case StreamEnded():
                    self._ended = True
                    yield head
                case _:
                    number = head if self.issued[head].done else self._first_done()
                    if number is None:
                        return
                    self.script.remove(number)  # the head, unless unordered: at most a window's length to search
                    yield from self._hand_over(self.issued.pop(number))

    def _first_done(self) -> int | None:
        """Of an unordered stream: a ticket that is done before the next pass end."""
        if self.plan.ordered:
            return None
        for item in self.script:
            if not isinstance(item, int):
                return None
            if self.issued[item].done:
                return item
        return None

    def _hand_over(self, state: Issued) -> Iterator[Delivery]:
        self.num_handed_over += state.num_batches
        if state.num_batches:
            yield Deliver(state.payload, 0, state.num_batches)
        if state.failure is not None:
            self._ended = self.over = True
            yield StreamFailed(state.failure)
        elif state.ended:
            raise InternalError(f"a Sequence's ticket came back as a stream's end ({state.ticket})")

    def _next_ticket(self, room: int) -> Ticket | None:
        if self.phase is not Phase.ISSUING or room < 1 or not any(self._free(worker) for worker in self.workers):
            return None
        first = self._cursor
        last = self._start.end_of_gap(first, min(first + room, self._length))
        indices = tuple(range(first, last) if self._order is None else self._order[first:last].tolist())
        ticket = Ticket(self._new_number(), self.stream, self.pass_index, first, indices, version=self.version)
        self._cursor = min(self._start.next_place(last), self._length)
        self.num_ordered += last - first
        self._making.add(ticket.number)
        self.script.append(ticket.number)
        if self._cursor == self._length:
            self._all_issued()
        return ticket

    def _all_issued(self) -> None:
        """The last wanted ticket of the pass is out. A pass cut short has no hook, and the stream's end no pass end."""
        if (
            self.plan.max_batches is not None
            and self.num_ordered >= self.plan.max_batches
            and self._cursor < self._whole
        ):
            self.phase = Phase.OVER
            self.script.append(StreamEnded())
        elif self._hooks() != Hooks(None, None):
            self.phase = Phase.DRAINING
        else:
            self._end_pass(self._whole)

    def _hooks(self) -> Hooks:
        """The hooks that are due before the first pass, or after the current one."""
        if not self._has_begun:
            first = self.plan.start.pass_index
            begun = first if self.plan.has_epoch_begin else None
            return Hooks(None, begun, first, self.plan.pass_cap) if first else Hooks(None, begun)
        is_whole = self._cursor == self._whole
        return Hooks(
            ended=self.pass_index if self.plan.has_epoch_end and is_whole else None,
            begun=self.pass_index + 1 if self.plan.has_epoch_begin and not self._is_last() else None,
        )

    def _is_last(self) -> bool:
        """Whether no pass follows the current one."""
        plan = self.plan
        passes_over = plan.max_passes is not None and self.pass_index + 1 >= plan.max_passes
        batches_over = plan.max_batches is not None and self.num_ordered >= plan.max_batches
        return passes_over or batches_over

    def _end_pass(self, next_length: int) -> None:
        self.script.append(PassEnded(self.pass_index, self._wanted(next_length)))
        if self._is_last():
            self.phase = Phase.OVER
            self.script.append(StreamEnded())
        else:
            self._begin_pass(next_length)

    def _begin_pass(self, length: int) -> None:
        if length < 1:
            raise InternalError(f"pass {self.pass_index + 1} was to begin with {length} batches")
        self.pass_index += 1
        self.phase = Phase.ISSUING
        self._start = START if self._has_begun else self.plan.start
        self._has_begun = True
        self._whole = length
        self._length = self._wanted(length)
        self._start.check(self._length)
        self._cursor = self._start.next_place(0)
        if self.plan.max_batches is not None:
            left = self.plan.max_batches - self.num_ordered
            self._length = min(self._length, self._start.end_of(self._cursor, left))
        self._order = pass_order(self.plan.root, self.pass_index, length) if self.plan.shuffle else None
        self._making.clear()
        if self.plan.has_epoch_begin:
            self.script.append(PassBegun(self.pass_index, self._wanted(length)))
        if self._cursor == self._length:  # all of it was consumed, but not its end
            self._all_issued()

    def _wanted(self, length: int) -> int:
        return length if self.plan.pass_cap is None else min(length, self.plan.pass_cap)

    def _on_done(self, state: Issued) -> None:
        self._making.discard(state.ticket.number)
        if state.failure is not None:  # what was issued before is still delivered; nothing new is, and no hook runs
            self.phase = Phase.OVER

    def _parts(self, state: Issued) -> list[Ticket]:
        """The ticket's batches one by one, in its place in the script: one of them may be why its worker died."""
        whole = state.ticket
        parts = [
            replace(whole.only(offset), number=self._new_number(), attempt=0) for offset in range(len(whole.indices))
        ]
        place = self.script.index(whole.number)
        del self.script[place]
        for offset, part in enumerate(parts):
            self.script.insert(place + offset, part.number)
            # Not yet deadly: some of them are innocent.
            self.issued[part.number] = Issued(part, deaths=min(state.deaths, DEADLY - 1))
        del self.issued[whole.number]
        if whole.number in self._making:
            self._making.remove(whole.number)
            self._making.update(part.number for part in parts)
        return parts

    def _worker_for(self, ticket: Ticket) -> int | None:
        """Of the workers that hold least, the one that will be done first, or has been idle for longest."""
        free = [worker for worker in self.workers if self._free(worker)]
        return min(free, key=self._load, default=None)

    def _load(self, worker: int) -> tuple[float, int, int]:
        held = self.held[worker]
        eldest = min(held)[0] if held else self.newest.get(worker, -1)
        return len(held) / self.workers[worker], eldest, worker
