"""How a model was compiled, as far as what a checkpoint holds of it depends on that.

An optimizer's slots mean something to its own class only, and a metric's values to that metric; both are saved as plain
numbers, which another one would take without a word, or stumble over. Losses, learning rates and the like may change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from rayfeed.errors import OptionError
from rayfeed.trainer.transport import NUMBER, optimizers


@dataclass(frozen=True)
class Compilation:
    """What of it must be the same.

    Attributes:
        optimizers: The class of each optimizer.
        metrics: The metrics that the model was compiled with.
        slots: What each optimizer keeps, such as ``momentum``; of one that is not built, only what it has before.
        values: The metrics' variables and their shapes; those that the first step makes are not there before it.
    """

    optimizers: tuple[str, ...]
    metrics: tuple[str, ...]
    slots: tuple[str, ...]
    values: tuple[str, ...]

    @classmethod
    def of(cls, model: Any) -> Compilation:
        """A model's, as it is now."""
        return cls(
            optimizers=tuple(type(one).__name__ for one in optimizers(model)),
            metrics=_metrics(model),
            slots=tuple(_listed(_slots(one)) for one in optimizers(model)),
            values=tuple(f"{_unnumbered(one.path)} {tuple(one.shape)}" for one in model.metrics_variables),
        )

    def check_asked(self, model: Any, *, where: str) -> None:
        """Raise `OptionError` unless a model, built or not, was compiled as the one that is saved in `where`."""
        ours = Compilation.of(model)
        _compare(where, "list of optimizers", self.optimizers, ours.optimizers)
        _compare(where, "list of metrics", self.metrics, ours.metrics)

    def check_built(self, model: Any, *, where: str, has_values: bool) -> None:
        """The same of a model that is built: also with other settings an optimizer or metric can keep something else.

        Args:
            model: The model.
            where: The checkpoint's file.
            has_values: Whether the metrics' variables are there, and were saved.
        """
        ours = Compilation.of(model)
        for theirs, mine in zip(self.slots, ours.slots, strict=True):
            _compare(where, "optimizer's list of variables", [theirs], [mine])
        if has_values:
            _compare(where, "metrics' list of variables", self.values, ours.values)


def _metrics(model: Any) -> tuple[str, ...]:
    given = model._compile_metrics  # noqa: SLF001 - `metrics` has them once the first step was made
    if given is None:
        return ()
    asked = keras.tree.flatten([given._user_metrics, given._user_weighted_metrics])  # noqa: SLF001 - as above
    return tuple(_unnumbered(_named(one)) for one in asked if one is not None)


def _named(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__))


def _slots(optimizer: Any) -> set[str]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # loss scaling wraps another
    weights = inner._trainable_variables if optimizer.built else []  # noqa: SLF001 - nothing public
    # Keras names a slot after its weight.
    prefixes = sorted((f"{one.path.replace('/', '_')}_" for one in weights), key=len, reverse=True)
    return {
        next((one.name.removeprefix(prefix) for prefix in prefixes if one.name.startswith(prefix)), one.name)
        for one in optimizer.variables
    }


def _unnumbered(path: str) -> str:
    """A name without the numbers that Keras gives in each process."""
    return "/".join(NUMBER.sub("", part) for part in path.split("/"))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _compare(where: str, what: str, theirs: Iterable[str], mine: Iterable[str]) -> None:
    theirs, mine = list(theirs), list(mine)
    if theirs != mine:
        raise OptionError(
            f"{where} is of another training: its {what} is {', '.join(theirs) or 'empty'}; this call's is "
            f"{', '.join(mine) or 'empty'}.\n"
            "  Compile the model as it was for the training that was saved, or give another checkpoint_dir."
        )
