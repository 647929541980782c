"""The producer's work without Ray: open sources, make the batches of a ticket, lay them into a frame.

One `Maker` lives in each producer process. `make` may be called from several threads for Sequences; a generator's
tickets come one at a time and in order, which the pool guarantees by giving such a producer one thread. Each stream's
first batch decides its schema; later batches must conform to it.

    source --make--> batch --flatten--> arrays --conform--> flats --encode--> frame
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sys import getrefcount
from typing import Any, ClassVar

import numpy as np

from rayfeed.errors import InternalError
from rayfeed.frame.codec import encode
from rayfeed.frame.inspector import Inspector
from rayfeed.producer.compressor import Compressor
from rayfeed.producer.messages import Answer, Ended, Made, OutOfTurn, Raised, Run, SourceRecord, Ticket
from rayfeed.producer.twins import NUM_COMPARED, digest
from rayfeed.source.failure import Failure
from rayfeed.source.graph_draws import GraphDraws
from rayfeed.source.missing import naming_missing_modules
from rayfeed.source.seeding import batch_rng, lane_rng, seed_batch, worker_seed
from rayfeed.source.shared_streams import SharedStreams
from rayfeed.source.shipping import put_together
from rayfeed.source.stream import GeneratorSource, SequenceSource, open_source
from rayfeed.source.worker_info import Place, WorkerInfo, running_in


@dataclass
class _Opened:
    """One stream's source in this process."""

    record: SourceRecord
    source: SequenceSource | GeneratorSource
    version: int
    inspector: Inspector
    place: Place  # of a generator; a Sequence may be run by several threads
    newest: dict[int, Answer] = field(default_factory=dict)  # a generator's answers, by their tickets
    next_place: int | None = None  # a generator's, in its lane
    refused: set[int] = field(default_factory=set)  # a generator's tickets that came out of turn
    asked: bool = False
    has_raised: bool = False

    def is_early(self, ticket: Ticket) -> bool:
        """Whether a generator's ticket came before its turn. When it comes again it is not: what is missing then was
        answered by the copy before this one.
        """
        if self.next_place is None or ticket.first <= self.next_place or ticket.number in self.refused:
            return False
        self.refused.add(ticket.number)
        return True


@dataclass
class _Where:
    """What is being made and who makes it, for messages; put into words only for those."""

    maker: str
    record: SourceRecord
    ticket: Ticket
    offset: int | None = None  # in the ticket; None while the source is opened

    def __str__(self) -> str:
        if self.offset is None:
            return f"{self.maker}, opening {self.record.name}"
        if self.record.info.is_sequence:
            index = self.ticket.indices[self.offset]
            return f"{self.maker}, {self.record.name}: batch {index} of pass {self.ticket.pass_index}"
        return f"{self.maker}, {self.record.name}: batch {self.ticket.first + self.offset}"


def keep_as_made(arrays: list[np.ndarray]) -> None:
    """Copy, in place of the list, the arrays that user code could still write to while it makes the next batch.

    A generator may fill the same buffer again and again, and `encode` sees the batches only when all are made. An array
    that nobody else refers to, or a view of one, stays without a copy: two references are the list's and the call's.
    """
    for place in range(len(arrays)):
        if getrefcount(arrays[place]) > 2 or not _owns_memory(arrays[place]):
            arrays[place] = arrays[place].copy(order="K")


def _owns_memory(array: np.ndarray) -> bool:
    """Whether the array's memory is its own, or its base's that nobody else holds."""
    if array.base is None:
        return array.flags.owndata  # else some library lent it
    # Two references to the base: the view's and the call's argument.
    return isinstance(array.base, np.ndarray) and array.base.base is None and getrefcount(array.base) == 2


