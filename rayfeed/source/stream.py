"""A source, opened: the two kinds of thing that make batches, behind what producers need from them.

`describe` decides once, in the caller's process, which kind a source is and what is known of it beforehand.
`open_source` turns the user's object into a `SequenceSource` or a `GeneratorSource` in the process that runs it.
"""

from __future__ import annotations

import operator
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rayfeed.batch import Batch, shown
from rayfeed.errors import SourceError
from rayfeed.source.sequence import is_sequence, overrides_on_epoch_end
from rayfeed.source.shipping import is_fresh


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before it runs.

    Attributes:
        is_sequence: Whether it can be asked for batch i; else it is one stream.
        length: Batches in its first pass; None for a stream.
        has_epoch_end: Whether its `on_epoch_end` does anything.
        type_name: Its class, for messages.
    """

    is_sequence: bool
    length: int | None
    has_epoch_end: bool
    type_name: str


def describe(source: object, *, name: str) -> SourceInfo:
    """Tell what a source is.

    Args:
        source: A Sequence; a generator object or another iterator; or a callable without arguments that returns one.
        name: The argument's name, for the message.

    Raises:
        SourceError: It is none of these.
    """
    type_name = type(source).__name__
    if is_sequence(source) and not isinstance(source, (list, tuple, dict, str, bytes)) and not hasattr(source, "dtype"):
        length = checked_length(source)
        return SourceInfo(
            is_sequence=True, length=length, has_epoch_end=overrides_on_epoch_end(source), type_name=type_name
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


def checked_length(sequence: Any) -> int:
    """``len(sequence)``, or its ``num_batches``.

    Raises:
        SourceError: It says no number, as an infinite Keras PyDataset does.
    """
    try:
        return len(sequence) if hasattr(type(sequence), "__len__") else operator.index(sequence.num_batches)
    except TypeError as error:
        raise SourceError(
            f"{type(sequence).__name__} does not say how many batches it has: {error}.\n"
            "  Give __len__ (or num_batches) a number; an endless source is written as a generator."
        ) from error


class SequenceSource:
    """A Sequence in the process that runs it. `make` may be called from several threads, in any order."""

    def __init__(self, sequence: Any) -> None:
        self.sequence = sequence

    def make(self, index: int) -> Batch:
        """Batch `index` of the current pass, as user code returned it."""
        return self.sequence[index]

    def end_pass(self) -> int:
        """Run the user's hook after a whole pass; the length of the next one."""
        hook = getattr(self.sequence, "on_epoch_end", None)
        if hook is not None:
            hook()
        return checked_length(self.sequence)


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
        SourceError: A callable returned something that is no iterator.
    """
    if info.is_sequence:
        return SequenceSource(source)
    if hasattr(type(source), "__next__"):
        return GeneratorSource(source, is_lent=is_lent)
    function: Callable[[], Any] = source
    made = function()
    if not hasattr(made, "__next__") and hasattr(made, "__iter__"):
        made = iter(made)
    if not hasattr(made, "__next__"):
        raise SourceError(f"{info.type_name}() must return a generator or other iterator, got {shown(made)}.")
    is_lent = is_lent and isinstance(made, types.GeneratorType) and not is_fresh(made)
    return GeneratorSource(made, is_lent=is_lent)
