"""Finds copies of a generator that make the same batches.

With ``use_multiprocessing=True`` every producer runs its own copy of a generator. Copies that read the same file, or
seed themselves with the same number, make the same batches: everything is trained on several times and nothing says so.
A producer sends digests of its copy's first batches, and the consumer compares the copies as they arrive.

A copy whose own first batches are all the same is not compared: its source is constant by nature (a benchmark's).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NUM_COMPARED = 3
"""First batches of each copy that are compared: one or two may be alike by chance where batches are small labels."""

DIGEST_BYTES = 16


def digest(arrays: Sequence[np.ndarray]) -> bytes:
    """What tells a batch from every other: of its arrays' bytes, dtypes and shapes."""
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        # Strings of no fixed width lie elsewhere: the array's own bytes are where.
        found.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return found.digest()


class Twins:
    """Compares the copies of one generator. Runs in the consumer's process."""

    def __init__(self) -> None:
        self._heard: dict[int, dict[int, bytes]] = {}
        self._copies: dict[tuple[bytes, ...], int] = {}

    def hear(self, lane: int, first: int, digests: Sequence[bytes]) -> tuple[int, int] | None:
        """Take the digests of some of a copy's batches.

        Args:
            lane: The copy.
            first: The place of the first of them in the copy's stream.
            digests: Of consecutive batches.

        Returns:
            Two copies whose first `NUM_COMPARED` batches are the same; None while there are none.
        """
        heard = self._heard.setdefault(lane, {})
        heard.update(enumerate(digests, first))
        batches = tuple([heard[place] for place in range(NUM_COMPARED) if place in heard])
        if len(batches) < NUM_COMPARED or len(set(batches)) == 1:
            return None
        other = self._copies.setdefault(batches, lane)
        return (min(other, lane), max(other, lane)) if other != lane else None
