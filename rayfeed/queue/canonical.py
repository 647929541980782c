"""The canonical copy of a Sequence: the one on which `on_epoch_end` runs.

It lives in the feed's process, so that it survives every producer, and in a thread of its own, so that a slow hook
keeps neither training nor other streams waiting. The user's own object is not touched: the copy is loaded from the
bytes the producers got, when the first hook is due. After the hook its whole state is sent as the next version.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

from rayfeed.errors import SourceError
from rayfeed.producer.messages import SourceRecord
from rayfeed.queue.events import HookDone, NextPass
from rayfeed.source.failure import Failure
from rayfeed.source.seeding import seeded
from rayfeed.source.shipping import pack, unpack
from rayfeed.source.stream import SequenceSource

CLOSE_TIMEOUT_S = 10.0
"""How long `close` waits for a hook that is running. Python cannot end it; its thread does not keep the process."""

HOOK_INDEX = (1 << 32) - 1
"""Stands for the hook where a batch's index stands in a seed; no pass has so many batches."""


def next_length(source: SequenceSource, record: SourceRecord, pass_index: int) -> int:
    """Run the hook after a whole pass.

    Returns:
        Batches of the next pass, at least 1.

    Raises:
        SourceError: None are left.
    """
    with seeded(record.root, pass_index, HOOK_INDEX) if record.seeded else contextlib.nullcontext():
        length = source.end_pass()
    if length < 1:
        raise SourceError(
            f"{record.info.type_name} has {length} batches after on_epoch_end of pass {pass_index}: there is nothing "
            "left to feed."
        )
    return length


class CanonicalCopy:
    """Runs the hook of one stream's Sequence.

    Args:
        stream: The stream's number, for its events.
        record: What the source is.
        payload: Its cloudpickle bytes.
        post: Takes the event to the conductor; called from this copy's thread.
    """

    def __init__(self, stream: int, record: SourceRecord, payload: bytes, post: Callable[[HookDone], None]) -> None:
        self._stream = stream
        self._record = record
        self._payload: bytes | None = payload
        self._post = post
        self._source: SequenceSource | None = None
        self._thread: threading.Thread | None = None

    def run_hook(self, pass_index: int) -> None:
        """Run `on_epoch_end` after this pass; a `HookDone` is posted when it returned or raised. One runs at a time."""
        self._thread = threading.Thread(target=self._run, args=(pass_index,), name="rayfeed-on-epoch-end", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for a hook that is running, but not for one that hangs."""
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self, pass_index: int) -> None:
        where = f"the feed's process (pid {os.getpid()}), {self._record.name}: on_epoch_end after pass {pass_index}"
        try:
            if self._source is None:
                self._source, self._payload = SequenceSource(unpack(self._payload)), None
            length = next_length(self._source, self._record, pass_index)
            result = NextPass(length, pack(self._source.sequence, name=self._record.name))
        except BaseException as error:  # noqa: BLE001 - whatever the user's hook raises reaches the caller
            result = Failure.of(error, where)
        self._post(HookDone(self._stream, result))
