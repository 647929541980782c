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
from rayfeed.frame.layout import Frame
from rayfeed.producer.answers import Answers
from rayfeed.producer.compressor import Compressor
from rayfeed.producer.loading import NotFetchedError
from rayfeed.producer.messages import Answer, At, Ended, Made, NotFetched, Raised, Run, SourceRecord, Ticket
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
    asked: bool = False
    has_raised: bool = False


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


@dataclass
class _Done:
    """What was done for a ticket, as far as it is."""

    where: _Where
    opened: _Opened | None = None
    flats: list[list[np.ndarray]] = field(default_factory=list)  # each batch's arrays
    digests: list[bytes] = field(default_factory=list)
    produce_s: float = 0.0
    begun: float = field(default_factory=time.perf_counter)  # when the source was open
    event: Failure | None = None
    ended: bool = False


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
        self._answers: dict[int, Answers] = {}  # of generators
        self._making: dict[tuple[int, int, int], tuple[int, float]] = {}  # ticket -> its batch, and since when
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
        if record.info.is_sequence:
            return self._make(ticket, record, state, None)
        with self._lock:
            answers = self._answers.setdefault(ticket.stream, Answers(self.NUM_NEWEST))
        with answers.lock:
            return answers.known(ticket) or self._make(ticket, record, state, answers)

    def _make(self, ticket: Ticket, record: SourceRecord, state: Any, answers: Answers | None) -> Answer:
        if self._rests or ticket.stream in self._closed:  # its consumer is gone; another thread was told so first
            return Ended(Run(None, 0, 0.0, 0.0, asked=False))
        place = self._place_of(ticket, record)
        done = _Done(_Where(self._describe(record), record, ticket))
        key = ticket.stream, ticket.number, ticket.attempt
        with running_in(place):
            try:
                done.opened = self._open(ticket, record, state, place)
                done.begun = time.perf_counter()
                self._make_batches(done, done.opened, key, place, answers)
            except NotFetchedError as error:
                return NotFetched(str(error), error.is_full)
            except BaseException as error:  # noqa: BLE001 - user code may raise anything
                done.event = Failure.of(error, str(done.where))
                if done.opened is not None:
                    done.opened.has_raised = True
            finally:
                self._making.pop(key, None)
            if done.opened is not None:
                done.opened.asked = done.opened.asked or place.asked
        return self._laid_out(done, answers)

    def _make_batches(
        self, done: _Done, opened: _Opened, key: tuple[int, int, int], place: Place, answers: Answers | None
    ) -> None:
        ticket, record = done.where.ticket, done.where.record
        num_digests = NUM_COMPARED - ticket.first if record.num_lanes > 1 and not record.info.is_sequence else 0
        for offset, index in enumerate(ticket.indices):
            if self._rests or ticket.stream in self._closed:
                done.ended = True
                return
            done.where.offset = offset
            if record.info.is_sequence:
                self._seed(record, ticket.pass_index, index, place)
            started = time.perf_counter()
            self._making[key] = offset, started
            batch = self._next(opened.source, index)
            done.produce_s += time.perf_counter() - started
            if batch is GeneratorSource.END:
                done.ended = True
                return
            flat = opened.inspector.arrays(batch, done.where)
            done.flats.append(flat)
            del batch
            if offset < num_digests:
                done.digests.append(digest(flat))
            is_sent_at_once = self._is_sent_at_once(is_last=offset + 1 == len(ticket.indices))
            if answers is not None:
                answers.look_at(flat)
                is_sent_at_once = is_sent_at_once and not answers.refills
            if not is_sent_at_once:
                keep_as_made(flat)

    def _laid_out(self, done: _Done, answers: Answers | None) -> Answer:
        """The answer with what was made; noted where answers are kept."""
        ticket, record, opened = done.where.ticket, done.where.record, done.opened
        drawn = self._shared.look() if self._shared is not None and record.seeded else ()
        graphs = self._graphs.look() if record.seeded else ()
        started = time.perf_counter()
        laid = frame = None
        if opened is not None and opened.inspector.schema is not None and done.flats:
            try:
                laid = encode(done.flats, opened.inspector.schema)
                frame = self._packed(laid, time.perf_counter() - done.begun)
            except MemoryError as error:
                done.event, done.flats = Failure.of(error, f"{done.where}, laying out what was made"), []
        ended = time.perf_counter()
        run = Run(
            frame,
            len(done.flats),
            done.produce_s,
            ended - started,
            opened.asked if opened is not None else False,
            ended - done.begun,
            drawn,
            graphs,
            tuple(done.digests),
        )
        answer: Answer = Made(run)
        if done.event is not None:
            answer = Raised(run, done.event)
        elif done.ended:
            answer = Ended(run)
        if answers is not None and opened is not None:
            answers.keep(ticket, answer, laid if frame is laid else None, done.flats[-1] if done.flats else ())
        return answer

    def standing(self) -> tuple[At, ...]:
        """What is being made now. Called from another thread than those that make batches."""
        now = time.perf_counter()
        return tuple([At(*key, offset, now - since) for key, (offset, since) in self._making.copy().items()])

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
            self._answers.pop(stream, None)
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

    def _packed(self, frame: Frame, make_s: float) -> Frame:
        """The frame as it is sent."""
        return self._compressor.pack(frame, make_s) if self._compressor is not None else frame

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
