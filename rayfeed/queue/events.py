"""What the conductor's thread is told, besides the pool's own events. One class per event."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rayfeed.producer.messages import Ticket
from rayfeed.source.failure import Failure

if TYPE_CHECKING:  # a stream's canonical copy posts events
    from rayfeed.queue.stream import StreamState


@dataclass(frozen=True)
class Answered:
    """A ticket's call ended: with the producer's answer, or with Ray's error."""

    stream: int
    worker: int
    life: int
    ticket: Ticket
    answer: Any
    error: BaseException | None


@dataclass(frozen=True)
class Consumed:
    """The consumer took this many batches."""

    stream: int
    num_batches: int


@dataclass(frozen=True)
class NextPass:
    """What the hooks between two passes left: the next one's batches, and the Sequence's new state in the store."""

    length: int
    source_ref: Any


@dataclass(frozen=True)
class HookDone:
    """The hooks between two passes ran on the canonical copy: what they left, or what one raised."""

    stream: int
    result: NextPass | Failure


@dataclass(frozen=True)
class StreamOpened:
    """A stream was added; it makes nothing yet."""

    state: StreamState


@dataclass(frozen=True)
class StreamStarted:
    """A stream may make batches from now on."""

    stream: int


@dataclass(frozen=True)
class StreamClosed:
    """A stream's consumer is gone."""

    stream: int


@dataclass(frozen=True)
class Settle:
    """Someone waits until no stream is open and every ticket was answered, also those of closed streams."""

    settled: threading.Event


@dataclass(frozen=True)
class Stop:
    """End the thread."""