@contextmanager
def _no_collections() -> Iterator[None]:
    """Let the garbage collector rest while a source is loaded, with the modules that it imports.

    What these make stays, and would be looked at again and again: above all where it is TensorFlow.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Maker:
    """Makes the batches of tickets in one process.

    Args:
        worker: This producer's number.
        place: Its node and process for messages: ``"node 10.0.4.17, pid 8812"``.
        num_threads: Threads that may call `make` at once.
        compressor: Of the frames; None for none.
    """

    NUM_NEWEST: ClassVar[int] = 2
    """A generator's answers that are kept, since they may not arrive: as many as it may be asked for at once."""

    def __init__(self, worker: int, place: str, num_threads: int = 1, compressor: Compressor | None = None) -> None:
        self.worker = worker
        self._compressor = compressor
        self._shared = SharedStreams() if num_threads > 1 else None
        self._graphs = GraphDraws()
        self.place = place
        self._opened: dict[int, _Opened] = {}
        self._closed: set[int] = set()
        self._kept: dict[bytes, SequenceSource] = {}  # of closed streams, by their digests; as they came
        self._lock = threading.Lock()
        self._rests = False

    def make(self, ticket: Ticket, record: SourceRecord, state: Any) -> Answer:
        """Make a ticket's batches. A generator's ticket that comes again is answered as the first time.

        Args:
            ticket: What to make.
            record: The stream's source, as described by the feed.
            state: A function that gives the source in the ticket's version, packed in memory that is this process' own;
                called only when it does not hold that version yet.

        Returns:
            `Made`, `Ended` or `Raised`; user exceptions never leave this method as exceptions.
        """
        if self._rests or ticket.stream in self._closed:  # its consumer is gone; another thread was told so first
            return Ended(Run(None, 0, 0.0, 0.0, asked=False))
        opened = self._opened.get(ticket.stream)
        if opened is not None and ticket.number in opened.newest:
            return opened.newest[ticket.number]
        if opened is not None and opened.is_early(ticket):
            return OutOfTurn()
        answer = self._make(ticket, record, state)
        opened = self._opened.get(ticket.stream)
        if opened is not None and not record.info.is_sequence:
            opened.next_place = ticket.first + len(ticket.indices)
            opened.newest[ticket.number] = answer
            while len(opened.newest) > self.NUM_NEWEST:
                del opened.newest[next(iter(opened.newest))]
        return answer

    def _make(self, ticket: Ticket, record: SourceRecord, state: Any) -> Answer:
        place = self._place_of(ticket, record)
        flats: list[list[np.ndarray]] = []
        digests: list[bytes] = []
        num_digests = NUM_COMPARED - ticket.first if record.num_lanes > 1 and not record.info.is_sequence else 0
        produce_s = 0.0
        begun = time.perf_counter()
        with running_in(place):
            event: Failure | None = None
            ended = False
            opened: _Opened | None = None
            where = _Where(self._describe(record), record, ticket)
            try:
                opened = self._open(ticket, record, state, place)
                begun = time.perf_counter()
                for offset, index in enumerate(ticket.indices):
                    if self._rests or ticket.stream in self._closed:
                        ended = True
                        break
                    where.offset = offset
                    if record.info.is_sequence:
                        self._seed(record, ticket.pass_index, index, place)
                    started = time.perf_counter()
                    batch = self._next(opened.source, index)
                    produce_s += time.perf_counter() - started
                    if batch is GeneratorSource.END:
                        ended = True
                        break
                    flats.append(opened.inspector.arrays(batch, where))
                    del batch
                    if offset < num_digests:
                        digests.append(digest(flats[-1]))
                    if not self._is_sent_at_once(is_last=offset + 1 == len(ticket.indices)):
                        keep_as_made(flats[-1])
            except BaseException as error:  # noqa: BLE001 - user code may raise anything
                event = Failure.of(error, str(where))
                if opened is not None:
                    opened.has_raised = True
            if opened is not None:
                opened.asked = opened.asked or place.asked
        drawn = self._shared.look() if self._shared is not None and record.seeded else ()
        graphs = self._graphs.look() if record.seeded else ()
        started = time.perf_counter()
        schema = opened.inspector.schema if opened is not None else None
        frame = encode(flats, schema) if schema is not None and flats else None
        if frame is not None and self._compressor is not None:
            frame = self._compressor.pack(frame, time.perf_counter() - begun)
        ended_at = time.perf_counter()
        asked = opened.asked if opened is not None else False
        run = Run(
            frame, len(flats), produce_s, ended_at - started, asked, ended_at - begun, drawn, graphs, tuple(digests)
        )
        if event is not None:
            return Raised(run, event)
        return Ended(run) if ended else Made(run)

    def rest(self) -> None:
        """Make nothing more of any stream. Called from another thread than those that make batches."""
        self._rests = True

    def drop_stream(self, stream: int) -> None:
        """Make nothing more of a stream. Called from another thread than those that make batches."""
        self._closed.add(stream)

    def close_stream(self, stream: int) -> None:
        """Forget a stream's source; a generator runs its ``finally`` blocks, a Sequence as it came is kept."""
        with self._lock:
            self._closed.add(stream)
            opened = self._opened.pop(stream, None)
            if (
                opened is not None
                and isinstance(opened.source, SequenceSource)
                and opened.record.digest is not None
                and opened.version == 0
                and not opened.has_raised
            ):
                self._kept[opened.record.digest] = opened.source
        if opened is not None and isinstance(opened.source, GeneratorSource):
            opened.source.close()

    def _place_of(self, ticket: Ticket, record: SourceRecord) -> Place:
        opened = self._opened.get(ticket.stream)
        if opened is not None and not record.info.is_sequence:
            return opened.place  # its random numbers go on from batch to batch
        # A generator lane's identity counts, not the producer's: lane k is copy k even where one producer holds it.
        number = self.worker if record.info.is_sequence else ticket.lane
        info = WorkerInfo(number, record.num_lanes, worker_seed(record.root, number))
        return Place(info, lane_rng(record.root, number))

    def _open(self, ticket: Ticket, record: SourceRecord, state: Any, place: Place) -> _Opened:
        with self._lock:
            opened = self._opened.get(ticket.stream)
            if opened is not None and (opened.version == ticket.version or not record.info.is_sequence):
                return opened
            # A new object, never a change of the old one: another thread may still be making a batch with it.
            source = self._load(record, ticket.version, state)
            inspector = opened.inspector if opened is not None else Inspector(bare_inputs=record.bare_inputs)
            opened = _Opened(record, source, ticket.version, inspector, place)
            self._opened[ticket.stream] = opened
            return opened

    def _load(self, record: SourceRecord, version: int, state: Any) -> SequenceSource | GeneratorSource:
        """The source in this version, ready to run here."""
        if Path(record.directory).is_dir():
            os.chdir(record.directory)  # relative paths mean what they mean to the caller, on one machine
        kept = self._kept.pop(record.digest, None) if record.digest is not None and version == 0 else None
        if kept is not None:
            return kept
        # First: there may not be room for the sources of two calls.
        self._kept = {digest: source for digest, source in self._kept.items() if digest in record.call_digests}
        with _no_collections():
            with naming_missing_modules(record.name):
                source = put_together(state())
            return open_source(source, record.info)

    def _seed(self, record: SourceRecord, pass_index: int, index: int, place: Place) -> None:
        """Give a Sequence's batch its random numbers."""
        place.draw_from(batch_rng(record.root, pass_index, index))
        if record.seeded:
            seed = self._shared.seed if self._shared is not None else seed_batch
            seed(record.root, pass_index, index)

    def _is_sent_at_once(self, *, is_last: bool) -> bool:
        """Whether a ticket's batch is written to the object store before user code runs again."""
        return is_last

    @staticmethod
    def _next(source: SequenceSource | GeneratorSource, index: int) -> Any:
        match source:
            case SequenceSource():
                return source.make(index)
            case GeneratorSource():
                return source.make()
            case _:
                raise InternalError(f"unknown source {source!r}")

    def _describe(self, record: SourceRecord) -> str:
        return f"producer {self.worker} ({self.place})"
