"""What a source can ask about the place it runs in: `rayfeed.get_worker_info` and `rayfeed.rng`.

With ``use_multiprocessing=True`` each producer runs its own copy of a generator. A generator that asks which copy it
is, as torch's function of that name tells, can take its own share of the data; if none asks, the copies make the same
batches, and the caller is warned. `rng` gives random numbers that follow from the call's seed and the batch alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np


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


class Place:
    """Where code runs: its worker info, whether it asked for that, and the random numbers of what it makes.

    Args:
        info: The producer's; None where the code runs in none.
        seeds: What the random numbers follow from; None for numbers that follow from nothing.
    """

    def __init__(self, info: WorkerInfo | None, seeds: tuple[int, ...] | None) -> None:
        self.info = info
        self.asked = False
        self._seeds = seeds
        self._rng: np.random.Generator | None = None

    def draw_from(self, seeds: tuple[int, ...]) -> None:
        """Something else is made from here on, whose random numbers follow from this."""
        self._seeds, self._rng = seeds, None

    def rng(self) -> np.random.Generator:
        """The generator of what is made: the same one until that changes."""
        if self._rng is None:
            self._rng = np.random.default_rng(self._seeds)
        return self._rng


_place: ContextVar[Place | None] = ContextVar("rayfeed_worker", default=None)


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
    if place is None or place.info is None:
        return None
    place.asked = True
    return place.info


def rng() -> np.random.Generator:
    """Give the random numbers of the batch that is being made.

    For a Sequence they follow from the call's ``seed``, the pass and the index alone: they are the same wherever and
    however often the batch is made, and nobody shares them, not even threads of one process. In a hook they follow from
    the seed, the pass and the hook; in a generator, from the seed and the copy, and go on from batch to batch. Without
    a ``seed``, one is drawn for the call.

    Returns:
        A `numpy.random.Generator`: the same object each time while one batch is made. Outside of a feed, and in a
        thread that the source started itself, a new one that follows from nothing.

    Example:
        >>> def __getitem__(self, index):
        ...     images = self.load(index)
        ...     return images + rayfeed.rng().normal(0, 0.1, images.shape), self.labels[index]
    """
    place = _place.get()
    return (place if place is not None else Place(None, None)).rng()


@contextmanager
def running_in(place: Place) -> Iterator[None]:
    """Run user code in this place."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)
