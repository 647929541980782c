"""`rayfeed.Sequence`, how an object is recognised as one, and how one is run."""

from __future__ import annotations

import inspect
import operator
from typing import Any, Literal

from rayfeed.batch import Batch
from rayfeed.errors import SourceError

BASE_CLASS_NAMES = ("Sequence", "PyDataset")
"""Classes of this name in a framework define empty hooks (keras, tf_keras, tensorflow.keras)."""

Hook = Literal["on_epoch_begin", "on_epoch_end"]


class Sequence:
    """A data set of whole batches that can be asked for by number, in any order and from any process.

    The class to inherit from when no framework should be imported; Keras' own ``keras.utils.PyDataset`` (once
    ``keras.utils.Sequence``) and any other object with these methods serve as well. ``__getitem__`` must give the same
    batch for the same index between two calls of the hooks (up to its own random augmentation): a batch whose producer
    was lost is made again elsewhere.

    The arguments that the constructor of a ``PyDataset`` takes, ``workers``, ``use_multiprocessing`` and
    ``max_queue_size``, are for Keras' own `fit`; here those of the call count.

    Example:
        >>> class Pairs(Sequence):
        ...     def __len__(self):
        ...         return 10
        ...     def __getitem__(self, index):
        ...         return inputs[32 * index : 32 * (index + 1)], targets[32 * index : 32 * (index + 1)]
    """

    def __getitem__(self, index: int) -> Any:
        """Make one batch: ``(inputs, targets)`` or ``(inputs, targets, sample_weight)``.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index)")

    def __len__(self) -> int:
        """The number of batches in one pass; read again after every hook."""
        raise NotImplementedError(f"{type(self).__name__} must define __len__()")

    def on_epoch_begin(self) -> None:
        """Called once before each pass, the first included, on one copy whose new state every producer then gets."""

    def on_epoch_end(self) -> None:
        """Called once after each whole pass, on the same copy, before the next pass' `on_epoch_begin`."""


ENDLESS = 1 << 60
"""Batches of a Sequence that has any number of them: its only pass never ends."""


def is_sequence(source: object) -> bool:
    """Whether the object can be asked for batch i of n: it has ``__getitem__`` and ``__len__``.

    ``num_batches``, which a Keras PyDataset may have in its place, serves as well.
    """
    kind = type(source)
    return hasattr(kind, "__getitem__") and (hasattr(kind, "__len__") or hasattr(kind, "num_batches"))


def overrides(sequence: object, hook: Hook) -> bool:
    """Whether the Sequence does anything in this hook; without a hook, no canonical copy is needed."""
    method = getattr(type(sequence), hook, None)
    if method is None or (hook == "on_epoch_begin" and not _needs_nothing(method)):
        return False
    owner, _, _ = getattr(method, "__qualname__", "").rpartition(".")
    framework = str(getattr(method, "__module__", "")).split(".")[0]
    is_base = framework in ("rayfeed", "keras", "tf_keras", "tensorflow") and owner in BASE_CLASS_NAMES
    return not is_base


def _needs_nothing(method: Any) -> bool:
    """Whether a method can be called without arguments; a callback's ``on_epoch_begin(epoch)`` is another thing."""
    try:
        inspect.signature(method).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def checked_length(sequence: Any) -> int:
    """``len(sequence)``, or its ``num_batches``; `ENDLESS` where that is None, as of an infinite Keras PyDataset.

    Raises:
        SourceError: It says no number.
    """
    if not hasattr(type(sequence), "__len__") and sequence.num_batches is None:
        return ENDLESS
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

    def begin_pass(self) -> None:
        """Run the user's hook before a pass."""
        self.sequence.on_epoch_begin()

    def end_pass(self) -> None:
        """Run the user's hook after a whole pass."""
        self.sequence.on_epoch_end()

    def length(self) -> int:
        """Batches of the next pass, as the hooks left it."""
        return checked_length(self.sequence)
