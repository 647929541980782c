"""What a call to a producer that failed means."""

from __future__ import annotations

from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
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


def is_cut(error: BaseException | None) -> bool:
    """Whether a call failed with its connection, so that its producer may live, and may have carried it out."""
    return isinstance(error, ActorUnavailableError) and not isinstance(error, RayTaskError)
