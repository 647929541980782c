"""The Ray actor around a `Maker`. It hosts, and adds nothing but process matters.

Two groups of threads: "data" makes batches, in order where it has one thread; "control" answers while "data" is busy.
Restarts and retries are off: the pool replaces producers, and the window issues lost tickets again, because Ray's own
restart would run user code behind their backs.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.exceptions import RayError

from rayfeed.producer.compressor import Compressor
from rayfeed.producer.failed_call import is_full
from rayfeed.producer.heap import keep_freed_memory
from rayfeed.producer.loading import NotFetchedError, received
from rayfeed.producer.maker import Maker
from rayfeed.producer.messages import Answer, At, Opened, OutOfTurn, SourceRecord, Ticket
from rayfeed.producer.results import to_result

if TYPE_CHECKING:
    from rayfeed.options import Compression

IDLE_TIMEOUT_S = 0.5
"""How long a producer that is ended may take to finish the batch in its hands; longer user code is cut off."""


class Producer:
    """One producer process.

    Args:
        worker: Its number in the pool, from 0; a replacement has the number of the one it replaces.
        hides_gpus: Whether user code shall see no GPU.
        num_threads: Threads of the group "data".
        compression: Of frames that leave this node; None for none.
        consumer: The node they go to.
    """

    def __init__(
        self,
        worker: int,
        hides_gpus: bool,  # noqa: FBT001 - Ray's call
        num_threads: int,
        compression: Compression | None,
        consumer: str,
    ) -> None:
        # An actor without GPUs still sees the node's; a framework imported by user code would claim memory on them.
        if hides_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        keep_freed_memory()
        self._node = ray.util.get_node_ip_address()
        self._worker = worker
        self._node_id = ray.get_runtime_context().get_node_id()
        leaves = self._node_id != consumer
        self._compressor = Compressor(compression, num_threads) if compression is not None and leaves else None
        self._maker = Maker(worker, f"node {self._node}, pid {os.getpid()}", num_threads, self._compressor)
        self._told: dict[int, tuple[SourceRecord, tuple[Any]]] = {}  # by stream: its source, newest version
        self._held = threading.Event()
        self._idle = threading.Barrier(num_threads)

    def __repr__(self) -> str:
        return f"rayfeed.Producer({self._worker})"

    @ray.method(concurrency_group="control")
    def open(self) -> Opened:
        """Tell that the process is up. Called once, by the pool, before any ticket."""
        return Opened(self._node, self._node_id, os.getpid())

    @ray.method(concurrency_group="control")
    def probe(self, num_bytes: int) -> Any:
        """So many bytes, by which the pool measures the link. Called for one producer of each node."""
        return np.zeros(num_bytes, np.uint8)

    @ray.method(concurrency_group="control")
    def link(self, bytes_per_s: float) -> None:
        """Tell what this producer may count on of the link to the consumer. Called by the pool when that changes."""
        if self._compressor is not None:
            self._compressor.link = bytes_per_s

    @ray.method(concurrency_group="control")
    def hold(self) -> None:
        """Answer never: the pool learns of this process' death by the call's failure, also while it is idle.

        Called again where the connection broke: the call before, whose answer nobody would get, gives its thread back.
        """
        before, self._held = self._held, threading.Event()
        held = self._held
        before.set()
        held.wait()

    @ray.method(concurrency_group="control")
    def standing(self) -> tuple[At, ...]:
        """Tell which batches are being made. Called by the pool where a ticket of several takes long."""
        return self._maker.standing()

    @ray.method(concurrency_group="data")
    def make_first(self, ticket: bytes, record: SourceRecord, state: tuple[Any]) -> Answer | bytes:
        """Make a ticket's batches, and keep in mind what they are made of. Called by the feed, pipelined.

        Args:
            ticket: What to make; a `Ticket` in bytes.
            record: The stream's source.
            state: The source's `Payload` in the ticket's version, in a tuple so that Ray does not fetch it unasked.
        """
        found = Ticket.from_bytes(ticket)
        self._told[found.stream] = (record, state)
        return to_result(self._make(found, record, state))

    @ray.method(concurrency_group="data")
    def make(self, ticket: bytes) -> Answer | bytes:
        """Make a ticket's batches, of what the stream's last `make_first` told. Called by the feed, pipelined.

        Only where one thread makes batches: several may begin calls in another order than they came in.
        """
        found = Ticket.from_bytes(ticket)
        if found.stream not in self._told:  # the call that was to tell broke on its way
            return to_result(OutOfTurn())
        return to_result(self._make(found, *self._told[found.stream]))

    def _make(self, ticket: Ticket, record: SourceRecord, state: tuple[Any]) -> Answer:
        return self._maker.make(ticket, record, lambda: received(_fetch(state[0]), _fetch))

    @ray.method(concurrency_group="control")
    def drop_stream(self, stream: int) -> None:
        """Skip what is left of a stream's tickets, also of the one that is being made; `close_stream` follows."""
        self._maker.drop_stream(stream)

    @ray.method(concurrency_group="control")
    def rest(self) -> None:
        """Make nothing more. Called once by the pool, before it ends the process; `be_idle` follows."""
        self._maker.rest()

    @ray.method(concurrency_group="data")
    def be_idle(self) -> None:
        """Return when every thread of the group is here, with nothing in hand; called once for each of them.

        A process that is killed while it writes a frame leaves that frame in the store until others need its place.
        """
        with contextlib.suppress(threading.BrokenBarrierError):
            self._idle.wait(IDLE_TIMEOUT_S)

    @ray.method(concurrency_group="data")
    def close_stream(self, stream: int) -> None:
        """Let go of a stream's source. Called once per stream by the pool, after its last ticket."""
        self._told.pop(stream, None)
        self._maker.close_stream(stream)


def _fetch(ref: Any) -> Any:
    """What lies in the object store. Ray's errors here say nothing of the source, whose own pass for the user's."""
    try:
        return ray.get(ref)
    except RayError as error:
        raise NotFetchedError(f"{type(error).__name__}: {error}", is_full=is_full(error)) from error
