"""What a batch is, and the only place that judges one.

A batch is what one ``__getitem__`` or one ``next`` gives: ``inputs``, ``(inputs,)``, ``(inputs, targets)`` or
``(inputs, targets, sample_weight)``, as a tuple or a list. Each of these places, the *roles*, holds an array, a list
or tuple of arrays, or a dict of name -> array; targets and weights may be None. In a role a list always means several
arrays, never numbers: that is Keras' reading of multi-input models.

`flatten` takes a batch apart into a `Structure` (pure description, hashable, made once per stream) and a flat list of
NumPy arrays; `unflatten` is its inverse. All checks that need no knowledge of dtypes or transport are in `flatten`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rayfeed.errors import BatchError

Batch = Any
"""A batch as its source gave it; the module's docstring says which values are batches."""

ROLES = ("inputs", "targets", "sample_weight")
SHOWN_CHARACTERS = 100
"""How much of an unexpected value an error shows (contract B5)."""

ADVICE = "A batch is (inputs, targets) or (inputs, targets, sample_weight)"


@dataclass(frozen=True)
class Group:
    """What stands in one role of a batch.

    Attributes:
        kind: "array" (one array), "none" (None), or the container: "list", "tuple", "dict".
        keys: The dict's names in its own order; empty for the other kinds.
        size: How many arrays it holds.
    """

    kind: Literal["array", "none", "list", "tuple", "dict"]
    keys: tuple[str, ...] = ()
    size: int = 1


@dataclass(frozen=True)
class Structure:
    """How a batch is put together, without its arrays.

    Attributes:
        kind: "bare" (inputs alone, no tuple around them), "tuple" or "list".
        groups: One per role present, in the order of `ROLES`.
    """

    kind: Literal["bare", "tuple", "list"]
    groups: tuple[Group, ...]

    @property
    def num_arrays(self) -> int:
        """How many arrays a batch of this structure has."""
        return sum(group.size for group in self.groups)

    def names(self) -> tuple[str, ...]:
        """One name per array for messages: ``inputs``, ``inputs[1]``, ``targets['left']``."""
        names: list[str] = []
        for role, group in zip(ROLES, self.groups, strict=False):
            if group.kind == "array":
                names.append(role)
            elif group.kind == "dict":
                names.extend(f"{role}[{key!r}]" for key in group.keys)
            else:
                names.extend(f"{role}[{position}]" for position in range(group.size))
        return tuple(names)


