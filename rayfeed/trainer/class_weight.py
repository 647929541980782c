"""`class_weight` as sample weights, for any source (contract E1).

Keras 3 refuses class weights for generators, and beside sample weights. Here each sample's weight is the weight of its
class, times its sample weight where the batch has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rayfeed.batch import shown
from rayfeed.errors import OptionError

MAX_CLASS = 1 << 20
"""Class numbers are looked up in a table of this length at most; labels are small numbers."""


def check_class_weight(class_weight: Any) -> dict[int, float] | None:
    """The weights as plain numbers.

    Raises:
        OptionError: It is no dict of class number -> weight.
    """
    if class_weight is None:
        return None
    if not isinstance(class_weight, Mapping) or not class_weight:
        raise OptionError(f"class_weight must be a dict of class number -> weight, got {shown(class_weight)}.")
    for label, weight in class_weight.items():
        is_label = hasattr(label, "__index__") and not isinstance(label, bool) and 0 <= label < MAX_CLASS
        if (
            not is_label
            or isinstance(weight, bool)
            or not isinstance(weight, (int, float, np.number))
            or not 0 <= weight < np.inf
        ):
            raise OptionError(
                f"class_weight must be a dict of class number -> weight; got {label!r}: {weight!r}.\n"
                "  Classes are whole numbers from 0, weights are numbers of at least 0."
            )
    return {int(label): float(weight) for label, weight in class_weight.items()}


class ClassWeight:
    """Looks up the weights of a batch's targets.

    Args:
        weights: Class number -> weight, as `check_class_weight` gave it.
    """

    def __init__(self, weights: Mapping[int, float]) -> None:
        self._table = np.full(max(weights) + 1, np.nan, np.float32)
        for label, weight in weights.items():
            self._table[label] = weight

    def sample_weight(self, targets: Any, sample_weight: Any) -> np.ndarray:
        """The weight of each sample.

        Args:
            targets: Class numbers, shape ``(n,)`` or ``(n, 1)``, or one-hot rows, shape ``(n, classes)``.
            sample_weight: The batch's own weights, shape ``(n, ...)``, or None.

        Returns:
            float32 of the shape of `sample_weight`, or ``(n,)``.

        Raises:
            OptionError: The targets are no classes, or hold a class that has no weight.
        """
        if not isinstance(targets, np.ndarray) or targets.ndim > 2:
            found = f"an array of shape {targets.shape}" if isinstance(targets, np.ndarray) else shown(targets)
            raise OptionError(
                "class_weight needs targets in one array of classes, of shape (n,), (n, 1) or (n, classes); got "
                f"{found}."
            )
        if targets.ndim == 2:
            targets = targets[:, 0] if targets.shape[1] == 1 else targets.argmax(axis=1)
        labels = np.rint(np.nan_to_num(targets, nan=-1.0)).astype(np.int64)  # rounded, as Keras does
        inside = (labels >= 0) & (labels < len(self._table))
        weights = self._table[np.where(inside, labels, 0)]
        unknown = ~inside | np.isnan(weights)
        if unknown.any():
            missing = np.unique(labels[unknown])[:10].tolist()
            raise OptionError(
                f"class_weight has no weight for class {', '.join(map(str, missing))}, which the targets hold.\n"
                "  Give every class a weight; 1.0 leaves a class as it is."
            )
        if sample_weight is None:
            return weights
        own = np.asarray(sample_weight, np.float32)
        return own * weights.reshape((-1,) + (1,) * (own.ndim - 1))
