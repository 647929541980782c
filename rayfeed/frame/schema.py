"""What all batches of one source have in common: their structure, and one dtype per array.

Learnt from the source's first batch, held against each later one by `conform`, and carried in every frame as JSON, so
that a frame can be read by a process that knows nothing of its source. Reading is cached by content: a stream's
thousand frames parse it once. Shapes belong to batches, not to the source (contract B3), and so does the width of
'U' and 'S' strings.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rayfeed.batch import ROLES, SHOWN_CHARACTERS, Group, Structure
from rayfeed.errors import BatchError
from rayfeed.frame import dtypes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

FORMAT = 1
"""Version of the JSON and of the frame's layout; a reader refuses any other."""


@dataclass(frozen=True)
class FrameSchema:
    """Structure and dtypes of a source's batches.

    Attributes:
        structure: How a batch is put together.
        dtypes: One exact description per array (`rayfeed.frame.dtypes`), in the order of `Structure.names`.
    """

    structure: Structure
    dtypes: tuple[str, ...]

    @classmethod
    def of(cls, structure: Structure, arrays: Sequence[np.ndarray]) -> FrameSchema:
        """The schema of one batch, as `batch.flatten` gave it.

        Raises:
            BatchError: An array has a dtype that cannot travel; names the array.
        """
        for name, array in zip(structure.names(), arrays, strict=True):
            try:
                dtypes.check(array.dtype)
            except BatchError as error:
                raise BatchError(f"{name}: {error}") from error
        return cls(structure, tuple([dtypes.describe(array.dtype) for array in arrays]))

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """One name per array, for messages."""
        return self.structure.names()

    def to_json(self) -> bytes:
        """The schema as ASCII JSON; `from_json` is the inverse."""
        return self._json

    @functools.cached_property
    def _json(self) -> bytes:
        groups = [{"kind": group.kind, "keys": list(group.keys), "size": group.size} for group in self.structure.groups]
        content = {"format": FORMAT, "kind": self.structure.kind, "groups": groups, "dtypes": list(self.dtypes)}
        return json.dumps(content, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, data: bytes) -> FrameSchema:
        """Read what `to_json` wrote. The same bytes give the same object.

        Raises:
            BatchError: `data` is not a schema of this version.
        """
        return _from_json(data)

    def difference(self, other: FrameSchema) -> str | None:
        """Where `other`, the schema of a later batch, departs from this one, that of the source's first batch.

        Returns:
            A sentence without its full stop, which names the role or the array; None when the two are equal.
        """
        found = _structure_difference(self.structure, other.structure)
        if found is None:
            for name, mine, theirs in zip(self.structure.names(), self.dtypes, other.dtypes, strict=True):
                if mine != theirs:
                    found = name, _dtype_text(mine), _dtype_text(theirs)
                    break
            else:
                return None
        name, mine, theirs = found
        return f"{name} is {theirs} where this source's first batch had {mine}"


def conform(schema: FrameSchema, structure: Structure, arrays: Sequence[np.ndarray], *, where: object) -> None:
    """Refuse a batch that is not like its source's first.

    Runs in the producer, once per batch, before `encode`. Shapes and the width of strings may differ.

    Args:
        schema: Of the source's first batch.
        structure: Of this batch.
        arrays: Of this batch, in the order of `Structure.names`.
        where: Who made it, for the message: ``"producer 3, batch 431 of pass 2"``.

    Raises:
        BatchError: Structure or a dtype differs, or a dtype cannot travel; names the array.
    """
    try:
        found = FrameSchema(structure, tuple([dtypes.describe(array.dtype) for array in arrays]))
    except BatchError:
        # Once more, slowly, for the array's name. An undescribable dtype is in none of the source's first arrays.
        try:
            found = FrameSchema.of(structure, arrays)
        except BatchError as error:
            raise BatchError(f"{where}: {error}") from error
    if found != schema:
        raise BatchError(
            f"{where}: {schema.difference(found)}.\n"
            "  Every batch of one source has the same structure and dtypes: convert it in the source."
        )


def _structure_difference(mine: Structure, theirs: Structure) -> tuple[str, str, str] | None:
    """What differs, how it is in `mine` and in `theirs`; None when nothing does."""
    if mine.kind != theirs.kind or len(mine.groups) != len(theirs.groups):
        return "the batch", _structure_text(mine), _structure_text(theirs)
    for role, group, other in zip(ROLES, mine.groups, theirs.groups, strict=False):
        if group != other:
            return role, _group_text(group), _group_text(other)
    return None


def _structure_text(structure: Structure) -> str:
    if structure.kind == "bare":
        return "inputs alone"
    return f"a {structure.kind} ({', '.join(ROLES[: len(structure.groups)])})"


def _group_text(group: Group) -> str:
    match group.kind:
        case "array":
            return "one array"
        case "none":
            return "None"
        case "dict":
            text = f"a dict with the keys {list(group.keys)!r}, in this order"
            return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
        case "list" | "tuple":
            return f"a {group.kind} of {group.size} array{'' if group.size == 1 else 's'}"


def _dtype_text(description: str) -> str:
    if dtypes.is_string(description):
        return f"{description!r} strings"
    text = str(dtypes.build(description))
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


@functools.lru_cache(maxsize=64)
def _from_json(data: bytes) -> FrameSchema:
    try:
        content = json.loads(data)
        _require(content["format"] == FORMAT, f"its format is {content['format']!r}, not {FORMAT}")
        kind, groups = content["kind"], tuple(_group(group) for group in content["groups"])
        _require(kind in ("bare", "tuple", "list"), f"its batches are of the kind {kind!r}")
        _require(1 <= len(groups) <= (1 if kind == "bare" else len(ROLES)), f"a {kind} batch has {len(groups)} roles")
        schema = FrameSchema(Structure(kind, groups), tuple(content["dtypes"]))
        found, wanted = len(schema.dtypes), schema.structure.num_arrays
        _require(found == wanted > 0, f"it has {found} dtypes for {wanted} arrays")
        for description in schema.dtypes:
            _require(isinstance(description, str), f"a dtype is {description!r}")
            dtypes.build(description)
    except BatchError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BatchError(
            f"a frame's schema cannot be read: {bytes(data)[:SHOWN_CHARACTERS]!r} ({error!r}).\n"
            "  The frame was damaged, or written by another version of rayfeed: use the same on all nodes."
        ) from error
    return schema


def _group(content: Any) -> Group:
    kind, keys, size = content["kind"], tuple(content["keys"]), content["size"]
    _require(kind in ("array", "none", "list", "tuple", "dict"), f"a role is of the kind {kind!r}")
    _require(type(size) is int and size >= 0, f"a role has {size!r} arrays")
    _require(all(isinstance(key, str) for key in cast(tuple[object, ...], keys)), f"the keys of a role are {keys!r}")
    fixed = {"array": 1, "none": 0, "dict": len(set(keys))}.get(kind, size)
    named = size if kind == "dict" else 0
    _require(size == fixed and len(keys) == named, f"a {kind} has {size} arrays and the keys {keys!r}")
    return Group(kind, keys, size)


def _require(condition: object, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
