"""`rayfeed.Feed`: a stream of batches for any consumer (contract I)."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

from rayfeed.batch import Batch
from rayfeed.errors import FeedClosedError, OptionError, SourceError
from rayfeed.options import ProducerOptions, StreamOptions, check_integer
from rayfeed.producer.messages import Opened
from rayfeed.queue.deliveries import PassBegun, PassEnded, StreamEnded
from rayfeed.queue.keeping import Keeper
from rayfeed.queue.opening import OpenStreams, StreamSpec, open_streams, specify
from rayfeed.queue.position import START, Reading, SavedState
from rayfeed.queue.stream import Delivered, Item
from rayfeed.stats import FeedStats


class Feed:
    """Batches of a Sequence or generator, made by Ray actors and read here.

    Producers start at once and make batches ahead, up to the queue's bound, until the feed is closed. A feed is a
    context manager; one that is dropped without `close` is closed when it is collected. One thread may read it.

    Args:
        source: A `rayfeed.Sequence` (or any object with ``__getitem__`` and ``__len__`` giving batches), a generator
            object, or a function that returns a generator or iterator. It is sent to the producers; with ``workers=0``
            it runs here, in line. A generator that cannot be sent (it was started, or holds an open file) runs in a
            thread of this process, with a warning, unless `use_multiprocessing`.
        workers: Producers, or threads of one producer without `use_multiprocessing`; 0 for none. "auto", or the least
            and the most as a tuple: for a Sequence, producers whose number follows how long this side waits.
        use_multiprocessing: Whether `workers` counts processes over the cluster. Each runs its own copy of a generator.
        max_queue_size: Finished batches that may wait, besides one in each worker's hands.
        shuffle: Whether each pass of a Sequence has a fresh random order of its batches.
        seed: Root of every random order; for a Sequence also seeds `random` and `numpy.random` before each batch, and
            the global streams of TensorFlow, torch and Keras where the producer has imported them.
        max_queue_bytes: Bound on the bytes of the waiting batches. None: a quarter of the object store of the
            consumer's node, shared by the streams of a call.
        ordered: Whether batches come in the source's order (several generator copies take turns), instead of first
            made, first delivered.
        copy: Whether batches are private, writable arrays, instead of read-only views of shared memory that keep the
            memory of their whole frame in use for as long as they live.
        producers: What each producer needs of the cluster.

    Raises:
        OptionError: An argument is out of range, or `max_queue_bytes` more than the object store here can hold.
        SourceError: `source` is no source, is empty, or cannot be sent to a producer.
        PlacementError: No node could ever hold a producer.

    Example:
        >>> with rayfeed.Feed(Images(), workers=8, use_multiprocessing=True) as feed:
        ...     for inputs, targets in feed:
        ...         ...
    """

    def __init__(
        self,
        source: Any,
        workers: int | Literal["auto"] | tuple[int, int] = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        shuffle: bool = False,
        seed: int | None = None,
        *,
        max_queue_bytes: int | None = None,
        ordered: bool = True,
        copy: bool = False,
        producers: ProducerOptions | None = None,
    ) -> None:
        options = StreamOptions(
            workers=workers,
            use_multiprocessing=use_multiprocessing,
            max_queue_size=max_queue_size,
            max_queue_bytes=max_queue_bytes,
            shuffle=shuffle,
            seed=seed,
            ordered=ordered,
            copy=copy,
        )
        spec = specify(source, name="source", options=options, ships=not options.is_inline)
        self._copy, self._ordered = copy, ordered
        self._producers = producers or ProducerOptions()
        self._keeper = Keeper(knows_sources=False)
        self._open(spec)
        self._saved = SavedState(
            is_sequence=spec.info.is_sequence,
            seed=spec.root,
            seeded=seed is not None,
            shuffle=shuffle,
            length=spec.info.length,
            copies=1 if spec.info.is_sequence else spec.num_lanes,
            position=START,
        )
        self._reading = Reading()
        self._num_skipped = 0  # batches of a generator to read and drop before the first
        self._spec: StreamSpec | None = spec  # until something is read: a state may be loaded
        self._source = source

    def _open(self, spec: StreamSpec) -> None:
        try:
            self._opened = open_streams([spec], self._producers, keeper=self._keeper)
        except BaseException:
            self._keeper.close()
            raise
        (self._stream,) = self._opened.streams
        self._finalizer = weakref.finalize(self, _close, self._opened)
        self._stream.start()

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the rest of the current pass of a Sequence, or the rest of a generator's stream.

        After a whole pass the next ``iter`` gives the next pass; after a loop that was left early, it goes on with the
        next batch.

        Raises:
            FeedClosedError: The feed was closed.
            Exception: What the source raised, when its place is reached.
        """
        any_read = False
        while True:
            item = self._next_item()
            match item:
                case Delivered():
                    any_read = True
                    yield item.batch(copy=self._copy)
                case PassEnded():
                    # An earlier reader may have stopped just before this pass end: then the next pass is wanted.
                    if any_read:
                        return
                case PassBegun():
                    continue
                case StreamEnded():
                    return

    def _next_item(self) -> Item:
        """The stream's next item, counted as consumed."""
        self._spec = self._source = None
        while self._num_skipped:
            if not isinstance(self._stream.next_item(), Delivered):
                raise SourceError(
                    f"the saved state has {self._reading.position().consumed} batches consumed; the generator ended "
                    f"{self._num_skipped} before that: it is another one."
                )
            self._num_skipped -= 1
        item = self._stream.next_item()
        match item:
            case Delivered() if self._saved.is_sequence:
                self._reading.took(item.number)
            case Delivered():
                self._reading.took_next()
            case PassEnded():
                self._reading.ended_pass()
            case _:
                pass
        return item

    def take(self, count: int) -> Iterator[Batch]:
        """Give exactly the next `count` batches, across the ends of passes; fewer only where a generator ends.

        Args:
            count: Batches to read.
        """
        check_integer("count", count, least=0)
        return self._take(count)

    def _take(self, count: int) -> Iterator[Batch]:
        while count:
            item = self._next_item()
            match item:
                case Delivered():
                    count -= 1
                    yield item.batch(copy=self._copy)
                case PassEnded() | PassBegun():
                    continue
                case StreamEnded():
                    return

    def stats(self) -> FeedStats:
        """The feed's figures so far: batches, bytes, waiting, time in the source."""
        return self._stream.stats()

    def processes(self) -> list[Opened]:
        """The processes that make batches now, on whichever node; for tools that watch them or put them to the test."""
        return self._stream.processes()

    def state_dict(self) -> dict[str, Any]:
        """Where the feed stands, as a small dict that JSON takes.

        It counts the batches that were taken from the feed, not those made ahead. It goes with a source that gives the
        same batch for the same index, and whose hooks leave the same after the same passes: with `seed`, their
        `random`, `numpy.random` and `rayfeed.rng` do.

        Raises:
            OptionError: Several copies of a generator with ``ordered=False``: which batches came first is chance.
        """
        self._check_has_position()
        return replace(self._saved, position=self._reading.position()).to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, with the next batch; once, before anything is read.

        The feed must have the same source, `shuffle` and `seed`, or no `seed`, and then takes the saved one. Any
        number of workers will do for a Sequence; copies of a generator must be as many as before. What the feed began
        to make is dropped, and the source is sent anew, as it is now. Hooks of a Sequence run again for each pass that
        ended, since nobody saved what they left; with ``workers=0`` on the source itself, which must be a new one. A
        generator runs from its beginning, and what was consumed of it is made once more and dropped.

        Args:
            state: What `state_dict` gave, also in another process.

        Raises:
            OptionError: It is no such state, or one of another feed; or something was read already.
            SourceError: It has more batches of a pass than the source; where the source has hooks, or ``workers=0``,
                or is a generator, the first read raises this. The feed ends then.
            FeedClosedError: The feed was closed.
        """
        saved = SavedState.from_dict(state)
        self._check_has_position()
        if not self._finalizer.alive:
            raise FeedClosedError("this feed is closed: open a new one to read its source again.")
        if self._spec is None:
            raise OptionError("load_state_dict comes once, before the first batch is read: open a new feed for it.")
        _check_same(saved, self._saved)
        if self._spec.is_home and saved.seeded and saved.seed != self._spec.root:
            raise OptionError(
                f"the state is of a feed with seed={saved.seed}; this one's generator runs in this process and has "
                f"begun without it.\n  Give seed={saved.seed}."
            )
        spec, self._spec = self._spec, None
        if spec.info.is_sequence or (saved.seed != spec.root and not spec.is_home):
            options = replace(spec.options, seed=saved.seed if saved.seeded else None)
            start = saved.position if spec.info.is_sequence else START
            try:
                self._opened.close()
                spec = specify(self._source, name="source", options=options, ships=not options.is_inline)
                self._finalizer.detach()
                self._open(replace(spec, root=saved.seed, start=start))
            except BaseException:
                self._keeper.close()
                raise
        self._source = None
        self._saved, self._reading = saved, Reading(saved.position)
        self._num_skipped = 0 if spec.info.is_sequence else saved.position.consumed

    def _check_has_position(self) -> None:
        if self._saved.copies > 1 and not self._ordered:
            raise OptionError(
                f"a feed of {self._saved.copies} copies of a generator with ordered=False has no position: which of "
                "their batches comes next is chance.\n"
                "  Use ordered=True, or a rayfeed.Sequence."
            )

    def close(self) -> None:
        """End the producers and drop what they made. May be called twice."""
        self._finalizer()

    def __enter__(self) -> Self:
        if not self._finalizer.alive:
            raise FeedClosedError("this feed is closed: open a new one to read its source again.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_same(saved: SavedState, ours: SavedState) -> None:
    """Raise `OptionError` unless a saved state is one of a feed like this."""
    if saved.is_sequence != ours.is_sequence:
        kinds = ["a generator", "a Sequence"]
        raise OptionError(
            f"the state is of {kinds[saved.is_sequence]}; this feed's source is {kinds[ours.is_sequence]}."
        )
    for name, what in (
        ("length", "batches in its first pass"),
        ("copies", "copies of its generator: workers, with use_multiprocessing"),
        ("shuffle", "for shuffle"),
    ):
        theirs, mine = getattr(saved, name), getattr(ours, name)
        if theirs != mine:
            raise OptionError(f"the state is of a feed with {theirs} {what}; this one has {mine}.")
    if ours.seeded and not (saved.seeded and saved.seed == ours.seed):
        theirs = f"seed={saved.seed}" if saved.seeded else "no seed"
        raise OptionError(
            f"the state is of a feed with {theirs}; this one has seed={ours.seed}.\n  Give the same, or none: then the "
            "saved one counts."
        )


def _close(opened: OpenStreams) -> None:
    """What is left to do for a feed that is closed, or was dropped."""
    opened.close()
    opened.keeper.close()
