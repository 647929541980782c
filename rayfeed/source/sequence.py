"""`rayfeed.Sequence`, and how an object is recognised as one."""

from __future__ import annotations

from typing import Any

BASE_CLASS_NAMES = ("Sequence", "PyDataset")
"""Classes of this name in a framework define an empty ``on_epoch_end`` (keras, tf_keras, tensorflow.keras)."""


class Sequence:
    """A data set of whole batches that can be asked for by number, in any order and from any process.

    The class to inherit from when no framework should be imported; Keras' own ``keras.utils.PyDataset`` (once
    ``keras.utils.Sequence``) and any other object with these methods serve as well. ``__getitem__`` must give the same
    batch for the same index between two calls of `on_epoch_end` (up to its own random augmentation): a batch whose
    producer was lost is made again elsewhere.

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
        """The number of batches in one pass; read again after every `on_epoch_end`."""
        raise NotImplementedError(f"{type(self).__name__} must define __len__()")

    def on_epoch_end(self) -> None:
        """Called once after each whole pass, on one copy whose new state every producer then gets."""


def is_sequence(source: object) -> bool:
    """Whether the object can be asked for batch i of n: it has ``__getitem__`` and ``__len__``.

    ``num_batches``, which a Keras PyDataset may have in its place, serves as well.
    """
    kind = type(source)
    return hasattr(kind, "__getitem__") and (hasattr(kind, "__len__") or hasattr(kind, "num_batches"))


def overrides_on_epoch_end(sequence: object) -> bool:
    """Whether the Sequence does anything between passes; if not, no canonical copy is needed."""
    hook = getattr(type(sequence), "on_epoch_end", None)
    if hook is None:
        return False
    owner, _, _ = getattr(hook, "__qualname__", "").rpartition(".")
    framework = str(getattr(hook, "__module__", "")).split(".")[0]
    is_base = framework in ("rayfeed", "keras", "tf_keras", "tensorflow") and owner in BASE_CLASS_NAMES
    return not is_base
