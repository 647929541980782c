"""How the user's callbacks travel to the trainer, and how what they learnt comes home.

On the way there the caller's model is left out: where a callback refers to it, or to a layer, optimizer or variable of
it, it refers to the trainer's at the other end. On the way back come the attributes that the run changed, not the
objects: the caller's own callbacks keep their identity, and a list or dict of theirs is filled in place, so that
whoever else holds it sees the change. Functions stay, unless any process can import them: what a closure in the
caller's process captured cannot be reached from another (`rayfeed.on_driver` is for those).
"""

from __future__ import annotations

import copy
import sys
import types
import warnings
from dataclasses import dataclass
from typing import Any

import keras  # noqa: TC002 - the backend is chosen: this file is only loaded beside a model

from rayfeed.errors import SourceError
from rayfeed.source.missing import naming_missing_modules
from rayfeed.source.shipping import pack, unpack
from rayfeed.trainer.transport import objects_of

OF_ONE_RUN = ("_model", "params")
"""Attributes that Keras sets for a run: different on both sides."""


@dataclass(frozen=True)
class Changes:
    """What a run changed in one callback.

    Attributes:
        values: The attributes' new values.
        removed: Attributes that are gone.
    """

    values: dict[str, Any]
    removed: list[str]


def pack_callbacks(callbacks: list[keras.callbacks.Callback], model: Any) -> bytes:
    """The user's callbacks, with `model` by reference.

    Raises:
        SourceError: One cannot travel; names the attribute.
    """
    clones = [copy.copy(callback) for callback in callbacks]
    for clone in clones:
        vars(clone).update(dict.fromkeys(OF_ONE_RUN))
    return pack(clones, name="callbacks", by_reference=objects_of(model))


def unpack_callbacks(data: bytes, model: Any) -> list[keras.callbacks.Callback]:
    """The callbacks, referring to this process' `model`."""
    with naming_missing_modules("callbacks"):
        return unpack(data, by_reference=objects_of(model))


class Snapshot:
    """The state in which callbacks arrived, to tell afterwards what changed.

    Args:
        callbacks: The callbacks, before the run.
        model: The trainer's model.
    """

    def __init__(self, callbacks: list[keras.callbacks.Callback], model: Any) -> None:
        self._callbacks = callbacks
        self._model = model
        self._before = [packed_state(callback, model, warning=None) for callback in callbacks]

    def changes(self) -> list[bytes]:
        """What the run changed in each callback, packed. Warns of a user's attributes that cannot travel."""
        packed = []
        own = objects_of(self._model)
        for callback, before in zip(self._callbacks, self._before, strict=True):
            after = packed_state(callback, self._model, warning="This state of a callback stays in the trainer")
            changed = {name: vars(callback)[name] for name, data in after.items() if data != before.get(name)}
            removed = [name for name in before if name not in vars(callback)]
            packed.append(pack(Changes(changed, removed), name="callbacks", by_reference=own))
        return packed


def packed_state(callback: keras.callbacks.Callback, model: Any, *, warning: str | None) -> dict[str, bytes]:
    """A callback's attributes, each packed by itself; without those that cannot be.

    Args:
        callback: The callback.
        model: Goes by reference.
        warning: How the warning of a user's attribute that cannot be packed begins; None for no warning.
    """
    packed: dict[str, bytes] = {}
    own = objects_of(model)
    for name, value in vars(callback).items():
        if name in OF_ONE_RUN or _is_bound(value):
            continue
        try:
            packed[name] = pack(value, name=f"{type(callback).__name__}.{name}", by_reference=own)
        except SourceError as error:
            if warning is not None and not _is_keras_own(callback, name):
                warnings.warn(f"{warning}: {error}", stacklevel=2)
    return packed


def _is_bound(value: Any) -> bool:
    """Whether this is a function that may refer to objects of this process, which are others at the other end.

    One that is imported is state like any other: `EarlyStopping` turns `min_delta` round when it sets `monitor_op`.
    """
    if not isinstance(value, types.FunctionType):
        return isinstance(value, types.MethodType)
    module = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    return getattr(module, value.__qualname__, None) is not value


def _is_keras_own(callback: keras.callbacks.Callback, name: str) -> bool:
    """Whether an attribute belongs to a callback of Keras' (`TensorBoard`'s writers): its code names it.

    Such state is made anew in each run; a user's class may build on one of Keras' and have attributes of its own.
    """
    return any(
        name in function.__code__.co_names
        for kind in type(callback).__mro__
        if kind.__module__.startswith("keras.")
        for function in vars(kind).values()
        if isinstance(function, types.FunctionType)
    )


def apply_changes(
    callbacks: list[keras.callbacks.Callback], packed: list[bytes], model: Any, params: dict[str, Any] | None
) -> None:
    """Bring the changes home to the caller's own callbacks, which then refer to the caller's `model`."""
    for callback, data in zip(callbacks, packed, strict=True):
        changes: Changes = unpack(data, by_reference=objects_of(model))
        set_attributes(callback, changes.values)
        own = vars(callback)
        for name in changes.removed:
            own.pop(name, None)
        own.update({"_model": model, "params": params})


def set_attributes(callback: keras.callbacks.Callback, values: dict[str, Any]) -> None:
    """Give a callback these attributes; a list or dict that it has stays the same object."""
    own = vars(callback)
    for name, value in values.items():
        match own.get(name), value:
            case list() as here, list():
                here[:] = value
            case dict() as here, dict():
                here.clear()
                here.update(value)
            case _:
                own[name] = value
