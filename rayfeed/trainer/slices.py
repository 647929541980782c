"""A stream cut into exact slices: the batches of one epoch, or of one validation, and not one more (contract C).

With a fixed number of steps a slice is that many batches and pass ends are passed over (C1, C4). Without, a slice is
one pass of a Sequence, whose length is known for the first pass and comes with each pass end for the next (C3); or,
where it has an `on_epoch_begin`, when that has run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from rayfeed.queue.stream import Delivered, Item, Stream
from rayfeed.queue.window import PassBegun, PassEnded, StreamEnded


@dataclass(frozen=True)
class Failed:
    """What the source raised, and its cause, which those that pass the error on may drop."""

    error: Exception
    cause: BaseException | None


class Slices:
    """Cuts one stream. Used by one thread.

    Args:
        stream: The stream.
        steps: Batches of each slice; None where a slice is a pass.
        first_length: Batches of the first pass, where a slice is a pass.
        announced: Whether each pass is announced by a `PassBegun`.
    """

    def __init__(self, stream: Stream, *, steps: int | None, first_length: int | None, announced: bool = False) -> None:
        self.stream = stream
        self.num_taken = 0  # of the current slice
        self.num_begun = 0
        self.has_ended = False
        self.failure: Failed | None = None
        self._fixed = steps
        self._length = steps if steps is not None else first_length or 0
        self._peeked: deque[Delivered] = deque()
        self._announced = announced
        self._is_known = not announced  # the length of the next slice

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
                    continue
        return self._length

    def begin(self) -> int:
        """Begin the next slice; the number of its batches."""
        length = self.next_length()
        self.num_taken = 0
        self.num_begun += 1
        self._is_known = False
        return length

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
            return self.stream.next_item()
        except Exception as error:
            self.failure = Failed(error, error.__cause__)
            raise
