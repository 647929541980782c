"""What the loss of producers means for a stream, in words: whether it can go on, and what to say where it cannot."""

from __future__ import annotations

from rayfeed.errors import ProducerDiedError, RayfeedError
from rayfeed.queue.lane_window import LaneWindow
from rayfeed.queue.stream import StreamState


def fatal_loss(
    state: StreamState, worker: int, description: str, error: BaseException | None, *, is_gone: bool
) -> RayfeedError | None:
    """The error of a stream that cannot go on without a producer's present life; None where it can.

    Args:
        state: The stream.
        worker: The producer.
        description: Its number, node and process.
        error: How the loss was noticed.
        is_gone: Whether it is not replaced.
    """
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
