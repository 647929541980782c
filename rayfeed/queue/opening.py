"""From what a caller asked for to running streams.

A `StreamSpec` says all there is to know of a stream and can be sent to another process: the caller makes it, with every
check that can be made beforehand, and the process that consumes opens it. Streams opened together share one pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayfeed.errors import SourceError
from rayfeed.options import ProducerOptions, StreamOptions
from rayfeed.producer.cluster import ensure_ray
from rayfeed.producer.messages import SourceRecord
from rayfeed.producer.placement import producer_claim
from rayfeed.queue.conductor import Conductor
from rayfeed.queue.inline import InlineStream
from rayfeed.queue.lane_window import LanePlan, LaneWindow
from rayfeed.queue.sequence_window import SequencePlan, SequenceWindow
from rayfeed.queue.stream import ProducedStream, Stream
from rayfeed.queue.window import Bound, Window
from rayfeed.source.image_iterator import settled
from rayfeed.source.seeding import root_seed
from rayfeed.source.shipping import pack, unpack
from rayfeed.source.stream import SourceInfo, describe


@dataclass(frozen=True)
class StreamSpec:
    """One stream, as asked for.

    Attributes:
        info: What the source is.
        name: The caller's name for it.
        options: The caller's arguments.
        root: The root seed, drawn already where the caller gave none.
        payload: The source's cloudpickle bytes; None where it runs in line in the caller's process.
        source: The source itself, only there.
        single: Whether a generator is one stream whatever the number of producers.
        max_passes: Passes wanted in all.
        max_batches: Batches wanted in all.
        pass_cap: Batches wanted of each pass.
        directory: The caller's working directory.
    """

    info: SourceInfo
    name: str
    options: StreamOptions
    root: int
    payload: bytes | None
    source: Any = None
    single: bool = False
    max_passes: int | None = None
    max_batches: int | None = None
    pass_cap: int | None = None
    directory: str = field(default_factory=lambda: str(Path.cwd()))

    @property
    def num_lanes(self) -> int:
        """Copies of a generator that run."""
        return 1 if self.single else max(self.options.num_producers, 1)

    def record(self) -> SourceRecord:
        """The stream's source, for producers."""
        return SourceRecord(
            info=self.info,
            name=self.name,
            root=self.root,
            seeded=self.options.seed is not None,
            bare_inputs=self.options.bare_inputs,
            num_lanes=self.options.num_producers if self.info.is_sequence else self.num_lanes,
            directory=self.directory,
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
    payload = pack(source, name=name) if ships else None
    return StreamSpec(
        info=info,
        name=name,
        options=options,
        root=root,
        payload=payload,
        source=None if ships else source,
        single=single,
        max_passes=max_passes,
        max_batches=max_batches,
        pass_cap=pass_cap,
    )


def open_streams(specs: Sequence[StreamSpec], producers: ProducerOptions) -> tuple[Conductor | None, list[Stream]]:
    """Open streams that share a pool of producers; in line where the first spec asks for no workers.

    Args:
        specs: The streams; the first one's options decide the pool.
        producers: What each producer needs.

    Returns:
        The conductor to close in the end (None where there are no producers), and a stream per spec.

    Raises:
        PlacementError: No node could ever hold a producer.
    """
    options = specs[0].options
    if options.workers == 0:
        return None, [_open_inline(spec) for spec in specs]
    ensure_ray()
    # A generator's tickets must come in order, which takes a producer of one thread.
    num_threads = options.num_threads if specs[0].info.is_sequence else 1
    conductor = Conductor(
        num_producers=options.num_producers,
        num_threads=num_threads,
        claim=producer_claim(producers, options.num_producers),
        options=producers,
    )
    streams: list[Stream] = []
    for spec in specs:
        payload = spec.payload if spec.payload is not None else pack(spec.source, name=spec.name)
        state = conductor.open_stream(spec.record(), payload, _window_maker(spec, num_threads))
        streams.append(
            ProducedStream(
                conductor,
                state,
                num_producers=options.num_producers,
                num_workers=options.num_producers * num_threads,
            )
        )
    conductor.start()
    return conductor, streams


def _open_inline(spec: StreamSpec) -> InlineStream:
    source = spec.source if spec.payload is None else unpack(spec.payload)
    return InlineStream(source, spec.record(), spec.plan(1))


def _window_maker(spec: StreamSpec, num_threads: int) -> Any:
    bound = Bound(spec.options.max_queue_size, spec.options.max_queue_bytes)
    plan = spec.plan(num_threads)

    def make(number: int) -> Window:
        match plan:
            case SequencePlan():
                return SequenceWindow(stream=number, bound=bound, plan=plan)
            case LanePlan():
                return LaneWindow(stream=number, bound=bound, plan=plan)

    return make
