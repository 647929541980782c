"""A stream without producers: the source runs in the consumer's thread, when a batch is asked for (contract C10)."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import numpy as np

from rayfeed.batch import Batch, unflatten
from rayfeed.errors import FeedClosedError, InternalError
from rayfeed.frame.inspector import Inspector
from rayfeed.frame.schema import FrameSchema
from rayfeed.producer.messages import Opened, SourceRecord
from rayfeed.queue.canonical import begin_pass, end_pass, replay_pass
from rayfeed.queue.deliveries import PassBegun, PassEnded, StreamEnded
from rayfeed.queue.lane_window import LanePlan
from rayfeed.queue.meter import Meter
from rayfeed.queue.position import START
from rayfeed.queue.sequence_window import SequencePlan
from rayfeed.queue.stream import Delivered, Item
from rayfeed.source.seeding import batch_rng, lane_rng, pass_order, seeded
from rayfeed.source.stream import GeneratorSource, SequenceSource, open_source
from rayfeed.source.worker_info import Place, running_in
from rayfeed.stats import FeedStats


class FlatReader:
    """One batch in the consumer's own memory, with the face of a frame's reader."""

    def __init__(self, schema: FrameSchema, arrays: list[np.ndarray], batch: Batch) -> None:
        self.schema = schema
        self._arrays = [_read_only(array) for array in arrays]
        self._batch = batch

    def num_bytes(self, index: int) -> int:
        """Bytes of the batch's arrays."""
        return sum(array.nbytes for array in self._arrays)

    def arrays(self, index: int) -> list[np.ndarray]:
        """The batch's own arrays."""
        return self._arrays

    def batch(self, index: int, *, copy: bool = False) -> Batch:
        """The batch as its source gave it, or a copy."""
        structure = self.schema.structure
        return unflatten(structure, [np.array(array, copy=True) if copy else array for array in self._arrays])


class InlineStream:
    """Runs a source in line.

    Args:
        source: The user's own object; it is not copied, and a generator is advanced only by what is taken.
        record: What it is.
        plan: How it is traversed.
    """

    def __init__(self, source: Any, record: SourceRecord, plan: SequencePlan | LanePlan) -> None:
        self._record = record
        self._plan = plan
        self._meter = Meter()
        self._inspector = Inspector(bare_inputs=record.bare_inputs)
        self._produce_s = 0.0
        self._closed = False
        self._failure: BaseException | None = None
        self._lane = Place(None, lane_rng(record.root, 0))  # of a generator
        with running_in(self._lane):
            self._opened = open_source(source, record.info)
        self._items = self._iterate()

    def start(self) -> None:
        pass

    def next_item(self) -> Item:
        if self._closed:
            raise FeedClosedError("this feed is closed: open a new one to read its source again.")
        if self._failure is not None:
            raise self._failure
        started = time.perf_counter()
        try:
            item = next(self._items, None)
        except Exception as error:
            self._failure = error  # raised again by every later call: the stream has not ended
            raise
        except BaseException as error:
            self._failure = FeedClosedError(
                f"this feed was interrupted ({type(error).__name__}) while {self._record.name} made a batch in this "
                "process, and its loop over the source ended with that: open a new one.\n"
                "  One that is given this one's state_dict() begins with the batch that was interrupted."
            )
            raise
        finally:
            self._meter.waited(time.perf_counter() - started)
        if item is None:
            return StreamEnded()
        if isinstance(item, Delivered):
            self._meter.delivered(item.reader.num_bytes(item.place))
        return item

    def peek(self) -> None:
        """Nothing is made before it is asked for (contract C10)."""

    def processes(self) -> list[Opened]:
        """None beside the consumer's own."""
        return []

    def stats(self) -> FeedStats:
        meter = self._meter
        return FeedStats(
            batches=meter.batches,
            bytes=meter.bytes,
            wait_s=meter.wait_s,
            first_wait_s=meter.first_wait_s,
            run_s=meter.run_s(),
            produce_s=self._produce_s,
        )

    def close(self) -> None:
        self._closed = True
        self._items.close()

    def _iterate(self) -> Generator[Item]:
        match self._opened, self._plan:
            case SequenceSource(), SequencePlan():
                yield from self._passes(self._opened, self._plan)
            case GeneratorSource(), LanePlan():
                yield from self._generated(self._opened, self._plan)
            case opened, _:
                raise InternalError(f"{type(opened).__name__} cannot be traversed as {self._plan}")

    def _passes(self, source: SequenceSource, plan: SequencePlan) -> Generator[Item]:
        start, num_delivered = plan.start, 0
        pass_index, length = start.pass_index, plan.length
        for earlier in range(pass_index) if plan.must_replay() else ():
            hook = partial(replay_pass, source, self._record, earlier, plan.pass_cap)
            self._made(hook, f"the hooks of pass {earlier}, again")
            length = source.length()
        while num_delivered != plan.max_batches and (plan.max_passes is None or pass_index < plan.max_passes):
            if plan.has_epoch_begin:
                hook = partial(begin_pass, source, self._record, pass_index)
                length = self._made(hook, f"on_epoch_begin before pass {pass_index}")
                yield PassBegun(pass_index, length if plan.pass_cap is None else min(length, plan.pass_cap))
            wanted = length if plan.pass_cap is None else min(length, plan.pass_cap)
            start.check(wanted)
            order = pass_order(plan.root, pass_index, length).tolist() if plan.shuffle else range(length)
            for number, index in enumerate(order[:wanted]):
                if start.is_taken(number):
                    continue
                what = f"batch {index} of pass {pass_index}"
                place = Place(None, batch_rng(plan.root, pass_index, index))
                with seeded(plan.root, pass_index, index) if self._record.seeded else contextlib.nullcontext():
                    batch = self._made(partial(source.make, index), what, place)
                yield self._delivered(batch, what, number)
                num_delivered += 1
                if num_delivered == plan.max_batches and start.next_place(number + 1) < length:
                    return
            start = START
            if wanted == length and plan.has_epoch_end:
                hook = partial(end_pass, source, self._record, pass_index)
                length = self._made(hook, f"on_epoch_end after pass {pass_index}")
            yield PassEnded(pass_index, length if plan.pass_cap is None else min(length, plan.pass_cap))
            pass_index += 1

    def _generated(self, source: GeneratorSource, plan: LanePlan) -> Generator[Item]:
        for number in itertools.count() if plan.max_batches is None else range(plan.max_batches):
            batch = self._made(source.make, f"batch {number}", self._lane)
            if batch is GeneratorSource.END:
                return
            yield self._delivered(batch, f"batch {number}", number)

    def _made(self, make: Callable[[], Any], what: str, place: Place | None = None) -> Any:
        started = time.perf_counter()
        try:
            with running_in(place) if place is not None else contextlib.nullcontext():
                return make()
        except Exception as error:
            error.add_note(f"rayfeed: raised in {self._record.name} in line, {what}")
            raise
        finally:
            self._produce_s += time.perf_counter() - started

    def _delivered(self, batch: Batch, what: str, number: int) -> Delivered:
        where = f"{self._record.name} in line, {what}"
        arrays = self._inspector.arrays(batch, where)
        if self._inspector.schema is None:
            raise InternalError(f"{where}: a batch was checked, and nothing was learnt of it")
        return Delivered(FlatReader(self._inspector.schema, arrays, batch), 0, number)


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to: a batch looks the same wherever it was made."""
    view = array.view()
    view.flags.writeable = False
    return view
