"""The room that streams have in the object store of the consumer's node: what is refused, and what the user is told.

    0          0.25          0.5                       0.8          1
    |-- queues --|-- in hands --|----- free for others ---|- spilled -|

Ray begins to write objects to disk at 0.8 of a store. Views of delivered batches cannot be written there: each keeps
its whole frame in memory, which no figure of Ray's shows. Where they fill the store, Ray lets the next frame wait for
two seconds and then maps a file for it, and says nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from rayfeed.errors import BatchError, OptionError
from rayfeed.producer.results import SMALL_BYTES

QUEUES_SHARE = 0.25
"""Of the store, what the queues of one call may fill where the caller set no bound."""

HANDS_SHARE = 0.25
"""Of the store, what may be in the producers' hands or on its way besides. What was freed is kept for a while, and
views of delivered batches stay: most of the store stays free for that and for others."""

SPILLING_SHARE = 0.8
"""Of the store, what it holds before Ray writes objects to disk (its `object_spilling_threshold`)."""

HELD_SHARE = 0.5
"""Of the store, what delivered batches may keep before the user is told: the rest is for the queues and the producers'
hands, as above."""

MOST_FRAMES = 256
"""Delivered frames that are remembered before it is looked which of them are still in use."""

HOARDED = (
    "{num_frames} delivered frames are still in use, and keep {held:,} of the {capacity:,} bytes of this node's "
    "object store: a view of one array keeps the whole frame that its batch came in. Once the store is full, each new "
    "frame waits for seconds before Ray writes it to disk. Let go of batches when they are used, or take copies: "
    "Feed(..., copy=True)."
)


def queue_bytes(asked: Sequence[int | None], capacity: int) -> list[tuple[int, int]]:
    """The bounds of the queues of one call.

    Args:
        asked: For each queue the caller's `max_queue_bytes`; None where there is none.
        capacity: Bytes of the consumer's node's store.

    Returns:
        For each queue the bytes that may wait, and those that may wait or be in the producers' hands.

    Raises:
        OptionError: They are more than the store holds in memory.
    """
    holds = int(capacity * SPILLING_SHARE)
    given = [num_bytes for num_bytes in asked if num_bytes is not None]
    if sum(given) > holds:
        each = f", for each of {len(given)} queues," if len(given) > 1 else ""
        raise OptionError(
            f"max_queue_bytes={given[0]:,}{each} is more than the object store of the consumer's node has room for: "
            f"{holds:,} of its {capacity:,} bytes, beyond which Ray writes to disk.\n"
            f"  Give {holds // len(given):,} or less, or none (then the queues share a quarter of the store), "
            "or start Ray with a larger object_store_memory."
        )
    share = int(capacity * QUEUES_SHARE / len(asked))
    hands = int(capacity * HANDS_SHARE / len(asked))
    bounds = [num_bytes or share for num_bytes in asked]
    # What a caller asked for may leave the hands less than their share.
    spare = (holds - sum(bounds)) // len(asked)
    return [(num_bytes, num_bytes + min(hands, max(spare, 0))) for num_bytes in bounds]


def check_batch(num_bytes: int, capacity: int, where: str) -> None:
    """Raise `BatchError` if not even one batch fits in the store."""
    holds = int(capacity * SPILLING_SHARE)
    if num_bytes > holds:
        raise BatchError(
            f"{where}: a batch of {num_bytes:,} bytes is more than the object store of the consumer's node has room "
            f"for: {holds:,} of its {capacity:,} bytes, beyond which Ray writes to disk.\n"
            "  Make smaller batches, or start Ray with a larger object_store_memory."
        )


class Held:
    """The frames whose batches the consumer has and does not let go of. Used by the consumer's thread.

    Looks at them only when as many bytes were delivered as may be held, or twice as many frames as were held at the
    last look: so that a frame costs next to nothing, and those that were let go of are not remembered.

    Args:
        capacity: Bytes of the node's store.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._limit = capacity * HELD_SHARE
        self._frames: list[tuple[int, list[weakref.ref[Any]]]] = []
        self._num_bytes = 0
        self._look_at = MOST_FRAMES
        self._told = False

    def deliver(self, num_bytes: int, memory: list[weakref.ref[Any]]) -> str | None:
        """Count a frame that is about to be delivered.

        Args:
            num_bytes: Of the frame.
            memory: What its views keep alive.

        Returns:
            What to tell the user, once.
        """
        if self._told or num_bytes < SMALL_BYTES:  # those are not in the store
            return None
        text = None
        if self._num_bytes > self._limit or len(self._frames) >= self._look_at:
            self._frames = [frame for frame in self._frames if any(view() is not None for view in frame[1])]
            self._num_bytes = sum(size for size, _ in self._frames)
            self._look_at = max(MOST_FRAMES, 2 * len(self._frames))
            if self._num_bytes > self._limit and len(self._frames) > 1:  # one is in everybody's hands
                self._told = True
                text = HOARDED.format(num_frames=len(self._frames), held=self._num_bytes, capacity=self._capacity)
                self._frames.clear()
        self._frames.append((num_bytes, memory))
        self._num_bytes += num_bytes
        return text
