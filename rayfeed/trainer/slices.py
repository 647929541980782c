"""A stream cut into exact slices: the batches of one epoch, or of one validation, and not one more (contract C).

With a fixed number of steps a slice is that many batches and pass ends are passed over (C1, C4). Without, a slice is
one pass of a Sequence, whose length is known for the first pass and comes with each pass end for the next (C3); or,
where it has an `on_epoch_begin`, when that has run.

A training that is resumed goes on inside of a slice, or between two. What was *taken* may be ahead of what was trained,
so the stream's position is told for a number of batches of the slice: a list of the places where passes began says
which batch of which pass that was.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from rayfeed.errors import SourceError
from rayfeed.queue.deliveries import PassBegun, PassEnded, StreamEnded
from rayfeed.queue.position import START, Position
from rayfeed.queue.stream import Delivered, Item, Stream


@dataclass(frozen=True)
class Failed:
    """What the source raised, and its cause, which those that pass the error on may drop."""

    error: Exception
    cause: BaseException | None


@dataclass(frozen=True)
class Standing:
    """Where a stream and its slices stand.

    Attributes:
        position: Of the stream.
        in_slice: Batches of the current slice before that; None between two slices.
        length: Batches of the current slice, or of the last one.
    """

    position: Position
    in_slice: int | None
    length: int


@dataclass(frozen=True)
class _PassAt:
    """A pass, or the rest of one, that begins after so many batches that were received."""

    received: int
    pass_index: int
    consumed: int


class Slices:
    """Cuts one stream. Used by one thread.

    Args:
        stream: The stream.
        steps: Batches of each slice; None where a slice is a pass.
        first_length: Batches of the first pass, where a slice is a pass.
        announced: Whether each pass is announced by a `PassBegun`.
        standing: Where the stream begins, unless at its beginning.
        skipped: Batches of a resumed generator that are made once more and dropped.

    Attributes:
        was_begun: Whether the first slice goes on from where another process began it; a generator has one beginning.
        num_before: Batches of the current slice that were trained before it was resumed.
        num_taken: Batches of the current slice that were taken, those among them.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        steps: int | None,
        first_length: int | None,
        announced: bool = False,
        standing: Standing | None = None,
        skipped: int = 0,
    ) -> None:
        self.stream = stream
        self.num_before = self.num_taken = 0
        self.num_begun = 0
        self.has_ended = False
        self.failure: Failed | None = None
        self._fixed = steps
        self._length = steps if steps is not None else first_length or 0
        self._peeked: deque[Delivered] = deque()
        self._announced = announced
        self._is_known = not announced  # the length of the next slice
        position, self._num_resumed = START, 0
        self._first = standing
        if standing is not None:
            position, self._num_resumed = standing.position, standing.in_slice or 0
            self._is_known = self._is_known and standing.in_slice is not None
            self._length = steps if steps is not None else standing.length
        self._skipped = skipped
        self.was_begun = self._num_resumed > 0 or (standing is not None and steps is not None)
        self._passes = [_PassAt(0, position.pass_index, position.consumed)]
        self._num_received = 0
        self._num_gone = 0  # batches of it that were taken, or passed over
        self._begun_at = 0  # how many those were where the current slice began

    def next_length(self) -> int:
        """Batches of the slice that `begin` would begin; waits for the hooks before it."""
        while self._fixed is None and not self._is_known:
            item = self._receive()
            match item:
                case PassEnded():
                    self._length, self._is_known = item.next_length, not self._announced
                case PassBegun():
                    self._length, self._is_known = item.length, True
                case StreamEnded():
                    self.has_ended = self._is_known = True
                case Delivered():  # of a pass that was left early (`stop_evaluating`)
                    self._num_gone += 1
        return self._length

    def begin(self) -> int:
        """Begin the next slice; the number of its batches."""
        length = self.next_length()
        self.num_before = self.num_taken = self._num_resumed
        self._num_resumed = 0
        self.num_begun += 1
        self._is_known = False
        self._begun_at = self._num_gone - self.num_before
        current = self._pass_of(self._num_gone)
        self._passes = [one for one in self._passes if one.received >= current.received]
        return length

    def catch_up(self) -> None:
        """Before the first slice: run a generator that is resumed up to where it was.

        Raises:
            SourceError: It ends before.
        """
        for number in range(self._skipped):
            if self._next() is None:
                raise SourceError(
                    f"the checkpoint has {self._skipped} batches of a generator consumed; it ended after {number}: it "
                    "is another one."
                )
        self._num_received = 0

    def standing(self, trained: int | None) -> Standing | None:
        """Where the stream stands after so many batches of the current slice; None before the very first slice.

        Args:
            trained: Batches, those before the training was resumed among them; None: the slice is done with.
        """
        if not self.num_begun:
            return self._first
        total = self._begun_at + (self.num_taken if trained is None else trained)
        current = self._pass_of(total)
        if trained is None and self._announced and self._fixed is None:  # the announcement tells the next length
            return Standing(Position(current.pass_index + 1), None, self._length)
        consumed = current.consumed + total - current.received
        return Standing(Position(current.pass_index, consumed), trained, self._length)

    def _pass_of(self, total: int) -> _PassAt:
        """The pass of the last of so many batches; not the one after, whose beginning may not be known yet."""
        return next((one for one in reversed(self._passes) if one.received < total), self._passes[0])

    @property
    def length(self) -> int:
        """Batches of the current slice."""
        return self._length

    @property
    def is_fixed(self) -> bool:
        """Whether all slices are of the same length, passes or not."""
        return self._fixed is not None

    @property
    def is_complete(self) -> bool:
        """Whether all of the current slice's batches were taken."""
        return self.num_begun > 0 and self.num_taken == self._length

    def take(self) -> Delivered | None:
        """The slice's next batch; None when it is complete, or the stream has ended (`has_ended`)."""
        if self.num_taken == self._length:
            return None
        item = self._peeked.popleft() if self._peeked else self._next()
        if item is not None:
            self.num_taken += 1
            self._num_gone += 1
        return item

    def peek(self) -> Delivered | None:
        """What `take` would give now, if that has arrived already; it stays the slice's next batch."""
        if self.num_taken == self._length or self.has_ended:
            return None
        return self._peeked[0] if self._peeked else self.stream.peek()

    def has_more(self) -> bool:
        """Whether the stream has a batch after the slices so far; waits for it."""
        if self._fixed is not None and not self._peeked:
            item = self._next()
            if item is not None:
                self._peeked.append(item)
        return not self.has_ended

    def finish(self) -> None:
        """After the stream's last slice: wait for its last pass' `on_epoch_end`, and for what that may raise."""
        while not self.has_ended and not isinstance(self._receive(), StreamEnded):
            continue

    def _next(self) -> Delivered | None:
        while not self.has_ended:
            item = self._receive()
            match item:
                case Delivered():
                    return item
                case StreamEnded():
                    self.has_ended = True
                case PassEnded() | PassBegun():
                    continue
        return None

    def _receive(self) -> Item:
        try:
            item = self.stream.next_item()
        except Exception as error:
            self.failure = Failed(error, error.__cause__)
            raise
        match item:
            case Delivered():
                self._num_received += 1
            case PassEnded():
                self._passes.append(_PassAt(self._num_received, item.pass_index + 1, 0))
            case PassBegun() | StreamEnded():
                pass
        return item
