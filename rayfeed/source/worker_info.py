"""`rayfeed.get_worker_info`: which of several producers this code runs in, as torch's function of that name tells.

With ``use_multiprocessing=True`` each producer runs its own copy of a generator. A generator that asks which copy it is
can take its own share of the data; if none asks, the copies make the same batches, and the caller is warned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerInfo:
    """Where a source runs.

    Attributes:
        id: This producer's number, from 0.
        num_workers: How many producers run a copy of the source.
        seed: A number of its own for this producer, the same again when the call's ``seed`` is the same.
    """

    id: int
    num_workers: int
    seed: int


class _Place:
    """The worker info of the running code, and whether that code asked for it."""

    def __init__(self, info: WorkerInfo) -> None:
        self.info = info
        self.asked = False


_place: ContextVar[_Place | None] = ContextVar("rayfeed_worker", default=None)


def get_worker_info() -> WorkerInfo | None:
    """Tell a source which producer it runs in.

    Returns:
        The producer's `WorkerInfo`; None outside of a producer, or in a thread the source started itself.

    Example:
        >>> def batches():
        ...     info = rayfeed.get_worker_info()
        ...     for path in paths[info.id :: info.num_workers]:
        ...         yield load(path)
    """
    place = _place.get()
    if place is None:
        return None
    place.asked = True
    return place.info


@contextmanager
def running_in(info: WorkerInfo | None) -> Iterator[_Place | None]:
    """Run user code as worker `info`; the value tells afterwards whether the code asked (``.asked``)."""
    place = _Place(info) if info is not None else None
    token = _place.set(place)
    try:
        yield place
    finally:
        _place.reset(token)
