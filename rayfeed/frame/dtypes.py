"""An exact description, as text, of every dtype a batch may have; and which of them Arrow has itself.

    float32, >i8, complex64, datetime64[25ns]   NumPy's own type string: "<f4", ">i8", "<c8", "<M8[25ns]"
    'U' and 'S' strings                         the same without a width: "<U", ">U", "|S"
    raw bytes                                   "|V7"
    structured                                  JSON: item size, alignment, and for each field its name, title, offset,
                                                dtype and shape; so padding and overlapping fields arrive as they left
    bfloat16, float8 and int4 of ml_dtypes      "ml_dtypes.bfloat16" (NumPy's type string for them is only "<V2")

Fixed-width strings are as wide as their longest, so their width belongs to a batch and not to its source: `build` takes
it apart from the description. Two descriptions are equal exactly when the dtypes are. Not described: a dtype's
`metadata`, which takes no part in NumPy's equality either. "<f16" means NumPy's longdouble of the machine at hand:
producers and trainer must be of one architecture where it is used.
"""

from __future__ import annotations

import functools
import importlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

from rayfeed.errors import BatchError

_EXTENSIONS = "ml_dtypes"
_UNICODE_BYTES = np.dtype("U1").itemsize

_ARROW_TYPES: dict[str, Any] = {np.dtype(code).str: pa.from_numpy_dtype(np.dtype(code)) for code in "bhilBHILefd"}


def describe(dtype: np.dtype[Any]) -> str:
    """The dtype as text, without the width of strings; `build` is the inverse.

    Runs in the producer, once per array of every batch.

    Raises:
        BatchError: A dtype that no description rebuilds: of Python objects, or of an unknown extension.
    """
    if dtype.isbuiltin == 2:
        return _describe_extension(dtype)
    if dtype.kind in "US":
        return dtype.str[:2]
    if dtype.kind in "biufcmM" or (dtype.kind == "V" and dtype.names is None):
        return dtype.str
    return json.dumps(_describe_nested(dtype), separators=(",", ":"))


@functools.lru_cache(maxsize=1024)
def build(description: str, itemsize: int = 0) -> np.dtype[Any]:
    """The dtype of a description.

    Args:
        description: As `describe` gave it; also what came from elsewhere, so nothing is taken on trust.
        itemsize: Bytes of one string; used for "<U", ">U" and "|S" only.

    Raises:
        BatchError: No dtype has this description.
    """
    try:
        return _read(description, itemsize)
    except BatchError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, SyntaxError, OverflowError, RecursionError) as error:
        raise BatchError(
            f"a frame's dtype cannot be read: {description[:100]!r} ({error}).\n"
            "  The frame was damaged, or written by another version of rayfeed or NumPy: use the same on all nodes."
        ) from error


def check(dtype: np.dtype[Any]) -> None:
    """Refuse a dtype that could not be built again where the frame is read. Once per source.

    Raises:
        BatchError: It has no description, or its description builds another dtype.
    """
    description = describe(dtype)
    try:
        same = build(description, dtype.itemsize) == dtype
    except BatchError as error:
        raise _undescribable(dtype) from error
    if not same:
        raise _undescribable(dtype)


def is_string(description: str) -> bool:
    """Whether the width of this dtype may differ from batch to batch."""
    return description in ("<U", ">U", "|S")


def arrow_type(description: str) -> Any:
    """The Arrow type a column of this dtype is stored in: its own, or ``uint8`` for the bytes of what Arrow lacks."""
    return _ARROW_TYPES.get(description) or _ARROW_TYPES["|u1"]


def is_native(description: str) -> bool:
    """Whether Arrow has this dtype itself, in this machine's byte order."""
    return description in _ARROW_TYPES


def _describe_extension(dtype: np.dtype[Any]) -> str:
    if dtype.type.__module__ != _EXTENSIONS:
        raise _undescribable(dtype)
    return f"{_EXTENSIONS}.{dtype.name}"


def _describe_nested(dtype: np.dtype[Any]) -> str | dict[str, Any]:
    if dtype.hasobject or dtype.kind not in "biufcmMUSV":
        raise _undescribable(dtype)
    if dtype.isbuiltin == 2:
        return _describe_extension(dtype)
    if dtype.names is None:
        return dtype.str
    fields: list[list[Any]] = []
    for name in dtype.names:
        member, offset, *title = dtype.fields[name]  # type: ignore[index]
        if title and not isinstance(title[0], str):
            raise _undescribable(dtype)
        fields.append([name, title[0] if title else None, offset, _describe_nested(member.base), list(member.shape)])
    record = dtype.type is np.record
    return {"record": record, "itemsize": dtype.itemsize, "aligned": dtype.isalignedstruct, "fields": fields}


def _build_nested(description: Any) -> np.dtype[Any]:
    if isinstance(description, str):
        module, _, name = description.partition(".")
        if module == _EXTENSIONS:
            try:
                return np.dtype(getattr(importlib.import_module(_EXTENSIONS), name))
            except ImportError as error:
                raise BatchError(
                    f"a batch has dtype {description}, which this process cannot read: {error}.\n"
                    "  Install ml_dtypes on all nodes, or convert the array in the source."
                ) from error
        return np.dtype(description)
    fields = description["fields"]
    parts = {
        "names": [name for name, _, _, _, _ in fields],
        "titles": [title for _, title, _, _, _ in fields],
        "offsets": [offset for _, _, offset, _, _ in fields],
        "formats": [_build_member(member, tuple(shape)) for _, _, _, member, shape in fields],
        "itemsize": description["itemsize"],
    }
    dtype = np.dtype(parts, align=description["aligned"])  # type: ignore[call-overload]
    return np.dtype((np.record, dtype)) if description["record"] else dtype


def _build_member(description: Any, shape: tuple[int, ...]) -> np.dtype[Any]:
    # Not np.dtype((member, ())): NumPy refuses that for strings of no width.
    member = _build_nested(description)
    return np.dtype((member, shape)) if shape else member


def _read(description: str, itemsize: int) -> np.dtype[Any]:
    if description.startswith("{"):
        dtype = _build_nested(json.loads(description))
    elif is_string(description):
        width, rest = divmod(itemsize, 1 if description == "|S" else _UNICODE_BYTES)
        if rest:
            raise ValueError(f"no such string is {itemsize} bytes wide")
        dtype = np.dtype(f"{description}{width}")
    else:
        dtype = _build_nested(description)
    if dtype.hasobject or describe(dtype) != description:
        raise ValueError("this is not what rayfeed writes")
    return dtype


def _undescribable(dtype: np.dtype[Any]) -> BatchError:
    return BatchError(
        f"dtype {dtype!r} cannot travel: it has no fixed width, or is not NumPy's own.\n"
        "  Convert the array in the source, for example with .astype('float32')."
    )
