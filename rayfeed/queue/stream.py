"""A stream of batches, seen from both sides of its queue.

`StreamState` is the conductor's: window, source, and `out`, the queue to the consumer. `ProducedStream` is the
consumer's end of it; `InlineStream` (in its own file) has the same face and no producers. Both give *items*: a
`Delivered` batch, a `PassEnded`, `PassBegun` or `StreamEnded`; an error is raised at its place in the stream.
"""

from __future__ import annotations

import contextlib
import queue
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rayfeed.batch import Batch
from rayfeed.errors import BatchError, FeedClosedError, InternalError
from rayfeed.frame.reading import FrameReader
from rayfeed.frame.schema import FrameSchema
from rayfeed.producer.messages import Opened, Run, SourceRecord, Ticket
from rayfeed.queue.canonical import CanonicalCopy
from rayfeed.queue.deliveries import Deliver, PassBegun, PassEnded, StreamEnded, StreamFailed
from rayfeed.queue.meter import Meter, Waiting
from rayfeed.queue.notices import Notices
from rayfeed.queue.room import Held, check_batch
from rayfeed.queue.travel import callers_level
from rayfeed.queue.window import Window
from rayfeed.stats import FeedStats

if TYPE_CHECKING:  # the conductor imports this file
    from rayfeed.queue.conductor import Conductor

WAIT_S = 1.0
"""How long a consumer waits before it looks whether the conductor's thread still lives."""


class Reader(Protocol):
    """Batches by place; `rayfeed.frame.codec.FrameReader` is one."""

    schema: FrameSchema

    def num_bytes(self, index: int) -> int: ...
    def arrays(self, index: int) -> list[Any]: ...
    def batch(self, index: int, *, copy: bool = False) -> Batch: ...


@dataclass(frozen=True)
class Delivered:
    """One batch, as the consumer gets it.

    Attributes:
        reader: Where its arrays are.
        place: Which batch of the reader it is.
        number: Its place in the pass of its Sequence, or in its copy of a generator.
    """

    reader: Reader
    place: int
    number: int

    def batch(self, *, copy: bool = False) -> Batch:
        """The batch in its source's structure; read-only views of shared memory unless `copy`."""
        return self.reader.batch(self.place, copy=copy)


@dataclass(frozen=True)
class Notice:
    """A warning for the consumer's process."""

    text: str


@dataclass(frozen=True)
class Closed:
    """Wakes a consumer whose stream was closed by another thread."""


Item = Delivered | PassEnded | PassBegun | StreamEnded


@dataclass
class StreamState:
    """What the conductor keeps of one stream; only its thread uses it, but for `out`, which is a queue."""

    number: int
    record: SourceRecord
    window: Window
    source_ref: Any
    canonical: CanonicalCopy | None
    out: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    started: bool = False
    schema: FrameSchema | None = None
    num_frames: int = 0
    frame_bytes: int = 0
    produce_s: float = 0.0
    encode_s: float = 0.0
    waiting: Waiting = field(default_factory=Waiting)
    notices: Notices = field(init=False)
    store_bytes: int | None = None

    def __post_init__(self) -> None:
        self.notices = Notices(self.record)

    def conform(self, reader: FrameReader, where: str) -> None:
        """Raise `BatchError` unless a frame fits in the store, and has the structure and dtypes of the first one."""
        schema = reader.schema
        if self.store_bytes is not None:
            check_batch(reader.num_bytes(0), self.store_bytes, where)
        if self.schema is None:
            self.schema = schema
        elif self.schema != schema:
            difference = self.schema.difference(schema)
            if difference is not None:
                raise BatchError(
                    f"{where}: {difference}.\n"
                    "  Every batch of one source has the same structure and dtypes: convert it in the source."
                )

    def release(self) -> None:
        """Let go of what lies in the object store, also where someone keeps the closed feed; errors stay to be read."""
        if self.canonical is not None:
            self.canonical.close()
        self.source_ref = self.canonical = None
        self.window.issued.clear()
        kept = []
        while not self.out.empty():
            item = self.out.get_nowait()
            if not isinstance(item, Deliver):
                kept.append(item)
        for item in kept:
            self.out.put(item)

    def note(self, ticket: Ticket, run: Run) -> None:
        """Count an answer; warn of what it says."""
        if run.frame is not None:
            self.num_frames += 1
            self.frame_bytes += run.frame.num_bytes
        self.produce_s += run.produce_s
        self.encode_s += run.encode_s
        for text in self.notices.hear(ticket, run):
            self.out.put(Notice(text))


