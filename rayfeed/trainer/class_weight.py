"""`class_weight` as sample weights, for any source and any number of outputs (contract E1).

Keras 3 refuses class weights for generators, beside sample weights, and for several outputs. Here each sample's weight
for an output is the weight of its class there, times its sample weight where the batch has one.

    class_weight                      for                      an output that is not named
    {0: 1.0, 1: 5.0}                  a model with one output  -
    {"left": {0: 1.0, 1: 5.0}, ...}   any number of outputs    keeps its sample weights, or 1

What Keras then gets has the structure of the model's outputs, which is how its loss looks weights up: a dict where they
are a dict, else one array for each in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayfeed.batch import shown
from rayfeed.errors import OptionError

MAX_CLASS = 1 << 20
"""Class numbers are looked up in a table of this length at most; labels are small numbers."""

Weights = dict[int, float]
"""Class number -> weight."""

NamedWeights = dict[str, Weights]
"""Output name -> class number -> weight."""

NESTED = (dict, list, tuple)
"""What holds the arrays of several outputs."""


@dataclass(frozen=True)
class Outputs:
    """What a model gives, as far as it is known before it is called.

    Attributes:
        names: One per output, in the order in which Keras flattens them.
        keyed: Whether they are a dict, with these keys.
    """

    names: tuple[str, ...]
    keyed: bool


def outputs_of(model: Any) -> Outputs | None:
    """A functional model's outputs; None for other models, which tell only when they are called."""
    names = getattr(model, "output_names", None)
    if names is None:
        return None
    structure = model.output
    if isinstance(structure, Mapping):
        return Outputs(tuple(sorted(structure)), keyed=True) if len(structure) == len(names) else None
    return Outputs(tuple(names), keyed=False)


def check_class_weight(class_weight: Any, outputs: Outputs | None = None) -> Weights | NamedWeights | None:
    """The weights as plain numbers.

    Args:
        class_weight: What the caller gave.
        outputs: The model's, where they are known.

    Raises:
        OptionError: It is neither class number -> weight nor output name -> that, or does not fit the outputs.
    """
    if class_weight is None:
        return None
    checked: Weights | NamedWeights
    if not isinstance(class_weight, Mapping) or not any(isinstance(each, Mapping) for each in class_weight.values()):
        checked = _checked(class_weight, "class_weight")
    else:
        for name in class_weight:
            if not isinstance(name, str):
                raise OptionError(
                    f"class_weight has the key {name!r} beside the names of outputs.\n"
                    "  Give class number -> weight, or output name -> such a dict."
                )
        checked = {name: _checked(of_one, f"class_weight[{name!r}]") for name, of_one in class_weight.items()}
    check_fits(checked, outputs)
    return checked


def check_fits(weights: Weights | NamedWeights, outputs: Outputs | None) -> None:
    """Raise `OptionError` where weights name an output that there is not, or none of several."""
    if outputs is None:
        return
    named = _by_name(weights)
    if not named and len(outputs.names) > 1:
        raise _unnamed(weights, f"the model has {len(outputs.names)} outputs: {_listed(outputs.names)}")
    unknown = [name for name in named if name not in outputs.names]
    if unknown:
        raise OptionError(
            f"class_weight names {_listed(unknown)}, which is no output of the model.\n"
            f"  Its outputs are {_listed(outputs.names)}."
        )


