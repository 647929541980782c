"""What the loss of producers means for a stream, in words: whether it can go on, and what to say where it cannot."""

from __future__ import annotations

from collections.abc import Iterable

from rayfeed.errors import BatchError, InternalError, ProducerDiedError, RayfeedError
from rayfeed.producer.failed_call import UnansweredError, advice, is_cut, is_own_node_lost
from rayfeed.producer.messages import Forgotten, NotFetched, Ticket
from rayfeed.queue.lane_window import LaneWindow
from rayfeed.queue.stream import Notice, StreamState
from rayfeed.queue.window import DEADLY

BY_A_SEQUENCE = "A Sequence in its place would go on: its batches can be made again elsewhere."


def lose(
    state: StreamState, worker: int, description: str, error: BaseException | None, *, gone: str | None
) -> RayfeedError | None:
    """Take a producer's present life out of a stream.

    A ticket during which producers died again and again is answered with an error, at its place in the stream.

    Args:
        state: The stream.
        worker: The producer.
        description: Its number, node and process.
        error: How the loss was noticed; None where it was lost before the stream was there.
        gone: What is said of a producer that may not be replaced now.

    Returns:
        The error of a stream that cannot go on without it; None where it can.
    """
    window = state.window
    if isinstance(window, LaneWindow) and worker < len(window.lanes):
        failure = _lane_lost(state, window, worker, description, error, is_gone=gone is not None)
        if failure is not None:
            return failure
    elif gone is not None and error is not None and not window.over:
        state.out.put(Notice(f"{description} was lost, and {state.record.name} goes on without it. {gone}."))
    window.worker_lost(worker, died=not (is_cut(error) or isinstance(error, UnansweredError)))
    while (ticket := window.deadly()) is not None:
        window.answered(worker, ticket, payload=None, num_batches=0, failure=_deadly(state, ticket, description, error))
    return None


def _deadly(state: StreamState, ticket: Ticket, description: str, error: BaseException | None) -> RayfeedError:
    found = ProducerDiedError(
        f"{DEADLY} producers died while they made {ticket} of {state.record.name} ({state.record.info.type_name}), the "
        f"last of them {description}.\n"
        f"  It is not tried again. {advice(error)}"
    )
    found.__cause__ = error
    return found


def _lane_lost(
    state: StreamState, window: LaneWindow, worker: int, description: str, error: BaseException | None, *, is_gone: bool
) -> RayfeedError | None:
    """Do for a generator's copy what its stream's plan says; the error of a stream that cannot go on without it."""
    record, lane = state.record, window.lanes[worker]
    what = f"{record.name}, a generator ({record.info.type_name})"
    if not window.breaks(worker) and (lane.has_begun or not is_gone):
        return None
    policy = window.plan.on_loss
    if policy == "drop" and not window.is_last(worker):
        state.out.put(
            Notice(
                f"{description} died while it ran its copy of {what}: the stream goes on without that copy, of which "
                f'{lane.first} batches were asked for (ProducerOptions.on_generator_loss="drop").'
            )
        )
        window.drop(worker)
        return None
    if policy == "restart" and not is_gone:
        state.out.put(
            Notice(
                f"{description} died while it ran {what}: its copy begins anew, and batches that were seen may come "
                f"again.\n  {BY_A_SEQUENCE} ProducerOptions.on_generator_loss says what else could happen."
            )
        )
        return None
    if not lane.has_begun:
        text = (
            f"{description} died before it ran its copy of {what}, and all its restarts are used "
            "(ProducerOptions.max_restarts); no other producer makes that copy's batches."
        )
    elif policy == "restart":
        text = (
            f"{description} died while it ran {what}, and all its restarts are used (ProducerOptions.max_restarts).\n"
            f"  {BY_A_SEQUENCE}"
        )
    elif policy == "drop":
        text = (
            f"{description} died while it ran {what}, the last copy that made batches "
            f'(ProducerOptions.on_generator_loss="drop").\n  {BY_A_SEQUENCE}'
        )
    else:
        text = f"{description} died while it ran {what}; its position in the stream is lost.\n  {BY_A_SEQUENCE}"
    found = ProducerDiedError(text)
    found.__cause__ = error
    return found


def making(states: Iterable[StreamState], worker: int) -> str:
    """What a producer has in its hands, in words; empty where it is idle."""
    return ", ".join(f"{ticket} of {state.record.name}" for state in states for ticket in state.window.making(worker))


def unanswered(answer: Forgotten | NotFetched, ticket: Ticket) -> UnansweredError:
    """Why a producer that lives is taken for lost."""
    if isinstance(answer, NotFetched):
        return UnansweredError(f"it could not get what makes {ticket} from the object store: {answer.reason}")
    return UnansweredError(f"its answer for {ticket} was lost on its way, and cannot be given again")


def blameless(error: BaseException) -> RayfeedError:
    """Why a call failed by no fault of its producer's process, nor for want of room."""
    if isinstance(error, BatchError):  # it answered, and that is no answer
        return BatchError(str(error))
    if not is_own_node_lost(error):
        return InternalError(f"a producer's call failed by no fault of its process: {error!r}.")
    return ProducerDiedError(
        "Ray's process of this node (raylet) ended while a feed was open, and the object store with its batches went "
        "with it: this process cannot use Ray any more.\n"
        "  Its log, raylet.out in Ray's session folder, may say why. Start Ray anew."
    )


def disconnected() -> RayfeedError:
    """The connection to Ray ended under an open stream."""
    return ProducerDiedError(
        "this process' connection to Ray ended while a feed was open: its producers and their batches are gone.\n"
        "  Close feeds before ray.shutdown()."
    )
