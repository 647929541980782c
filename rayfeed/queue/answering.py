"""What an answer means for its stream."""

from __future__ import annotations

from collections.abc import Callable

from rayfeed.errors import BatchError, InternalError
from rayfeed.frame.codec import decode
from rayfeed.producer.messages import Ended, Made, Raised
from rayfeed.queue.events import Answered
from rayfeed.queue.stream import StreamState


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