class ClassWeight:
    """Looks up the weights of a batch's targets.

    Args:
        weights: As `check_class_weight` gave them.
        outputs: The model's outputs, where they are known.

    Raises:
        OptionError: The two do not fit.
    """

    def __init__(self, weights: Weights | NamedWeights, outputs: Outputs | None = None) -> None:
        check_fits(weights, outputs)
        self._weights = weights
        self._outputs = outputs
        self._tables = {name: _Table(of_one, f"class_weight[{name!r}]") for name, of_one in _by_name(weights).items()}
        self._table: _Table | None = None  # of the one output there is
        if not self._tables:
            self._table = _Table(_of_one(weights), "class_weight")
            if outputs is not None:
                self._tables = {outputs.names[0]: self._table}
        elif outputs is not None and len(outputs.names) == 1:
            self._table = self._tables[outputs.names[0]]

    def sample_weight(self, targets: Any, sample_weight: Any) -> Any:
        """The weight of each sample.

        Args:
            targets: Of one output: class numbers, shape ``(n,)`` or ``(n, 1)``, or one-hot rows, shape
                ``(n, classes)``. Of several: a list or tuple of arrays in the outputs' order, or a dict by their names;
                those of outputs that are not weighted may be anything.
            sample_weight: The batch's own weights, or None. An array of shape ``(n, ...)`` counts for every output; of
                several outputs also a list, tuple or dict of these.

        Returns:
            float32 of the shape of `sample_weight`, or ``(n,)``; for several outputs a dict or tuple of these.

        Raises:
            OptionError: The targets are no classes, hold a class that has no weight, or are not those of the outputs.
        """
        if not isinstance(targets, NESTED) or (not self._tables and len(targets) < 2):
            if self._table is not None:
                return self._table.sample_weight(targets, sample_weight)
            raise OptionError(
                f"class_weight is by output ({_listed(self._weights)}), and the targets are {_found(targets)}.\n"
                "  For one output give class number -> weight, without a name; for several, one array of targets each."
            )
        if not self._tables:
            found = f": {_listed(targets)}" if isinstance(targets, dict) else ""
            raise _unnamed(self._weights, f"the targets are of {len(targets)} outputs{found}")
        names = self._names(targets)
        members = _in_order(targets, names, "targets")
        own = [sample_weight] * len(names)
        if isinstance(sample_weight, NESTED):
            own = _in_order(sample_weight, names, "sample weights")
        length = max(len(member) for member in members if member is not None)
        weights = [self._of_output(*each, length) for each in zip(names, members, own, strict=True)]
        if self._outputs is None or self._outputs.keyed:
            return dict(zip(names, weights, strict=True))
        return tuple(weights)

    def _of_output(self, name: str, targets: Any, own: Any, length: int) -> np.ndarray:
        """The weights of one output of several: by class, or else its own, or else 1."""
        if name in self._tables and targets is not None:
            return self._tables[name].sample_weight(targets, own)
        return np.ones(length, np.float32) if own is None else np.asarray(own)

    def _names(self, targets: Any) -> tuple[str, ...]:
        """The outputs' names, in their order."""
        if self._outputs is not None:
            return self._outputs.names
        if not isinstance(targets, dict):
            raise OptionError(
                f"class_weight names outputs ({_listed(self._weights)}), but the targets are a "
                f"{type(targets).__name__} and the model's outputs have no names.\n"
                "  Let the source give targets as a dict of output name -> array."
            )
        check_fits(self._weights, Outputs(tuple(targets), keyed=True))
        return tuple(targets)


class _Table:
    """The weights of one output's classes.

    Args:
        weights: Class number -> weight.
        name: What errors call them.
    """

    def __init__(self, weights: Weights, name: str) -> None:
        self._name = name
        self._table = np.full(max(weights) + 1, np.nan, np.float32)
        for label, weight in weights.items():
            self._table[label] = weight

    def sample_weight(self, targets: Any, own: Any) -> np.ndarray:
        """As of `ClassWeight`, for one output."""
        if not isinstance(targets, np.ndarray) or targets.ndim > 2:
            raise OptionError(
                f"{self._name} needs targets in one array of classes, of shape (n,), (n, 1) or (n, classes); got "
                f"{_found(targets)}."
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
                f"{self._name} has no weight for class {', '.join(map(str, missing))}, which the targets hold.\n"
                "  Give every class a weight; 1.0 leaves a class as it is."
            )
        if own is None:
            return weights
        own = np.asarray(own, np.float32)
        return own * weights.reshape((-1,) + (1,) * (own.ndim - 1))


def _checked(weights: Any, name: str) -> Weights:
    """One output's weights as plain numbers."""
    if not isinstance(weights, Mapping) or not weights:
        raise OptionError(f"{name} must be a dict of class number -> weight, got {shown(weights)}.")
    for label, weight in weights.items():
        is_label = hasattr(label, "__index__") and not isinstance(label, bool) and 0 <= label < MAX_CLASS
        if (
            not is_label
            or isinstance(weight, bool)
            or not isinstance(weight, (int, float, np.number))
            or not 0 <= weight < np.inf
        ):
            raise OptionError(
                f"{name} must be a dict of class number -> weight; got {label!r}: {weight!r}.\n"
                "  Classes are whole numbers from 0, weights are numbers of at least 0."
            )
    return {int(label): float(weight) for label, weight in weights.items()}


def _by_name(weights: Weights | NamedWeights) -> NamedWeights:
    """The weights by output; none where they are the one output's."""
    return {str(name): of_one for name, of_one in weights.items() if isinstance(of_one, dict)}


def _of_one(weights: Weights | NamedWeights) -> Weights:
    """The weights of the one output there is."""
    return {int(label): weight for label, weight in weights.items() if isinstance(weight, float)}


def _in_order(members: Any, names: tuple[str, ...], what: str) -> list[Any]:
    """Arrays of several outputs in their order, None for one that is not there."""
    if isinstance(members, dict):
        unknown = [name for name in members if name not in names]
        if unknown:
            raise OptionError(
                f"class_weight: the {what} name {_listed(unknown)}, which is no output of the model.\n"
                f"  Its outputs are {_listed(names)}."
            )
        return [members.get(name) for name in names]
    if len(members) != len(names):
        raise OptionError(
            f"class_weight: the {what} are {len(members)} arrays, and the model has {len(names)} outputs: "
            f"{_listed(names)}.\n  Give one for each, or a dict of output name -> array."
        )
    return list(members)


def _unnamed(weights: Weights | NamedWeights, found: str) -> OptionError:
    text = shown(weights).removeprefix("dict ")
    return OptionError(
        f"class_weight={text} does not say which output's classes these are: {found}.\n"
        f"  Write class_weight={{name: {text}}} with the names of outputs; those not named are not weighted."
    )


def _found(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else shown(value)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))
