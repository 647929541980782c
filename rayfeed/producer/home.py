"""The thread at home: it runs, in the caller's process, a generator that cannot travel (contract D3).

It takes orders from a mailbox, makes their batches with the caller's own object, and answers. That object is borrowed:

- an iterator, a generator object included, is advanced by exactly what was ordered, and not closed: its owner may go on
  with ``next``. Only a generator that was made here, from a function, is closed;
- this process' working directory and random states are the caller's, and are left alone.

One thread serves all such sources of a call in turn, so that no generator is ever entered twice. It cannot be ended
while user code hangs in it: `close` waits a while and then leaves it, and it does not keep the process from exiting.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

from rayfeed.producer.mailbox import Orders
from rayfeed.producer.maker import Maker
from rayfeed.producer.messages import SourceRecord
from rayfeed.source.failure import Failure
from rayfeed.source.stream import GeneratorSource, SequenceSource, open_source

CLOSE_TIMEOUT_S = 5.0
"""How long `close` waits for the batch that is being made."""


class HomeMaker(Maker):
    """Makes batches with objects of this very process.

    Args:
        sources: The user's objects, by their names.
        shares_memory: Whether answers are read in this process: then they must not share memory with what user code
            may still write to.
    """

    NUM_NEWEST = 0  # nothing comes between this process and itself

    def __init__(self, sources: Mapping[str, Any], *, shares_memory: bool) -> None:
        super().__init__(0, f"pid {os.getpid()}")
        self._sources = sources
        self._shares_memory = shares_memory

    def close(self) -> None:
        """Close every generator that was made here."""
        for stream in list(self._opened):
            self.close_stream(stream)

    def _load(self, record: SourceRecord, version: int, state: Any) -> SequenceSource | GeneratorSource:
        return open_source(self._sources[record.name], record.info, is_lent=True)

    def _is_sent_at_once(self, *, is_last: bool) -> bool:
        return is_last and not self._shares_memory

    def _describe(self, record: SourceRecord) -> str:
        return f"a thread of the caller's process ({self.place})"


class HomeThread:
    """Runs a `HomeMaker`.

    Args:
        orders: Where its orders come from, and its answers go.
        sources: The user's objects, by their names.
        shares_memory: As of `HomeMaker`.
    """

    def __init__(self, orders: Orders, sources: Mapping[str, Any], *, shares_memory: bool) -> None:
        self._orders = orders
        self._names = ", ".join(sources)
        self._is_over = False
        maker = HomeMaker(sources, shares_memory=shares_memory)
        # The maker is the thread's alone: nothing else holds the user's objects once it has ended.
        self._thread = threading.Thread(target=self._run, args=(maker,), name="rayfeed-home", daemon=True)

    def start(self) -> None:
        """Begin to take orders."""
        self._thread.start()

    def close(self) -> None:
        """End after the batch that is being made, without waiting for one that hangs. May be called twice."""
        self._is_over = True
        if self._thread.ident is None or threading.current_thread() is self._thread:
            return
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            logging.getLogger("rayfeed").warning(
                "rayfeed: %s is still making a batch in a thread of this process after %g s, and Python cannot end it: "
                "it ends after that batch, or with the process.",
                self._names,
                CLOSE_TIMEOUT_S,
            )

    def _run(self, maker: HomeMaker) -> None:
        try:
            while not self._is_over:
                orders = self._orders.take()
                if orders is None:
                    return
                for order in orders:
                    answer = maker.make(order.ticket, order.record, None)
                    if self._is_over:
                        return
                    self._orders.answer(order, answer)
                    del answer  # while the next one is waited for, this frame is the consumer's alone
        except BaseException as error:  # noqa: BLE001 - nobody else could tell that no more batches will come
            self._orders.fail(Failure.of(error, f"a thread of the caller's process (pid {os.getpid()})"))
        finally:
            maker.close()
