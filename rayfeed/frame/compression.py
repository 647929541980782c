"""Frames made smaller for their way between machines, and whole again where they are read.

Each Arrow array of a frame is compressed by itself, by Arrow's own codecs; all else stays as it is. The reader knows
from the frame's plan how large each must become, before any memory is asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from rayfeed.frame.layout import SMALLEST_BUFFER_BYTES, Column, Frame, aligned, refuse, require

if TYPE_CHECKING:
    from collections.abc import Sequence

Codec = Literal["lz4", "zstd"]

CODECS: tuple[Codec, ...] = ("lz4", "zstd")
"""The faster first. Arrow's zstd is of level 1."""


def compress(frame: Frame, codec: Codec) -> Frame:
    """The frame with its arrays compressed. It shares no memory with `frame`."""
    return replace(frame, codec=codec, columns=tuple([_smaller(column, codec) for column in frame.columns]))


def decompress(name: str, column: Column, codec: str, ends: Sequence[int], arrow_type: Any) -> Column:
    """A column as it was before `compress`.

    Args:
        name: Of the column, for messages.
        column: As it came; nothing of it is taken on trust.
        codec: The frame's.
        ends: Where, by the frame's plan, the last batch of each Arrow array ends, in bytes.
        arrow_type: Of the arrays as they were.

    Raises:
        BatchError: The arrays are not what the codec wrote, or have other sizes.
    """
    require(codec in CODECS, f"it is compressed by {codec!r}, not by one of {CODECS}", name)
    found = len(column.arrays), len(column.sizes)
    require(found == (len(ends),) * 2, f"it has {found[0]} arrays of {found[1]} sizes, not {len(ends)}", name)
    arrays = [
        _whole(name, array, size, end, codec, arrow_type)
        for array, size, end in zip(column.arrays, column.sizes, ends, strict=True)
    ]
    return replace(column, arrays=tuple(arrays), sizes=())


def _smaller(column: Column, codec: Codec) -> Column:
    buffers = [array.buffers()[1] for array in column.arrays]
    arrays = [_as_bytes(pa.compress(buffer, codec=codec)) for buffer in buffers]
    return replace(column, arrays=tuple(arrays), sizes=tuple([buffer.size for buffer in buffers]))


def _as_bytes(buffer: Any) -> Any:
    return pa.Array.from_buffers(pa.uint8(), buffer.size, [None, buffer], 0)


def _whole(name: str, array: Any, size: int, end: int, codec: str, arrow_type: Any) -> Any:
    fits = type(size) is int and end <= size <= max(aligned(end), SMALLEST_BUFFER_BYTES)
    require(fits, f"its batches end at byte {end} of a buffer of {size!r}", name)
    is_bytes = isinstance(array, pa.Array) and array.type == pa.uint8()
    require(is_bytes, "a compressed array is not of bytes", name)
    validity, data = array.buffers()
    if validity is not None or array.offset or data is None or len(array) > data.size:
        refuse("a compressed array has nulls, an offset, or less than it says", name)
    try:
        buffer = pa.decompress(data.slice(0, len(array)), size, codec=codec)
    except OSError as error:
        refuse(f"it is not what {codec} wrote ({error})", name)
    return pa.Array.from_buffers(arrow_type, size // arrow_type.byte_width, [None, buffer], 0)
