"""What crosses between the feed and its producers. Nothing else does.

The feed sends a `Ticket`; the producer answers with exactly one of `Made`, `Ended`, `Raised`, or with why it does not
(`Unanswered`). The first three carry a `Run`: the
batches that were made before the answer's event, which are delivered first, so that an error or an end comes at the
same place in the stream as in a plain loop.

Tickets cross as plain bytes, and so do small answers; see `rayfeed.producer.results`.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

from rayfeed.frame.codec import Frame
from rayfeed.source.failure import Failure
from rayfeed.source.stream import SourceInfo


@dataclass(frozen=True)
class Ticket:
    """The order for a run of consecutive batches.

    Attributes:
        number: This ticket's own number in its stream; a ticket issued again keeps it.
        stream: Which of the pool's streams it belongs to.
        pass_index: Which traversal of a Sequence, from 0; 0 for generators.
        first: Place of its first batch in the pass, or in the lane of one generator copy.
        indices: What to ask the Sequence for, one per batch; for generators as many places.
        lane: Which generator copy; 0 for a Sequence.
        version: Which state of the Sequence makes it: how many `on_epoch_end` came before.
        attempt: 0, and one more each time it is issued again.
    """

    number: int
    stream: int
    pass_index: int
    first: int
    indices: tuple[int, ...]
    lane: int = 0
    version: int = 0
    attempt: int = 0

    def __str__(self) -> str:
        last = self.first + len(self.indices) - 1
        if last > self.first:
            return f"batches {self.first} to {last} of pass {self.pass_index}"
        index = f" (index {self.indices[0]})" if self.indices[0] != self.first else ""  # its order is a random one
        return f"batch {self.first} of pass {self.pass_index}{index}"

    def only(self, offset: int) -> Ticket:
        """The ticket for one of its batches."""
        return replace(self, first=self.first + offset, indices=self.indices[offset : offset + 1])

    def to_bytes(self) -> bytes:
        """The ticket for its way to a producer."""
        return pickle.dumps(
            (
                self.number,
                self.stream,
                self.pass_index,
                self.first,
                self.indices,
                self.lane,
                self.version,
                self.attempt,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Ticket:
        """The ticket that `to_bytes` wrote."""
        return cls(*pickle.loads(data))


@dataclass(frozen=True)
class SourceRecord:
    """A source on its way to a producer.

    Attributes:
        info: What it is.
        name: The caller's name for it ("generator", "validation_data"), for messages.
        root: The stream's root seed.
        seeded: Whether the caller gave a seed, so that each batch is seeded.
        bare_inputs: Whether a batch may be inputs alone.
        num_lanes: How many producers run a copy of it.
        directory: The caller's working directory.
        digest: Of the source's bytes as the caller sent them, by which producers know a Sequence that they had before;
            None where that is not wanted.
        call_digests: The digests of all sources of the call: what producers keep of others is let go.
    """

    info: SourceInfo
    name: str
    root: int
    seeded: bool
    bare_inputs: bool
    num_lanes: int
    directory: str
    digest: bytes | None = None
    call_digests: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class Run:
    """Batches made for one ticket, in one frame.

    Attributes:
        frame: The batches; None where there is none.
        num_batches: How many.
        produce_s: Seconds in user code.
        encode_s: Seconds laying them into the frame.
        asked: Whether user code asked for its worker info.
        make_s: Seconds in all, the source being open: in user code, with checks and copies, and laying out.
        drawn: Random streams that the threads of the producer share and that user code drew from, though a seed was
            given; as far as was seen yet.
        graphs: Functions of user code that draw random numbers in TensorFlow's graphs, though a seed was given.
        digests: Of those of its batches that are among the first of a copy of a generator; empty where there is one.
    """

    frame: Frame | None
    num_batches: int
    produce_s: float
    encode_s: float
    asked: bool
    make_s: float = 0.0
    drawn: tuple[str, ...] = ()
    graphs: tuple[str, ...] = ()
    digests: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Made:
    """All batches of the ticket."""

    run: Run


@dataclass(frozen=True)
class Ended:
    """The stream ended after the run's batches."""

    run: Run


@dataclass(frozen=True)
class Raised:
    """User code raised while making the batch after the run's."""

    run: Run
    failure: Failure


@dataclass(frozen=True)
class OutOfTurn:
    """A ticket came before another whose call broke on its way: both are to be sent again, in order."""


@dataclass(frozen=True)
class Forgotten:
    """A generator's ticket came again whose batches were made, and are not kept: its place in the stream is lost."""


@dataclass(frozen=True)
class NotFetched:
    """A producer could not get the source out of the object store, which is no fault of the source's.

    Attributes:
        reason: What Ray said.
        is_full: Whether there was no room for it.
    """

    reason: str
    is_full: bool = False


Unanswered = OutOfTurn | Forgotten | NotFetched
"""Answers without a run: the ticket's batches are still wanted."""

Answer = Made | Ended | Raised | Unanswered


@dataclass(frozen=True)
class At:
    """Where a producer's thread stands.

    Attributes:
        stream: Its ticket's stream.
        number: Its ticket.
        attempt: Which of the ticket's attempts.
        offset: Which batch of the ticket it makes.
        seconds: For how long it has been making that one.
    """

    stream: int
    number: int
    attempt: int
    offset: int
    seconds: float


@dataclass(frozen=True)
class Opened:
    """A producer is ready to take tickets.

    Attributes:
        node: Its node's address.
        node_id: Its node, as Ray names it.
        pid: Its process.
    """

    node: str
    node_id: str
    pid: int


@dataclass(frozen=True)
class Parcel:
    """Large pieces of a source that lie in the store, for as long as a version of the source has some of them.

    Attributes:
        key: Its own name, which no other parcel has.
        sizes: Bytes of each piece.
        ref: Where in the store: a list of uint8 arrays, one for each piece.
    """

    key: str
    sizes: tuple[int, ...]
    ref: Any


@dataclass(frozen=True)
class Payload:
    """One version of a source in the store: a `rayfeed.source.packed.Packed` whose pieces are found by their places.

    Attributes:
        stream: As of `Packed`.
        cuts: As of `Packed`.
        places: For each piece its parcel, by the position in `parcels`, and its own position in that parcel. The
            parcel `RIDES_ALONG` is this payload itself.
        parcels: Those that this version needs.
        own: The pieces that ride along, uint8.
    """

    stream: bytes
    cuts: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    parcels: tuple[Parcel, ...]
    own: list[Any]


RIDES_ALONG = -1
"""Stands for the payload in the place of one of its parcels."""
