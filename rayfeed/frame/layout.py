"""The form of a frame: what the writer lays down, what the reader finds.

    Frame    schema as JSON, number of batches, their lengths, and one Column per array of a batch
    Column   "own":    one Arrow array per batch, on the memory of the source's NumPy array
             "joined": one Arrow array in all; batch i lies at the next multiple of 64 bytes after batch i-1

A batch's shape is ``(length, *inner)``. The length is the frame's, since all arrays of a batch share it; `inner` is its
column's, and is written once for as long as it stays the same, as is the width of strings. So the metadata of 1,000
batches alike is some 300 bytes, and that of 1,000 batches of different length 3 KB.

A frame is pickled with protocol 5: each Arrow array becomes about 100 bytes in band and one buffer out of band. Ray
places a buffer at a multiple of 64 bytes when it has at least 2,048 bytes, and of only 8 when it has fewer
(`kMajorBufferSize` in Ray's serialization.pxi); so no buffer of a frame is smaller. TensorFlow ends the process
over a dlpack tensor that is not aligned to 64 bytes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import numpy as np

from rayfeed.errors import BatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIGNMENT_BYTES = 64
"""What each batch's data is a multiple of, counted from its buffer's begin: what TensorFlow insists on."""

SMALLEST_BUFFER_BYTES = 2048
"""From this size on Ray aligns a buffer to 64 bytes; smaller payloads are padded to it."""

DAMAGED = "It was damaged, or written by another version of rayfeed: use the same version on all nodes."

MOST_AXES = 32
"""Of any array, in NumPy 1; 64 in NumPy 2."""


class Form(NamedTuple):
    """What may differ between the batches of one column, apart from their length.

    Attributes:
        inner: The shape without its first axis.
        itemsize: Bytes of one item; differs only where items are fixed-width strings.
    """

    inner: tuple[int, ...]
    itemsize: int

    def num_bytes(self, length: int) -> int:
        """Bytes of a batch of `length` samples."""
        return length * math.prod(self.inner) * self.itemsize


@dataclass(frozen=True, eq=False)
class Column:
    """One array of each batch of a frame.

    Attributes:
        layout: "own" or "joined", as in the module's picture.
        forms: The different forms found, at least one.
        which: For each batch the place of its form in `forms`; empty when there is only one.
        arrays: Arrow arrays of the dtype's type, or of ``uint8`` where Arrow has none: one per batch ("own") or one.
            Of compressed bytes, as ``uint8``, where the frame has a codec.
        sizes: Bytes of each before it was compressed; empty where none was.
    """

    layout: Literal["own", "joined"]
    forms: tuple[Form, ...]
    which: tuple[int, ...]
    arrays: tuple[Any, ...]
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Frame:
    """One or more consecutive batches of one source, as they cross from process to process.

    Holds Arrow arrays, bytes and ints only. Where it was never pickled its arrays may share memory with the source's.

    Attributes:
        schema_json: `FrameSchema.to_json`.
        num_batches: At least 1.
        lengths: Samples of each batch; one number when all are equal.
        columns: One per array, in the order of `Structure.names`.
        codec: By which the columns are compressed; empty where they are not.
    """

    schema_json: bytes
    num_batches: int
    lengths: tuple[int, ...]
    columns: tuple[Column, ...]
    codec: str = ""

    @property
    def num_bytes(self) -> int:
        """Bytes of payload, padding included: what the object store holds of it, but for about 1 KB."""
        return sum(array.get_total_buffer_size() for column in self.columns for array in column.arrays)

    def __repr__(self) -> str:
        codec = f", {self.codec}" if self.codec else ""
        return f"Frame({self.num_batches} batches, {self.num_bytes:,} bytes{codec})"


def aligned(num_bytes: int) -> int:
    """`num_bytes`, or the next multiple of `ALIGNMENT_BYTES`."""
    return -(-num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def offsets(sizes: Sequence[int]) -> list[int]:
    """Where each batch of a joined column begins, in bytes, and behind them where the last one's padding ends."""
    return [0, *itertools.accumulate(aligned(size) for size in sizes)]


def rows(
    memory: np.ndarray | memoryview, num_batches: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray | None:
    """All batches of a joined column as one array, one row each, where their shapes and dtypes are equal.

    A row of it costs less than a new array on the same memory.

    Returns:
        Shape ``(num_batches, *shape)``; None where NumPy has no such array: of no bytes, or of too many axes.
    """
    stride = aligned(math.prod(shape) * dtype.itemsize)
    if not stride or len(shape) >= MOST_AXES:
        return None
    strides = np.ndarray(shape, dtype, memory).strides
    return np.ndarray((num_batches, *shape), dtype, memory, 0, (stride, *strides))


def as_raw_items(array: np.ndarray) -> np.ndarray:
    """Structured arrays as arrays of raw items, since NumPy copies the former by field and leaves padding behind."""
    if array.dtype.kind == "V" and array.dtype.itemsize:
        return array.view(f"V{array.dtype.itemsize}")
    return array


def dense(array: np.ndarray, *, copy: bool = False) -> np.ndarray:
    """The array, or a copy of all its bytes, in C order."""
    if array.flags.c_contiguous and not copy:
        return array
    # Not array.copy(): that makes strings of no width one character wide.
    copied = np.ndarray(array.shape, array.dtype)
    if array.nbytes:
        as_raw_items(copied)[...] = as_raw_items(array)
    return copied


def require(condition: object, otherwise: str, name: str = "") -> None:
    """`refuse` unless the condition holds."""
    if not condition:
        refuse(otherwise, name)


def refuse(why: str, name: str) -> NoReturn:
    """Raise `BatchError`: a frame is not what a producer wrote."""
    raise BatchError(f"a frame contradicts itself: {name + ': ' if name else ''}{why}.\n  {DAMAGED}")
