"""What a call to a producer that failed means."""

from __future__ import annotations

from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)


class HangError(TimeoutError):
    """A producer has not answered for so long that it is taken for lost. Not a batch that is merely slow."""


class UnansweredError(RuntimeError):
    """A producer lives, and cannot answer a ticket. Not a death: what it made is not the reason."""


def advice(error: BaseException | None) -> str:
    """What to do about a producer that was lost, by how the loss was noticed."""
    if isinstance(error, HangError):
        return (
            "It was ended for that. See what its source waits for, or raise ProducerOptions.batch_timeout_s: ten times "
            "that is how long one batch may take."
        )
    if isinstance(error, UnansweredError):
        return "Its node or its connection may be the reason: see Ray's logs there."
    return (
        "A process that dies without a Python error was often killed for its memory: raise ProducerOptions.memory or "
        "use smaller batches."
    )


def is_loss(error: BaseException) -> bool:
    """Whether a failed call means that its producer, or its result, was lost, and the ticket can be made elsewhere.

    The order matters: Ray's `RayTaskError` takes on the class of what user code raised, which may be anything.
    """
    if isinstance(error, RayTaskError):
        return False
    return isinstance(
        error,
        (
            RayActorError,
            ObjectLostError,
            NodeDiedError,
            WorkerCrashedError,
            OutOfMemoryError,
            ActorUnschedulableError,
        ),
    )


def is_full(error: BaseException) -> bool:
    """Whether there was no room for an answer, in the object store or on the disk behind it, at either end of its way.

    A producer's own failure is Ray's task error: its user code raises nothing, it answers.
    """
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, (ObjectStoreFullError, OutOfDiskError))


def is_own_node_lost(error: BaseException) -> bool:
    """Whether this process' own node has ended under it."""
    return isinstance(error, LocalRayletDiedError)


def is_cut(error: BaseException | None) -> bool:
    """Whether a call failed with its connection, so that its producer may live, and may have carried it out."""
    return isinstance(error, ActorUnavailableError) and not isinstance(error, RayTaskError)
