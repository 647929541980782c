"""`rayfeed.Feed`: a stream of batches for any consumer (contract I)."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, Self

from rayfeed.batch import Batch
from rayfeed.errors import FeedClosedError
from rayfeed.options import ProducerOptions, StreamOptions, check_integer
from rayfeed.queue.keeping import Keeper
from rayfeed.queue.opening import OpenStreams, open_streams, specify
from rayfeed.queue.stream import Delivered
from rayfeed.queue.window import PassBegun, PassEnded, StreamEnded
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
        seed: Root of every random order; for a Sequence also seeds `random` and `numpy.random` before each batch.
        max_queue_bytes: Bound on the bytes of the waiting batches. None: a quarter of the object store of the
            consumer's node, shared by the streams of a call.
        ordered: Whether batches come in the source's order (several generator copies take turns), instead of first
            made, first delivered.
        copy: Whether batches are private, writable arrays, instead of read-only views of shared memory that keep the
            memory of their whole frame in use for as long as they live.
        producers: What each producer needs of the cluster.

    Raises:
        OptionError: An argument is out of range.
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
        self._copy = copy
        keeper = Keeper(knows_sources=False)
        try:
            opened = open_streams([spec], producers or ProducerOptions(), keeper=keeper)
        except BaseException:
            keeper.close()
            raise
        (self._stream,) = opened.streams
        self._finalizer = weakref.finalize(self, _close, opened)
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
            item = self._stream.next_item()
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

    def take(self, count: int) -> Iterator[Batch]:
        """Give exactly the next `count` batches, across the ends of passes; fewer only where a generator ends.

        Args:
            count: Batches to read.
        """
        check_integer("count", count, least=0)
        return self._take(count)

    def _take(self, count: int) -> Iterator[Batch]:
        while count:
            item = self._stream.next_item()
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


def _close(opened: OpenStreams) -> None:
    """What is left to do for a feed that is closed, or was dropped."""
    opened.close()
    opened.keeper.close()
