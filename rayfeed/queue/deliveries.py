"""What a window hands to its stream's consumer, in the order in which the consumer gets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Deliver:
    """Hand these batches to the consumer: places ``start`` to ``stop - 1`` of an answer's payload."""

    payload: Any
    start: int
    stop: int


@dataclass(frozen=True)
class PassEnded:
    """Every batch of a pass was delivered before this.

    Attributes:
        pass_index: The pass that ended.
        next_length: Batches of the next one.
    """

    pass_index: int
    next_length: int


@dataclass(frozen=True)
class PassBegun:
    """The `on_epoch_begin` before a pass has run; the pass' batches come after this. Only where there is such a hook.

    Attributes:
        pass_index: The pass that begins.
        length: Its batches.
    """

    pass_index: int
    length: int


@dataclass(frozen=True)
class StreamFailed:
    """The stream's next batch is an error."""

    failure: Any


@dataclass(frozen=True)
class StreamEnded:
    """There is no next batch."""


Delivery = Deliver | PassEnded | PassBegun | StreamFailed | StreamEnded