def shown(value: object) -> str:
    """The value's repr, cut to `SHOWN_CHARACTERS`, with its type in front."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ that fails must not hide what is to be said
        text = f"(its repr raised {type(error).__name__})"
    if len(text) > SHOWN_CHARACTERS:
        text = text[: SHOWN_CHARACTERS - 3] + "..."
    return f"{type(value).__name__} {text}"


def flatten(batch: Batch, *, where: object, bare_inputs: bool = False) -> tuple[Structure, list[np.ndarray]]:
    """Take a batch apart, and refuse what is none.

    Runs wherever a source runs, once per batch. Array-likes that offer ``__array__`` (tensors, pandas columns)
    become NumPy arrays here; NumPy arrays are passed on untouched.

    Args:
        batch: What the source gave.
        where: Who made it, for the message: ``"producer 3 (node 10.0.4.17, pid 8812), batch 431 of pass 2"``.
        bare_inputs: Whether inputs may stand alone, as for `predict_generator`.

    Returns:
        The structure, and its arrays in the order of `Structure.names`.

    Raises:
        BatchError: `batch` is not a batch; or its arrays are 0-d, differ in length, hold Python objects, or are tensors
            that NumPy cannot read.
    """
    kind: Literal["bare", "tuple", "list"]
    if isinstance(batch, (tuple, list)) and not (bare_inputs and _is_bare_list(batch)):
        kind = "list" if isinstance(batch, list) else "tuple"
        roles = list(batch)
        if not (1 if bare_inputs else 2) <= len(roles) <= len(ROLES):
            raise BatchError(f"{where}: found a {kind} of {len(roles)} places: {shown(batch)}.\n  {ADVICE}.")
    elif bare_inputs:
        kind, roles = "bare", [batch]
    else:
        raise BatchError(f"{where}: found {shown(batch)}.\n  {ADVICE}, as a tuple or a list.")
    groups: list[Group] = []
    arrays: list[np.ndarray] = []
    for role, value in zip(ROLES, roles, strict=False):
        group, members = _flatten_role(role, value, where)
        groups.append(group)
        arrays.extend(members)
    structure = Structure(kind, tuple(groups))
    if not arrays:
        raise BatchError(f"{where}: found no array in {shown(batch)}.\n  {ADVICE}.")
    if any(len(array) != len(arrays[0]) for array in arrays):
        lengths = ", ".join(f"{name}: {len(array)}" for name, array in zip(structure.names(), arrays, strict=True))
        raise BatchError(
            f"{where}: the arrays of one batch differ in length: {lengths}.\n"
            "  All arrays of a batch hold the same samples: give them the same first axis."
        )
    return structure, arrays


def unflatten(structure: Structure, arrays: Sequence[Any]) -> Batch:
    """Put a batch together again; the inverse of `flatten`.

    Args:
        structure: As `flatten` gave it.
        arrays: `structure.num_arrays` arrays or tensors, in the order of `Structure.names`.
    """
    rest = iter(arrays)
    roles: list[Any] = []
    for group in structure.groups:
        match group.kind:
            case "array":
                roles.append(next(rest))
            case "none":
                roles.append(None)
            case "dict":
                roles.append({key: next(rest) for key in group.keys})
            case "list":
                roles.append([next(rest) for _ in range(group.size)])
            case "tuple":
                roles.append(tuple(next(rest) for _ in range(group.size)))
    if structure.kind == "bare":
        return roles[0]
    return roles if structure.kind == "list" else tuple(roles)


def map_arrays(function: Callable[[np.ndarray], Any], batch: Batch, *, where: object = "a batch") -> Batch:
    """Apply `function` to each array of a batch and keep its structure."""
    structure, arrays = flatten(batch, where=where, bare_inputs=True)
    return unflatten(structure, [function(array) for array in arrays])


def _is_bare_list(batch: Sequence[Any]) -> bool:
    """Whether a list or tuple is several bare inputs: only a list of more than three arrays cannot be roles.

    Keras reads a tuple or list of up to three places as (inputs, targets, weights), and so does rayfeed.
    """
    return len(batch) > len(ROLES) and all(_is_array_like(value) for value in batch)


def _is_array_like(value: object) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "__array__")


def _flatten_role(role: str, value: Any, where: object) -> tuple[Group, list[np.ndarray]]:
    if value is None and role != "inputs":
        return Group("none", size=0), []
    if _is_array_like(value):
        return Group("array"), [_checked(role, value, where)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise BatchError(
                    f"{where}: {role} is a dict with the key {shown(key)}.\n  Keys are names: use strings."
                )
        keys = tuple(value)
        members = [_checked(f"{role}[{key!r}]", value[key], where) for key in keys]
        return Group("dict", keys, len(keys)), members
    if isinstance(value, (list, tuple)):
        members = [_checked(f"{role}[{place}]", member, where) for place, member in enumerate(value)]
        return Group("list" if isinstance(value, list) else "tuple", size=len(members)), members
    raise BatchError(
        f"{where}: {role} is {shown(value)}.\n"
        "  It must be an array, a list or tuple of arrays, or a dict of name -> array. Arrays are NumPy's, or anything "
        "that numpy.asarray makes one of by its __array__, such as a tensor."
    )


def _checked(name: str, value: Any, where: object) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray):
        raise BatchError(f"{where}: {name} is a masked array; its mask would be lost.\n  Use `.filled(value)`.")
    if not _is_array_like(value):
        raise BatchError(
            f"{where}: {name} is {shown(value)}, not an array.\n"
            "  In a list or tuple of inputs or targets every member is an array: use numpy.asarray for numbers."
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BatchError(
            f"{where}: {name} ({type(value).__name__}) does not become a NumPy array: {error}\n"
            "  Convert it in the source; of a torch tensor, `.detach().cpu()` always does."
        ) from error
    if array.ndim == 0:
        raise BatchError(
            f"{where}: {name} is a single value ({shown(value)}) and has no length.\n"
            "  Each array of a batch has the samples on its first axis: use numpy.asarray([...])."
        )
    if array.dtype.hasobject or array.dtype.kind == "T":
        raise BatchError(
            f"{where}: {name} has dtype {array.dtype!r} (shape {array.shape}), which holds Python objects and has no "
            "fixed width.\n  Convert it in the source: strings with .astype('U'), numbers with .astype('float32'), "
            "rows of unequal length by padding."
        )
    return array
