"""What the loss of producers means for a stream, in words: whether it can go on, and what to say where it cannot."""

from __future__ import annotations

from rayfeed.errors import ProducerDiedError, RayfeedError
from rayfeed.producer.messages import Ticket
from rayfeed.queue.lane_window import LaneWindow
from rayfeed.queue.stream import StreamState
from rayfeed.queue.window import DEADLY


def lose(
    state: StreamState, worker: int, description: str, error: BaseException | None, *, is_gone: bool
) -> RayfeedError | None:
    """Take a producer's present life out of a stream.

    A ticket during which producers died again and again is answered with an error, at its place in the stream.

    Args:
        state: The stream.
        worker: The producer.
        description: Its number, node and process.
        error: How the loss was noticed.
        is_gone: Whether it is not replaced.

    Returns:
        The error of a stream that cannot go on without it; None where it can.
    """
    failure = _fatal_loss(state, worker, description, error, is_gone=is_gone)
    if failure is not None:
        return failure
    window = state.window
    window.worker_lost(worker)
    while (ticket := window.deadly()) is not None:
        window.answered(worker, ticket, payload=None, num_batches=0, failure=_deadly(state, ticket, description, error))
    return None


def _deadly(state: StreamState, ticket: Ticket, description: str, error: BaseException | None) -> RayfeedError:
    found = ProducerDiedError(
        f"{DEADLY} producers died while they made {ticket} of {state.record.name} ({state.record.info.type_name}), the "
        f"last of them {description}.\n"
        "  It is not tried again. A process that dies without a Python error was often killed for its memory: raise "
        "ProducerOptions.memory or use smaller batches."
    )
    found.__cause__ = error
    return found


def _fatal_loss(
    state: StreamState, worker: int, description: str, error: BaseException | None, *, is_gone: bool
) -> RayfeedError | None:
    """The error of a stream that cannot go on without the producer; None where it can."""
    window, record = state.window, state.record
    if not isinstance(window, LaneWindow) or worker >= len(window.lanes):
        return None
    if window.breaks(worker):
        text = (
            f"{description} died while it ran {record.name}, a generator ({record.info.type_name}); its position in "
            "the stream is lost.\n"
            "  A Sequence in its place would go on: its batches can be made again elsewhere."
        )
    elif is_gone and not window.lanes[worker].has_begun:
        text = (
            f"{description} died before it ran its copy of {record.name}, a generator ({record.info.type_name}), and "
            "all its restarts are used (ProducerOptions.max_restarts); no other producer makes that copy's batches."
        )
    else:
        return None
    found = ProducerDiedError(text)
    found.__cause__ = error
    return found


def disconnected() -> RayfeedError:
    """The connection to Ray ended under an open stream."""
    return ProducerDiedError(
        "this process' connection to Ray ended while a feed was open: its producers and their batches are gone.\n"
        "  Close feeds before ray.shutdown()."
    )
