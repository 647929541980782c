"""A source, opened: the two kinds of thing that make batches, behind what producers need from them.

`describe` decides once, in the caller's process, which kind a source is and what is known of it beforehand.
`open_source` turns the user's object into a `SequenceSource` or a `GeneratorSource` in the process that runs it.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rayfeed.batch import Batch, shown
from rayfeed.errors import SourceError
from rayfeed.source.image_iterator import open_sequence
from rayfeed.source.sequence import ENDLESS, SequenceSource, checked_length, is_sequence, overrides
from rayfeed.source.shipping import is_fresh


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before it runs.

    Attributes:
        is_sequence: Whether it can be asked for batch i; else it is one stream.
        length: Batches in its first pass; None for a stream.
        has_epoch_end: Whether its `on_epoch_end` does anything.
        type_name: Its class, for messages.
        has_epoch_begin: Whether its `on_epoch_begin` does anything.
    """

    is_sequence: bool
    length: int | None
    has_epoch_end: bool
    type_name: str
    has_epoch_begin: bool = False

    @property
    def is_endless(self) -> bool:
        """Whether only a number of steps can cut it: it is a stream, or a Sequence without an end."""
        return self.length is None or self.length >= ENDLESS

    @property
    def has_hooks(self) -> bool:
        """Whether anything runs between its passes."""
        return self.has_epoch_end or self.has_epoch_begin


def describe(source: object, *, name: str) -> SourceInfo:
    """Tell what a source is.

    Args:
        source: A Sequence; a generator object or another iterator; or a callable without arguments that returns one.
        name: The argument's name, for the message.

    Raises:
        SourceError: It is none of these.
    """
    type_name = type(source).__name__
    if is_sequence(source) and not _is_data(source):
        length = checked_length(source)
        return SourceInfo(
            is_sequence=True,
            length=length,
            has_epoch_end=overrides(source, "on_epoch_end"),
            type_name=type_name,
            has_epoch_begin=overrides(source, "on_epoch_begin"),
        )
    if hasattr(type(source), "__next__"):
        return SourceInfo(is_sequence=False, length=None, has_epoch_end=False, type_name=type_name)
    is_factory = not isinstance(source, type) or hasattr(source, "__next__") or hasattr(source, "__iter__")
    if callable(source) and is_factory:  # of classes, those of iterators; a Sequence's class is no Sequence
        type_name = getattr(source, "__name__", type_name)
        return SourceInfo(is_sequence=False, length=None, has_epoch_end=False, type_name=type_name)
    raise SourceError(
        f"{name} must be a Sequence (with __getitem__ and __len__), a generator or other iterator, or a function that "
        f"returns one; got {shown(source)}."
    )


class GeneratorSource:
    """One stream of batches. `make` is called in order, one call at a time; `close` waits for the one that runs.

    Args:
        iterator: Where the batches come from.
        is_lent: Whether it stays its owner's, who may go on with it: it is not closed then.
    """

    END = object()

    def __init__(self, iterator: Iterator[Batch], *, is_lent: bool = False) -> None:
        self.iterator = iterator
        self.is_lent = is_lent
        self._lock = threading.Lock()

    def make(self) -> Batch:
        """The next batch, or `END`."""
        with self._lock:
            return next(self.iterator, self.END)

    def close(self) -> None:
        """Let a generator run its ``finally`` blocks."""
        if isinstance(self.iterator, types.GeneratorType) and not self.is_lent:
            with self._lock:
                self.iterator.close()


def open_source(source: Any, info: SourceInfo, *, is_lent: bool = False) -> SequenceSource | GeneratorSource:
    """Turn the user's object into something that makes batches.

    Args:
        source: The object, or a copy of it.
        info: What it is.
        is_lent: Whether it is the user's own object, not a copy. What a function makes is nobody else's, unless it is
            a generator that was started before.

    Raises:
        SourceError: A callable returned something that is no iterator, or a Sequence.
    """
    if info.is_sequence:
        return open_sequence(source)
    if hasattr(type(source), "__next__"):
        return GeneratorSource(source, is_lent=is_lent)
    function: Callable[[], Any] = source
    made = function()
    if is_sequence(made) and not _is_data(made) and not hasattr(made, "__next__"):
        raise SourceError(
            f"{info.type_name}() returned a Sequence ({type(made).__name__}), which would be read for one pass only.\n"
            "  Pass the Sequence itself: any number of producers then make its batches, each exactly once a pass. What "
            "it holds that cannot be sent, such as an open file, it must open on first use."
        )
    if not hasattr(made, "__next__") and hasattr(made, "__iter__"):
        made = iter(made)
    if not hasattr(made, "__next__"):
        raise SourceError(f"{info.type_name}() must return a generator or other iterator, got {shown(made)}.")
    is_lent = is_lent and isinstance(made, types.GeneratorType) and not is_fresh(made)
    return GeneratorSource(made, is_lent=is_lent)


def _is_data(source: object) -> bool:
    """Whether it is an array or a container of batches, which has the methods of a Sequence too."""
    return isinstance(source, (list, tuple, dict, str, bytes)) or hasattr(type(source), "__array__")
