"""What an answer means for its stream: a producer's, and that of the hooks between two passes."""

from __future__ import annotations

from collections.abc import Callable

from rayfeed.errors import BatchError, InternalError
from rayfeed.frame.codec import decode
from rayfeed.producer.messages import Ended, Made, Raised
from rayfeed.queue.asking import Asking
from rayfeed.queue.deliveries import StreamFailed
from rayfeed.queue.events import Answered, NextPass
from rayfeed.queue.fullness import Fullness
from rayfeed.queue.sequence_window import SequenceWindow
from rayfeed.queue.stream import Notice, StreamState
from rayfeed.source.failure import Failure


def take(state: StreamState, event: Answered, describe: Callable[[int], str]) -> None:
    """Take an answer into its stream's window; only a ticket's first one counts.

    Args:
        state: The stream.
        event: A producer's answer, no failed call.
        describe: Gives a producer's number, node and process.
    """
    answer = event.answer
    failure = None
    match answer:
        case Made(run) | Ended(run):
            pass
        case Raised(run, failure):
            pass
        case _:
            raise InternalError(f"unknown answer {answer!r}")
    error = failure.error() if failure is not None else None
    reader = None
    num_batches = run.num_batches
    if run.frame is not None:
        try:
            reader = decode(run.frame)
            state.conform(reader, f"{describe(event.worker)}, {event.ticket}")
        except BatchError as refusal:
            error, num_batches = refusal, 0
    first = state.window.answered(
        event.worker,
        event.ticket,
        payload=(event.ticket, reader),
        num_batches=num_batches,
        num_bytes=run.frame.num_bytes if run.frame is not None else 0,
        seconds=run.make_s,
        ended=isinstance(answer, Ended),
        failure=error,
    )
    if first:
        state.note(event.ticket, run)


def no_room(
    state: StreamState,
    event: Answered,
    reason: str,
    describe: Callable[[int], str],
    fullness: Fullness,
    asking: Asking,
) -> None:
    """A call ended for want of room, in the object store and on disk: its ticket is sent again after a pause.

    Raises:
        StoreFullError: That has lasted too long.
    """
    if not state.window.holds(event.worker, event.ticket):  # lost meanwhile, and given to another
        return
    text = fullness.had_none(event.ticket, describe(event.worker), reason)
    if text is not None:
        state.out.put(Notice(text))
    asking.broke(event.worker, event.stream, event.ticket)
    asking.pause(event.worker)


def take_hooks(state: StreamState, result: NextPass | Failure) -> None:
    """Take what the hooks between two passes left, or what one raised, into their stream's window."""
    window = state.window
    match result:
        case Failure():
            state.out.put(StreamFailed(result.error()))
            window.over = True
        case NextPass(length, source_ref):
            if not isinstance(window, SequenceWindow):
                raise InternalError(f"a hook ran for stream {state.number}, which has no passes")
            state.source_ref = source_ref
            window.pass_ready(length)
