r"""The thread that drives the windows: events in, instructions carried out.

One conductor owns one crew (a pool of producers, or the thread at home) and any number of streams that share it
(training and validation). Everything that happens to them is an event in one queue, and one thread, this one, handles
them in turn; so windows and crew need no locks. Consumers stand at the other end of a queue per stream.

    crew ---Up, Down---------\                                  /--tickets--> producers
    producers ---Answered-----+--> events --> window.answered --+
    consumers ---Consumed----/                  window.issue     \--batches--> stream.out --> consumer
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from rayfeed.errors import InternalError, RayfeedError
from rayfeed.producer.crew import Crew, CrewEvent, Down, Stands, Up
from rayfeed.producer.failed_call import is_cut, is_full, is_loss
from rayfeed.producer.messages import Answer, Forgotten, NotFetched, OutOfTurn, SourceRecord, Ticket
from rayfeed.queue.answering import no_room, take, take_hooks
from rayfeed.queue.asking import Asking
from rayfeed.queue.canonical import send_source
from rayfeed.queue.deliveries import StreamFailed
from rayfeed.queue.events import (
    Answered,
    Consumed,
    HookDone,
    Settle,
    Stop,
    StreamClosed,
    StreamOpened,
    StreamStarted,
)
from rayfeed.queue.fullness import Fullness
from rayfeed.queue.losses import blameless, disconnected, lose, making, unanswered
from rayfeed.queue.sequence_window import SequenceWindow
from rayfeed.queue.stream import StreamState
from rayfeed.queue.watch import Watch
from rayfeed.queue.window import Window
from rayfeed.source.packed import Packed

WATCH_INTERVAL_S = 1.0
"""How often deadlines are looked at; all else is driven by events."""

JOIN_TIMEOUT_S = 30.0
"""How long `close` waits for the thread: it may be inside one Ray call."""


class Conductor:
    """Drives one crew and its streams; see the module's docstring.

    Args:
        make_crew: Gives the crew for the function that takes its events.
    """

    def __init__(self, make_crew: Callable[[Callable[[CrewEvent], None]], Crew]) -> None:
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pool = make_crew(self._post)
        self._watch = Watch(self._pool)
        self._streams: dict[int, StreamState] = {}
        self._numbers = 0
        self._asking = Asking()
        self._fullness = Fullness()
        self._settling: list[threading.Event] = []
        self._closed = False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="rayfeed-conductor", daemon=True)

    def open_stream(
        self, record: SourceRecord, packed: Packed | None, make_window: Callable[[int], Window]
    ) -> StreamState:
        """Add a stream; it makes nothing until `start_stream`. Called by the consumer's thread.

        Args:
            record: The stream's source.
            packed: The source as it travels; None where the crew has the source itself.
            make_window: Gives the stream's window for its number.
        """
        number, self._numbers = self._numbers, self._numbers + 1
        canonical = source_ref = None
        if packed is not None:
            source_ref, canonical = send_source(number, record, packed, self._pool, self._post)
        state = StreamState(number, record, make_window(number), source_ref, canonical)
        self._events.put(StreamOpened(state))
        return state

    def start(self) -> None:
        """Start the crew and the thread."""
        self._pool.start()
        self._thread.start()

    def start_stream(self, number: int) -> None:
        """Let a stream make batches."""
        self._events.put(StreamStarted(number))

    def consumed(self, number: int, num_batches: int) -> None:
        """The consumer took batches of a stream."""
        self._events.put(Consumed(number, num_batches))

    def close_stream(self, number: int) -> None:
        """Drop a stream; its producers go on with others."""
        self._events.put(StreamClosed(number))

    def settle(self, timeout_s: float) -> bool:
        """Wait until no stream is open and no producer works for one that was; whether that came in time.

        What the crew counts for one call (restarts, waiting for a place) begins anew then.
        """
        settled = threading.Event()
        self._events.put(Settle(settled))
        return settled.wait(timeout_s)

    def is_usable(self) -> bool:
        """Whether streams may be opened: the thread runs, and no producer is lost for good."""
        return self.is_alive() and not self._closed and self._pool.is_connected() and not self._pool.gone()

    def is_alive(self) -> bool:
        """Whether the thread runs; a consumer that waits asks, so that it never waits for a dead one."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread and every producer; may be called twice, and from any thread."""
        if self._closed:
            return
        self._closed = True
        self._events.put(Stop())
        if self._thread.ident is None:  # it was not started, and ends nobody
            self._pool.close()
        elif threading.current_thread() is not self._thread:
            self._thread.join(JOIN_TIMEOUT_S)
        self._let_go()  # only now: after a failure of the thread the consumer still reads what was delivered before it

    def _let_go(self) -> None:
        """Drop every frame: those of answers that came too late, and the streams'."""
        while not self._events.empty():
            event = self._events.get_nowait()
            if isinstance(event, StreamOpened):
                event.state.release()
        for state in self._streams.values():
            state.release()
        self._streams.clear()

    def _post(self, event: Any) -> None:
        """Take an event from Ray's threads, or a hook's; after the end nobody wants it."""
        if not self._closed:
            self._events.put(event)

    @property
    def crew(self) -> Crew:
        """Who makes the batches; to look at, the thread uses it."""
        return self._pool

    def _run(self) -> None:
        try:
            watched = time.monotonic()
            while True:
                event = self._next_event()
                if isinstance(event, Stop):
                    # In this order: Ray may keep a frame for ever that is given up while its producer dies.
                    self._pool.rest()
                    self._let_go()
                    return
                if event is not None:
                    self._handle(event)
                    self._tell_settled()
                # By the clock, not by idleness: one stream may be busy while another waits for its producer.
                passed_s = time.monotonic() - watched
                if passed_s >= WATCH_INTERVAL_S:
                    watched += passed_s
                    if self._streams:  # between two calls nobody waits for a producer
                        self._look(passed_s)
        except RayfeedError as error:
            self._fail_all(error)
        except BaseException as error:  # noqa: BLE001 - this thread is the only one that could report it
            if self._pool.is_connected():
                failure = InternalError(f"the conductor's thread failed: {error!r}. Please report this.")
            else:
                failure = disconnected()
            failure.__cause__ = error
            self._fail_all(failure)
        finally:
            self._pool.close()

    def _next_event(self) -> Any:
        try:
            event = self._events.get(timeout=WATCH_INTERVAL_S)
        except queue.Empty:
            event = None
        if not isinstance(event, Stop) and not self._pool.is_connected():
            raise disconnected()
        return event

    def _look(self, passed_s: float) -> None:
        for down in self._watch.look(self._streams.values(), passed_s):
            self._on_down(down)
        for worker in self._asking.resume():
            self._send_again(worker)
        for state in self._streams.values():
            if state.window.suspected:
                self._pump(state)

    def _tell_settled(self) -> None:
        if self._settling and not self._streams and self._asking.is_idle:
            self._pool.renew()
            self._fullness = Fullness()
            while self._settling:
                self._settling.pop().set()

    def _fail_all(self, error: BaseException) -> None:
        self.failure = error  # for streams that are opened, or looked at, after this
        for state in self._streams.values():
            state.out.put(StreamFailed(error))

    def _handle(self, event: Any) -> None:
        match event:
            case Answered():
                self._on_answer(event)
            case Consumed(stream, num_batches):
                if stream in self._streams:
                    self._streams[stream].window.consumed(num_batches)
                    self._pump(self._streams[stream])
            case Up(worker):
                if self._pool.on_up(event):
                    for state in list(self._streams.values()):
                        if state.started and not state.window.over:
                            state.window.worker_ready(worker, self._pool.num_threads, self._pool.node(worker))
                            self._pump(state)
            case Down():
                self._on_down(event)
            case Stands():
                self._watch.stands(event)
            case HookDone(stream):
                if stream in self._streams:
                    take_hooks(self._streams[stream], event.result)
                    self._pump(self._streams[stream])
            case StreamOpened(state):
                self._streams[state.number] = state
            case Settle(settled):
                self._settling.append(settled)
            case StreamStarted(stream):
                if stream in self._streams:
                    self._on_started(self._streams[stream])
            case StreamClosed(stream):
                if stream in self._streams:
                    self._pool.close_stream(stream)
                    self._streams.pop(stream).release()
            case _:
                raise InternalError(f"unknown event {event!r}")

    def _on_started(self, state: StreamState) -> None:
        state.started = True
        for worker in self._pool.working():
            state.window.worker_ready(worker, self._pool.num_threads, self._pool.node(worker))
        for worker in self._pool.gone():
            self._lose(state, worker, self._pool.describe(worker), None)
        self._pump(state)

    def _on_answer(self, event: Answered) -> None:
        self._asking.came_back(event.worker)
        state = self._streams.get(event.stream)
        if state is not None:
            self._on_end(state, event)
        self._send_again(event.worker)

    def _on_end(self, state: StreamState, event: Answered) -> None:
        """A ticket's call ended."""
        match event.answer:
            case _ if event.error is not None:
                self._on_failed_call(state, event, event.error)
            case OutOfTurn():
                self._asking.broke(event.worker, event.stream, event.ticket)
            case NotFetched(reason, is_full=True):
                no_room(state, event, reason, self._pool.describe, self._fullness, self._asking)
            case Forgotten() | NotFetched() as answer:
                self._on_down(Down(event.worker, event.life, unanswered(answer, event.ticket)))
            case _:
                self._fullness.had_room()
                take(state, event, self._pool.describe)
                self._pump(state)

    def _send_again(self, worker: int) -> None:
        """Send a producer what its calls broke with, if it is time for that."""
        for stream, ticket in self._asking.again(worker):
            if stream in self._streams:
                self._send(self._streams[stream], worker, ticket)

    def _on_failed_call(self, state: StreamState, event: Answered, error: BaseException) -> None:
        if is_full(error):
            reason = f"{type(error).__name__}: {error}"
            no_room(state, event, reason, self._pool.describe, self._fullness, self._asking)
            return
        if not is_loss(error):
            raise blameless(error) from error
        down = Down(event.worker, event.life, error)
        if self._may_ask(down):
            self._asking.broke(event.worker, event.stream, event.ticket)
        else:
            # Whichever news of a loss comes first ends that life of the producer; the rest is of an earlier life then.
            self._on_down(down)

    def _may_ask(self, down: Down) -> bool:
        """Whether a producer that is out of reach runs a generator, and may answer yet."""
        runs = any(state.window.breaks(down.worker) for state in self._streams.values())
        return is_cut(down.error) and runs and self._pool.is_worth_asking(down)

    def _on_down(self, event: Down) -> None:
        description = self._pool.describe(event.worker)
        if self._may_ask(event) or not self._pool.on_down(event, making(self._streams.values(), event.worker)):
            return
        self._asking.lost(event.worker)
        for state in list(self._streams.values()):
            self._lose(state, event.worker, description, event.error)

    def _lose(self, state: StreamState, worker: int, description: str, error: BaseException | None) -> None:
        """A stream goes on without a producer's present life, or cannot."""
        failure = lose(state, worker, description, error, gone=self._pool.gone().get(worker))
        if failure is not None:
            state.out.put(StreamFailed(failure))
            state.window.over = True
            return
        self._pump(state)

    def _pump(self, state: StreamState) -> None:
        """Carry out what the window wants now."""
        if not state.started:
            return
        window = state.window
        for worker, ticket in window.issue():
            self._send(state, worker, ticket)
        for delivery in window.deliver():
            state.out.put(delivery)
        if isinstance(window, SequenceWindow):
            hooks = window.wants_hooks()
            if hooks is not None and state.canonical is not None:
                state.canonical.run_hooks(hooks)

    def _send(self, state: StreamState, worker: int, ticket: Ticket) -> None:
        if self._asking.holds_back(worker):
            self._asking.broke(worker, state.number, ticket)
            return

        def on_done(life: int, answer: Answer | None, error: BaseException | None) -> None:
            self._post(Answered(state.number, worker, life, ticket, answer, error))

        self._asking.sent(worker)
        self._pool.submit(worker, ticket, state.record, state.source_ref, on_done)
