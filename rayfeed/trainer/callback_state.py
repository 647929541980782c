"""What a run changed in its callbacks, packed so that what they share stays shared.

An attribute has changed when its pickle has. Only digests of these are kept: callbacks hold validation data. All that
changed goes into one pickle, and what both ends have goes by reference:

    in the pickle                                             at the other end
    -------------                                             ----------------
    a callback of the call, the model or a part of it         that end's
    an object that an attribute still holds, unchanged        what the attribute holds there
    a list, dict or set that an attribute still holds         likewise, filled in place: whoever has it sees the change
    anything else                                             a new object, the same one for all that refer to it

Functions stay, unless any process can import them: what a closure in the caller's process captured cannot be reached
from another (`rayfeed.on_driver` is for those).
"""

from __future__ import annotations

import hashlib
import sys
import types
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras  # noqa: TC002 - the backend is chosen: this file is only loaded beside a model
import numpy as np

from rayfeed.errors import SourceError
from rayfeed.source.shipping import pack, unpack
from rayfeed.trainer.transport import objects_of

OF_ONE_RUN = ("_model", "params")
"""Attributes that Keras sets for a run: different on both sides."""

FILLED = (list, deque, dict, defaultdict, OrderedDict, Counter, set)
"""What is filled in place; and the user's own lists and dicts that pickle takes down as such."""


@dataclass(frozen=True)
class Held:
    """An object that both ends have, in an attribute of a callback.

    Attributes:
        callback: The callback's number.
        name: The attribute's name.
        filled: The class of an object whose contents are sent; None of one that did not change.
    """

    callback: int
    name: str
    filled: type | None


@dataclass(frozen=True)
class Changes:
    """What changed in a call's callbacks.

    Attributes:
        contents: Of each object that is filled, what it holds now.
        values: Of each callback, the attributes that changed.
        removed: Of each callback, the attributes that are gone.
    """

    contents: list[Any]
    values: list[dict[str, Any]]
    removed: list[list[str]]


class Snapshot:
    """The state in which callbacks came, to tell later what changed, and to bring back what had changed by then.

    Args:
        callbacks: The callbacks of one call.
        model: This process' model.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], model: Any) -> None:
        self._callbacks = callbacks
        self._model = model
        self._digests: list[list[dict[str, bytes]]] = []  # of each moment, of each callback
        self._had: list[dict[str, Any]] = []  # at the last moment
        self.take()

    def take(self) -> None:
        """Take the state down once more: what differs from any of the moments has changed, all else is a setting."""
        self._digests.append(self._now(None))
        self._had = [dict(vars(callback)) for callback in self._callbacks]

    def changes(self, *, warning: str | None) -> bytes:
        """What has changed, packed.

        Args:
            warning: How the warning of a user's attribute that cannot be packed begins; None for no warning.
        """
        now = self._now(warning)
        values = [
            {name: vars(callback)[name] for name in digests if any(digests[name] != one.get(name) for one in before)}
            for callback, digests, *before in zip(self._callbacks, now, *self._digests, strict=True)
        ]
        removed = [
            [name for name in before if name not in vars(callback)]
            for callback, before in zip(self._callbacks, self._digests[-1], strict=True)
        ]
        held, objects = self._held(values)
        contents = [_contents(one) for place, one in zip(held, objects, strict=True) if place.filled is not None]
        own = [*self._callbacks, *objects, *objects_of(self._model)]
        changes = pack(Changes(contents, values, removed), name="callbacks", by_reference=own)
        return pack((held, changes), name="callbacks")

    def put_back(self, packed: bytes) -> None:
        """Give the callbacks what `changes` told, in this process or in another that came to the same moment."""
        put_changes(packed, self._callbacks, self._had, self._model)

    def _held(self, changed: list[dict[str, Any]]) -> tuple[list[Held], list[Any]]:
        """What attributes hold as at the last moment: places, and the objects there, each once."""
        held: list[Held] = []
        objects: list[Any] = []
        seen = {id(one) for one in (*self._callbacks, *objects_of(self._model))}
        for number, (callback, had) in enumerate(zip(self._callbacks, self._had, strict=True)):
            for name, value in vars(callback).items():
                is_changed = name in changed[number]
                if value is not had.get(name) or id(value) in seen or name in OF_ONE_RUN:
                    continue
                if _is_filled(value) if is_changed else _is_one_of_many(value):
                    seen.add(id(value))
                    objects.append(value)
                    held.append(Held(number, name, type(value) if is_changed else None))
        return held, objects

    def _now(self, warning: str | None) -> list[dict[str, bytes]]:
        """Digests of each callback's attributes; without those that cannot be packed."""
        own = [*self._callbacks, *objects_of(self._model)]
        return [_digests(callback, own, warning) for callback in self._callbacks]


def put_changes(
    packed: bytes, callbacks: Sequence[keras.callbacks.Callback], had: Sequence[Mapping[str, Any]], model: Any
) -> None:
    """Give callbacks what changed in their twins.

    Args:
        packed: As of `Snapshot.changes`.
        callbacks: This end's.
        had: Of each callback, the attributes whose objects are the twins'.
        model: This end's.
    """
    held: list[Held]
    held, data = unpack(packed)
    objects = [_here(had[place.callback].get(place.name), place.filled) for place in held]
    changes: Changes = unpack(data, by_reference=[*callbacks, *objects, *objects_of(model)])
    filled = [one for place, one in zip(held, objects, strict=True) if place.filled is not None]
    for one, contents in zip(filled, changes.contents, strict=True):
        one.clear()
        (one.extend if isinstance(one, (list, deque)) else one.update)(contents)
    for callback, values, removed in zip(callbacks, changes.values, changes.removed, strict=True):
        own = vars(callback)
        own.update(values)
        for name in removed:
            own.pop(name, None)


def _here(found: Any, filled: Any) -> Any:
    """This end's object; a new one where this end's callback came with something else."""
    if filled is None or type(found) is filled:
        return found
    return filled.__new__(filled)


def _contents(value: Any) -> Any:
    return next(kind for kind in (list, dict, set, deque) if isinstance(value, kind))(value)


def _is_filled(value: Any) -> bool:
    """Whether an object is what it holds, and nothing else."""
    return type(value) in FILLED or (isinstance(value, (list, dict)) and _is_pickled_as_any(type(value)))


def _is_one_of_many(value: Any) -> bool:
    """Whether an object can be told from others alike: no number or text, no function, nothing that is sent by name."""
    if isinstance(value, (*FILLED, np.ndarray)):
        return True
    return hasattr(value, "__dict__") and not callable(value) and _is_pickled_as_any(type(value))


def _is_pickled_as_any(kind: type) -> bool:
    return kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__


def _digests(callback: keras.callbacks.Callback, own: list[Any], warning: str | None) -> dict[str, bytes]:
    """A digest of each attribute, packed by itself with `own` by reference."""
    digests: dict[str, bytes] = {}
    for name, value in vars(callback).items():
        if name in OF_ONE_RUN or _is_bound(value):
            continue
        try:
            packed = pack(value, name=f"{type(callback).__name__}.{name}", by_reference=own)
        except SourceError as error:
            if warning is not None and not _is_keras_own(callback, name):
                warnings.warn(f"{warning}: {error}", stacklevel=2)
        else:
            digests[name] = hashlib.sha256(packed).digest()
    return digests


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
