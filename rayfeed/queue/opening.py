"""From what a caller asked for to running streams.

A `StreamSpec` says all there is to know of a stream and can be sent to another process: the caller makes it, with every
check that can be made beforehand, and the process that consumes opens it. Streams opened together share one pool of
producers; those whose source stays at home share the thread there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rayfeed.errors import OptionError, SourceError
from rayfeed.options import ProducerOptions, StreamOptions
from rayfeed.producer.cluster import ensure_ray, store_capacity
from rayfeed.producer.home_pool import HomePool
from rayfeed.producer.mailbox import Mailbox
from rayfeed.producer.messages import SourceRecord
from rayfeed.producer.placement import most_producers
from rayfeed.queue.bound import Bound
from rayfeed.queue.conductor import Conductor
from rayfeed.queue.inline import InlineStream
from rayfeed.queue.keeping import Demand, Keeper
from rayfeed.queue.lane_window import LanePlan, LaneWindow
from rayfeed.queue.position import START, Position
from rayfeed.queue.room import queue_bytes
from rayfeed.queue.sequence_window import SequencePlan, SequenceWindow
from rayfeed.queue.stream import ProducedStream, Stream
from rayfeed.queue.travel import pack_or_keep
from rayfeed.queue.window import Window
from rayfeed.source.image_iterator import settled
from rayfeed.source.missing import naming_missing_modules
from rayfeed.source.packed import Packed
from rayfeed.source.seeding import root_seed
from rayfeed.source.shipping import put_together
from rayfeed.source.stream import SourceInfo, describe


@dataclass(frozen=True)
class StreamSpec:
    """One stream, as asked for.

    Attributes:
        info: What the source is.
        name: The caller's name for it.
        options: The caller's arguments.
        root: The root seed, drawn already where the caller gave none.
        packed: The source as it travels, its large arrays not copied; None where it runs in the caller's process.
        source: The source itself, only there.
        is_home: Whether a thread of the caller's process runs it.
        single: Whether a generator is one stream whatever the number of producers.
        max_passes: Passes wanted in all.
        max_batches: Batches wanted in all.
        pass_cap: Batches wanted of each pass.
        directory: The caller's working directory.
        start: Where a Sequence's stream begins.
    """

    info: SourceInfo
    name: str
    options: StreamOptions
    root: int
    packed: Packed | None
    source: Any = None
    is_home: bool = False
    single: bool = False
    max_passes: int | None = None
    max_batches: int | None = None
    pass_cap: int | None = None
    directory: str = field(default_factory=lambda: str(Path.cwd()))
    start: Position = START

    @property
    def num_lanes(self) -> int:
        """Copies of a generator that run."""
        return 1 if self.single else max(self.options.num_producers, 1)

    def digest(self) -> bytes | None:
        """Tells a Sequence that travels from every other; None for what producers do not know again."""
        return self.packed.digest() if self.info.is_sequence and self.packed is not None else None

    def record(self, digest: bytes | None = None, call_digests: frozenset[bytes] = frozenset()) -> SourceRecord:
        """The stream's source, for producers.

        Args:
            digest: The stream's, where producers shall know it again.
            call_digests: Those of all streams of the call.
        """
        return SourceRecord(
            info=self.info,
            name=self.name,
            root=self.root,
            seeded=self.options.seed is not None,
            bare_inputs=self.options.bare_inputs,
            num_lanes=self.options.num_producers if self.info.is_sequence else self.num_lanes,
            directory=self.directory,
            digest=digest,
            call_digests=call_digests,
        )

    def plan(self, num_threads: int) -> SequencePlan | LanePlan:
        """How the stream is traversed by producers of this many threads."""
        if self.info.length is not None:
            return SequencePlan(
                length=self.info.length,
                has_epoch_end=self.info.has_epoch_end,
                has_epoch_begin=self.info.has_epoch_begin,
                shuffle=self.options.shuffle,
                root=self.root,
                ordered=self.options.ordered,
                max_passes=self.max_passes,
                max_batches=self.max_batches,
                pass_cap=self.pass_cap,
                start=self.start,
            )
        return LanePlan(
            num_lanes=self.num_lanes,
            ordered=self.options.ordered,
            max_batches=self.max_batches,
            one_at_a_time=num_threads > 1,
        )


def specify(
    source: Any,
    *,
    name: str,
    options: StreamOptions,
    ships: bool,
    single: bool = False,
    max_passes: int | None = None,
    max_batches: int | None = None,
    pass_cap: int | None = None,
) -> StreamSpec:
    """Check a source and take down how it is wanted. Runs in the caller's process, before anything is started.

    Args:
        source: The user's Sequence or generator.
        name: The argument it came by.
        options: The caller's arguments.
        ships: Whether it runs in another process than this.
        single: Whether a generator is one stream whatever the number of producers.
        max_passes: Passes wanted in all.
        max_batches: Batches wanted in all.
        pass_cap: Batches wanted of each pass.

    Raises:
        SourceError: It is no source, is empty, or cannot travel.
    """
    info = describe(source, name=name)
    if info.is_sequence and not info.length:
        raise SourceError(f"{name} ({info.type_name}) is empty: its length is 0 batches.")
    root = root_seed(options.seed)
    source = settled(source, root if options.seed is not None else None)
    if info.is_sequence and info.is_endless and options.shuffle:
        raise SourceError(f"{name} ({info.type_name}) cannot be shuffled: it is endless (its num_batches is None).")
    if not info.is_sequence and not single and options.least is not None:
        raise OptionError(
            f"workers={options.workers!r} is for a Sequence, whose batches any producer can make; {name} "
            f"({info.type_name}) is a generator, of which each producer runs its own copy.\n"
            "  Give a number of workers."
        )
    packed = pack_or_keep(source, name=name, info=info, options=options) if ships else None
    return StreamSpec(
        info=info,
        name=name,
        options=options,
        root=root,
        packed=packed,
        source=source if packed is None else None,
        is_home=ships and packed is None,
        single=single,
        max_passes=max_passes,
        max_batches=max_batches,
        pass_cap=pass_cap,
    )


@dataclass(frozen=True)
class OpenStreams:
    """Running streams, and what drives them.

    Attributes:
        streams: One per spec.
        keeper: Has the pool of producers, which may serve other calls later.
        home: Drives the thread at home, where there is one.
    """

    streams: list[Stream]
    keeper: Keeper
    home: Conductor | None

    def interrupt(self) -> None:
        """End the streams, so that a consumer that waits for a batch gets an error. Called by any thread."""
        for stream in self.streams:
            if isinstance(stream, ProducedStream):  # in line it is the consumer itself that makes the batch
                stream.close()

    def abort(self) -> None:
        """End all that makes batches; a consumer that waits for one gets an error. Called by any thread."""
        self.keeper.close()
        if self.home is not None:
            self.home.close()

    def close(self) -> None:
        """End the streams, and the thread at home; the producers stay with their keeper. May be called twice."""
        for stream in self.streams:
            stream.close()
        if self.home is not None:
            self.home.close()


def open_streams(
    specs: Sequence[StreamSpec], producers: ProducerOptions, *, keeper: Keeper, mailbox: Mailbox | None = None
) -> OpenStreams:
    """Open streams; in line where the first spec asks for no workers.

    Args:
        specs: The streams. The options of the first that travels decide the pool.
        producers: What each producer needs.
        keeper: Where the pool comes from.
        mailbox: Where orders wait for the caller's process, where that is not this one.

    Raises:
        OptionError: The bounds are more than the object store here holds.
        PlacementError: No node could ever hold a producer.
    """
    if specs[0].options.is_inline:
        return OpenStreams([_open_inline(spec) for spec in specs], keeper, None)
    travelling = [spec for spec in specs if not spec.is_home]
    staying = [spec for spec in specs if spec.is_home]
    if travelling:
        ensure_ray()
    store_bytes = store_capacity() if travelling else None
    asked = [spec.options.max_queue_bytes for spec in specs]
    bounds = queue_bytes(asked, store_bytes) if store_bytes is not None else [(one, None) for one in asked]
    pool = keeper.conductor(_demand(travelling[0], producers)) if travelling else None
    home = _home_conductor(staying, mailbox, producers.batch_timeout_s) if staying else None
    digests = [spec.digest() if keeper.knows_sources else None for spec in specs]
    known = frozenset(digest for digest in digests if digest is not None)
    streams: list[Stream] = []
    for spec, digest, bound in zip(specs, digests, bounds, strict=True):
        conductor = home if spec.is_home else pool
        if conductor is not None:
            record = spec.record(digest, known)
            room = None if spec.is_home else store_bytes
            streams.append(_open_made(spec, record, conductor, bound, room, producers))
    if home is not None:
        home.start()
    return OpenStreams(streams, keeper, home)


def _open_made(
    spec: StreamSpec,
    record: SourceRecord,
    conductor: Conductor,
    num_bytes: tuple[int | None, int | None],
    store_bytes: int | None,
    producers: ProducerOptions,
) -> Stream:
    bound = Bound(spec.options.max_queue_size, *num_bytes)
    if spec.info.is_sequence:
        record = replace(record, num_lanes=conductor.crew.span[1])
    plan = spec.plan(conductor.crew.num_threads)
    if isinstance(plan, LanePlan):
        plan = replace(plan, on_loss=producers.on_generator_loss)
    state = conductor.open_stream(record, spec.packed, _window_maker(plan, bound))
    state.store_bytes = store_bytes
    return ProducedStream(conductor, state, is_home=spec.is_home)


def _demand(spec: StreamSpec, producers: ProducerOptions) -> Demand:
    # A generator's tickets must come in order, which takes a producer of one thread.
    num_threads = spec.options.num_threads if spec.info.is_sequence else 1
    least = spec.options.least
    if least is None:
        return Demand(spec.options.num_producers, num_threads, producers)
    ensure_ray()
    return Demand(max(spec.options.most or most_producers(), least), 1, producers, least)


def _home_conductor(specs: Sequence[StreamSpec], mailbox: Mailbox | None, batch_timeout_s: float) -> Conductor:
    if mailbox is not None:
        return Conductor(lambda post: HomePool(mailbox, None, batch_timeout_s, post))
    sources = {spec.name: spec.source for spec in specs}
    return Conductor(lambda post: HomePool(Mailbox(), sources, batch_timeout_s, post))


def _open_inline(spec: StreamSpec) -> InlineStream:
    with naming_missing_modules(spec.name):
        source = spec.source if spec.packed is None else put_together(spec.packed.copied())
    return InlineStream(source, spec.record(), spec.plan(1))


def _window_maker(plan: SequencePlan | LanePlan, bound: Bound) -> Callable[[int], Window]:
    def make(number: int) -> Window:
        match plan:
            case SequencePlan():
                return SequenceWindow(stream=number, bound=bound, plan=plan)
            case LanePlan():
                return LaneWindow(stream=number, bound=bound, plan=plan)

    return make
