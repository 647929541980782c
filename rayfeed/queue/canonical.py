"""The canonical copy of a Sequence: the one on which `on_epoch_end` and `on_epoch_begin` run.

It lives in the feed's process, so that it survives every producer, and in a thread of its own, so that a slow hook
keeps neither training nor other streams waiting. The user's own object is not touched: the copy is loaded from the
bytes the producers got, when the first hook is due. After the hooks between two passes (the end's, then the next one's
beginning) its state is sent as the next version, of which only what changed travels (`rayfeed.queue.versions`). All of
this runs while the last batches of the pass wait or train.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rayfeed.errors import SourceError
from rayfeed.producer.crew import Crew
from rayfeed.producer.messages import SourceRecord
from rayfeed.queue.events import HookDone, NextPass
from rayfeed.queue.sequence_window import Hooks
from rayfeed.queue.versions import Versions
from rayfeed.source.failure import Failure
from rayfeed.source.image_iterator import open_sequence
from rayfeed.source.packed import Packed
from rayfeed.source.seeding import batch_rng, seeded
from rayfeed.source.sequence import SequenceSource
from rayfeed.source.shipping import take_apart
from rayfeed.source.worker_info import Place, running_in

CLOSE_TIMEOUT_S = 10.0
"""How long `close` waits for a hook that is running. Python cannot end it; its thread does not keep the process."""

HOOK_INDEX = (1 << 32) - 1
"""Stands for `on_epoch_end` where a batch's index stands in a seed; no pass has so many batches."""

BEGIN_INDEX = HOOK_INDEX - 1
"""Stands for `on_epoch_begin` likewise."""


def end_pass(source: SequenceSource, record: SourceRecord, pass_index: int) -> int:
    """Run the hook after a whole pass.

    Returns:
        Batches of the next pass, at least 1 unless its `on_epoch_begin` is still to come.

    Raises:
        SourceError: None are left.
    """
    with _drawing(record, pass_index, HOOK_INDEX):
        source.end_pass()
    if record.info.has_epoch_begin:
        return source.length()
    return _some(source.length(), record, f"on_epoch_end of pass {pass_index}")


def begin_pass(source: SequenceSource, record: SourceRecord, pass_index: int) -> int:
    """Run the hook before a pass.

    Returns:
        Batches of the pass, at least 1.

    Raises:
        SourceError: There are none.
    """
    with _drawing(record, pass_index, BEGIN_INDEX):
        source.begin_pass()
    return _some(source.length(), record, f"on_epoch_begin of pass {pass_index}")


def replay_pass(source: SequenceSource, record: SourceRecord, pass_index: int, pass_cap: int | None) -> None:
    """Run the hooks of a pass that is not made again, so that the source is as it was after it."""
    if record.info.has_epoch_begin:
        begin_pass(source, record, pass_index)
    if record.info.has_epoch_end and (pass_cap is None or source.length() <= pass_cap):
        end_pass(source, record, pass_index)


@contextlib.contextmanager
def _drawing(record: SourceRecord, pass_index: int, hook: int) -> Iterator[None]:
    """Give a hook random numbers of its own. Training, or whoever reads the feed, goes on beside it."""
    place = Place(None, batch_rng(record.root, pass_index, hook))
    own = seeded(record.root, pass_index, hook, beside=True) if record.seeded else contextlib.nullcontext()
    with running_in(place), own:
        yield


def _some(length: int, record: SourceRecord, when: str) -> int:
    if length < 1:
        raise SourceError(f"{record.info.type_name} has {length} batches after {when}: there is nothing left to feed.")
    return length


def send_source(
    stream: int, record: SourceRecord, packed: Packed, crew: Crew, post: Callable[[HookDone], None]
) -> tuple[Any, CanonicalCopy | None]:
    """Send a stream's source to its producers.

    Returns:
        What the producers are given, and the canonical copy, where the source has hooks.
    """
    versions = Versions(crew.store, crew.fetch)
    source_ref = versions.send(packed)
    return source_ref, CanonicalCopy(stream, record, versions, post) if record.info.has_hooks else None


class CanonicalCopy:
    """Runs the hook of one stream's Sequence.

    Args:
        stream: The stream's number, for its events.
        record: What the source is.
        versions: What was sent of it: one version so far.
        post: Takes the event to the conductor; called from this copy's thread.
    """

    def __init__(self, stream: int, record: SourceRecord, versions: Versions, post: Callable[[HookDone], None]) -> None:
        self._stream = stream
        self._record = record
        self._versions = versions
        self._post = post
        self._source: SequenceSource | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._doing: tuple[str, float] | None = None  # what runs, and since when
        self._tell_at_s = 0.0

    def run_hooks(self, hooks: Hooks) -> None:
        """Run the hooks between two passes; a `HookDone` is posted when they returned or one raised. One at a time."""
        self._thread = threading.Thread(target=self._run, args=(hooks,), name="rayfeed-on-epoch-end", daemon=True)
        self._thread.start()

    def look(self, now: float, timeout_s: float) -> str | None:
        """What the consumer is to be told of a hook that takes long; again each time that has doubled.

        Args:
            now: Seconds of the monotonic clock.
            timeout_s: After how many seconds that is.
        """
        doing = self._doing
        if doing is None:
            self._tell_at_s = timeout_s
            return None
        waited_s = now - doing[1]
        if waited_s < max(self._tell_at_s, timeout_s):
            return None
        self._tell_at_s = 2 * waited_s
        return (
            f"waiting {waited_s:.0f} s for {doing[0]} of {self._record.name} ({self._record.info.type_name}), which "
            f"runs in the feed's process (pid {os.getpid()}).\n"
            "  It is waited for without end: no batch of the next pass is made before. Where it takes so long, raise "
            f"ProducerOptions.batch_timeout_s (now {timeout_s:g})."
        )

    def close(self) -> None:
        """Wait for a hook that is running, but not for one that hangs; what it leaves is sent to nobody."""
        self._closed = True
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self, hooks: Hooks) -> None:
        where = f"the feed's process (pid {os.getpid()}), {self._record.name}"
        what = "loading it"
        try:
            if self._source is None:
                self._source = open_sequence(self._versions.load())
            for pass_index in range(hooks.replayed):
                if self._closed:
                    return
                what = self._begin(f"the hooks of pass {pass_index}, again")
                replay_pass(self._source, self._record, pass_index, hooks.pass_cap)
            length = self._source.length()
            if hooks.ended is not None:
                what = self._begin(f"on_epoch_end after pass {hooks.ended}")
                length = end_pass(self._source, self._record, hooks.ended)
            if hooks.begun is not None:
                what = self._begin(f"on_epoch_begin before pass {hooks.begun}")
                length = begin_pass(self._source, self._record, hooks.begun)
            if self._closed:
                return
            what += ", sending what it left"
            result = NextPass(length, self._versions.send(take_apart(self._source.sequence, name=self._record.name)))
        except BaseException as error:  # noqa: BLE001 - whatever the user's hook raises reaches the caller
            result = Failure.of(error, f"{where}: {what}")
        finally:
            self._doing = None
        self._post(HookDone(self._stream, result))

    def _begin(self, what: str) -> str:
        self._doing = what, time.monotonic()
        return what