class Stream(Protocol):
    """What consumers use: `rayfeed.Feed`, and the trainer's adapter."""

    def start(self) -> None:
        """Let the source run; the first `next_item` does so as well."""
        ...

    def next_item(self) -> Item:
        """The next item: a batch, a pass' end or beginning, the stream's end. Waits; raises what the source raised."""
        ...

    def peek(self) -> Delivered | None:
        """The batch that `next_item` would give, if it has arrived; None also where something else comes first."""
        ...

    def processes(self) -> list[Opened]:
        """The processes that make its batches now."""
        ...

    def stats(self) -> FeedStats:
        """The stream's figures so far."""
        ...

    def close(self) -> None:
        """End the stream; its producers may go on with others."""
        ...


class ProducedStream:
    """The consumer's end of a stream made by producers. One thread consumes; any thread may close.

    Args:
        conductor: Drives the stream.
        state: The stream.
        is_home: Whether no producer makes it, but a thread of the caller's process.
    """

    def __init__(self, conductor: Conductor, state: StreamState, *, is_home: bool = False) -> None:
        self._conductor = conductor
        self._state = state
        self._is_home = is_home
        self._num_lost_before = conductor.crew.num_lost
        self._meter = Meter()
        self._started = False
        self._closed = False
        self._current: Deliver | None = None
        self._place = 0
        self._seen: Any = None  # the queue's first thing, where `peek` found that it is no batch
        self._end: StreamEnded | StreamFailed | None = None
        self._held = Held(state.store_bytes) if state.store_bytes is not None else None

    def start(self) -> None:
        if not self._started:
            self._started = True
            self._conductor.start_stream(self._state.number)

    def next_item(self) -> Item:
        current = self._current
        if current is None:
            self.start()
            found = self._receive()
            if not isinstance(found, Deliver):
                return found
            current, self._current, self._place = found, found, found.start
        if self._place == 0 and self._held is not None:
            text = self._held.deliver(*current.payload[1].memory())
            if text is not None:
                warnings.warn(text, stacklevel=callers_level())
        place, self._place = self._place, self._place + 1
        if self._place == current.stop:
            self._current = None
            self._conductor.consumed(self._state.number, current.stop - current.start)
        item = _delivered(current, place)
        self._meter.delivered(item.reader.num_bytes(item.place))
        return item

    def peek(self) -> Delivered | None:
        if self._current is None and self._seen is None and not self._closed:
            with contextlib.suppress(queue.Empty):
                found = self._state.out.get_nowait()
                if isinstance(found, Deliver):
                    self._current, self._place = found, found.start
                else:
                    self._seen = found
        return _delivered(self._current, self._place) if self._current is not None else None

    def _receive(self) -> Deliver | PassEnded | PassBegun | StreamEnded:
        """The next thing in the queue; a failure is raised, again and again once it was reached."""
        if self._closed:
            raise FeedClosedError("this feed is closed: open a new one to read its source again.")
        while self._end is None:
            found = self._get()
            match found:
                case StreamFailed() | StreamEnded():
                    self._end = found
                case Closed():
                    raise FeedClosedError("this feed was closed while a batch was waited for.")
                case Notice(text):
                    warnings.warn(text, stacklevel=callers_level())
                case Deliver() | PassEnded() | PassBegun():
                    return found
                case _:
                    raise InternalError(f"unknown item {found!r}")
        match self._end:
            case StreamFailed(failure):
                raise failure
            case StreamEnded():
                return self._end

    def _get(self) -> Any:
        out = self._state.out
        if self._seen is not None:
            seen, self._seen = self._seen, None
            return seen
        try:
            return out.get_nowait()
        except queue.Empty:
            started = time.perf_counter()
        self._state.waiting.begin(started)
        try:
            while True:
                try:
                    return out.get(timeout=WAIT_S)
                except queue.Empty:
                    # A thread that ended left its reason in the queue: look once more before giving it up.
                    if not self._conductor.is_alive() and out.empty():
                        raise self._conductor.failure or FeedClosedError(
                            "this feed's thread has ended; nothing more can come."
                        ) from None
        finally:
            ended = time.perf_counter()
            self._state.waiting.end(ended)
            self._meter.waited(ended - started)

    def processes(self) -> list[Opened]:
        return self._conductor.crew.processes()

    def stats(self) -> FeedStats:
        meter, state = self._meter, self._state
        return FeedStats(
            batches=meter.batches,
            bytes=meter.bytes,
            frames=state.num_frames,
            frame_bytes=state.frame_bytes,
            wait_s=meter.wait_s,
            first_wait_s=meter.first_wait_s,
            run_s=meter.run_s(),
            produce_s=state.produce_s,
            encode_s=state.encode_s,
            num_producers=0 if self._is_home else self._conductor.crew.num_members(),
            num_workers=self._conductor.crew.num_members() * self._conductor.crew.num_threads,
            lost_producers=self._conductor.crew.num_lost - self._num_lost_before,
            remade_tickets=state.window.num_remade,
        )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._current = None
            self._conductor.close_stream(self._state.number)
            self._state.out.put(Closed())


def _delivered(found: Deliver, place: int) -> Delivered:
    ticket, reader = found.payload
    return Delivered(reader, place, ticket.first + place)
