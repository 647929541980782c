"""Every random choice of a stream, derived from one seed.

The order of pass p is a function of (seed, p), so that it does not depend on the number of workers or on what was lost.
Seeds are combined by NumPy's `SeedSequence` (O'Neill's seed_seq construction), which keeps nearby seeds apart.
"""

from __future__ import annotations

import functools
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from rayfeed.source.framework_seeds import frameworks_seeded, seed_frameworks
from rayfeed.source.own_streams import own_streams

ORDER, WORKER, BATCH, RNG, LANE_RNG = range(5)
"""The purposes seeds are drawn for: the first word after the root, so that no two purposes share a stream."""


def root_seed(seed: int | None) -> int:
    """The given seed, or a fresh one from the system."""
    return secrets.randbits(64) if seed is None else int(seed)


def pass_order(root: int, pass_index: int, length: int) -> np.ndarray:
    """A random order of one pass's batches, int64 of shape ``(length,)``."""
    return np.random.default_rng(_sequence(root, ORDER, pass_index)).permutation(length)


@functools.lru_cache(maxsize=1024)  # asked for with every ticket
def worker_seed(root: int, worker: int) -> int:
    """A 64-bit seed of a worker's own."""
    return int(_sequence(root, WORKER, worker).generate_state(1, np.uint64)[0])


def batch_rng(root: int, pass_index: int, index: int) -> tuple[int, ...]:
    """What the random numbers of `rayfeed.rng` follow from, for one batch."""
    return (root, RNG, pass_index, index)


def lane_rng(root: int, lane: int) -> tuple[int, ...]:
    """The same for one copy of a generator."""
    return (root, LANE_RNG, lane)


def seed_batch(root: int, pass_index: int, index: int) -> None:
    """Seed `random`, `numpy.random` and the frameworks' streams for one batch.

    They are global: threads of one process share them.
    """
    words = _batch_words(root, pass_index, index)
    _seed_globals(words)
    seed_frameworks(words)


@contextmanager
def seeded(root: int, pass_index: int, index: int, *, beside: bool = False) -> Iterator[None]:
    """Seed as `seed_batch` does, for user code in the consumer's process, and restore its random states after.

    What of the frameworks cannot be restored is left alone; see `frameworks_seeded`.

    Args:
        root: The stream's root seed.
        pass_index: The pass.
        index: The batch, or what stands for a hook.
        beside: Whether other code of this process runs at the same time, which may train: what that draws from all the
            time, torch's stream, is left alone then. `random` and `numpy.random` are seeded for both.
    """
    words = _batch_words(root, pass_index, index)
    before = own_streams.enter()
    try:
        _seed_globals(words)
        with frameworks_seeded(words, with_torch=not beside):
            yield
    finally:
        own_streams.leave(before)


def _batch_words(root: int, pass_index: int, index: int) -> np.ndarray:
    return _sequence(root, BATCH, pass_index, index).generate_state(4, np.uint32)


def _seed_globals(words: np.ndarray) -> None:
    np.random.seed(words)  # noqa: NPY002 - the user's legacy stream is the one to seed
    random.seed(words.tobytes())


def _sequence(root: int, *words: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((root, *words))
