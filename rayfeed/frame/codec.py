"""Write consecutive batches into a frame, and read them without copying.

The way of an array of 600 KB: Arrow array on the source's memory (no copy), pickled out of band by Ray into the store
(the one copy), read as a NumPy view or an Arrow array on the store's memory (no copy). The way of one of 4 KB: copied
into its column's buffer, which then goes the same way. Chosen per column and frame by the mean size (`INLINE_BYTES`).

Memory order: batches arrive C-ordered. A Fortran-ordered or strided array is made so here, by one copy:
Keras' backends need C order, producers are many and the trainer is one.
Bytes, not values, are copied: the padding of structured dtypes, NaN payloads and byte order stay as they were.

Batches a second (2026-11-22, Ray 2.60, 2 cores; middle of three runs, which differ by 10 to 25 %), by
`python examples/benchmarks/frames.py`: one producer, 8 MB a frame, this process reads every batch.

    array     4 KB     16 KB    64 KB    96 KB    128 KB   256 KB   600 KB   4.8 MB
    own       51,600   42,100   16,000   13,800   13,000   7,000    3,020    465
    joined    54,300   42,600   18,200   15,100   12,600   6,140    2,590    414
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rayfeed.errors import InternalError
from rayfeed.frame import dtypes
from rayfeed.frame.layout import SMALLEST_BUFFER_BYTES, Column, Form, Frame, as_raw_items, dense, offsets, rows
from rayfeed.frame.reading import FrameReader
from rayfeed.frame.schema import FrameSchema

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["INLINE_BYTES", "Frame", "FrameReader", "decode", "encode"]

INLINE_BYTES = 128 * 1024
"""Mean size from which a column's arrays keep their own memory: where the two rows of the table above cross."""


def encode(flats: Sequence[list[np.ndarray]], schema: FrameSchema) -> Frame:
    """Lay consecutive batches of one source into one frame.

    Runs in the producer process, once per ticket. The frame shares the memory of large arrays: the source must not
    write to them until the frame is pickled.

    Args:
        flats: For each of 1 to ``ticket.count`` batches its arrays, as `batch.flatten` gave them and `conform` let
            pass: shapes ``(n_i, ...)``, where ``n_i`` and the other axes may differ from batch to batch.
        schema: Of the source.

    Raises:
        InternalError: The batches were not checked: none, or other arrays, lengths or dtypes than `schema` has.
    """
    num_arrays = len(schema.dtypes)
    if not flats or any(len(flat) != num_arrays for flat in flats):
        counts = [len(flat) for flat in flats]
        raise InternalError(f"encode: got batches of {counts} arrays for a schema of {num_arrays} arrays per batch.")
    lengths = [len(flat[0]) for flat in flats]
    columns = tuple(
        _write_column(name, [flat[place] for flat in flats], description, lengths)
        for place, (name, description) in enumerate(zip(schema.names, schema.dtypes, strict=True))
    )
    uniform = lengths.count(lengths[0]) == len(lengths)
    return Frame(schema.to_json(), len(flats), tuple(lengths[:1] if uniform else lengths), columns)


def decode(frame: Frame) -> FrameReader:
    """Open a frame for reading. Runs in the trainer process, once per frame; copies nothing.

    Raises:
        BatchError: The frame contradicts itself: nothing was read beyond its buffers.
    """
    return FrameReader(frame)


def _write_column(name: str, arrays: list[np.ndarray], description: str, lengths: list[int]) -> Column:
    _check_column(name, arrays, description, lengths)
    first = arrays[0]
    shapes, itemsizes = [array.shape for array in arrays], [array.dtype.itemsize for array in arrays]
    arrow_type = dtypes.arrow_type(description)
    # Whole lists are compared in C first, for frames of many tiny batches alike.
    uniform = shapes.count(first.shape) == itemsizes.count(first.dtype.itemsize) == len(arrays)
    if uniform:
        forms, which = (Form(first.shape[1:], first.dtype.itemsize),), ()
    else:
        places: dict[Form, int] = {}
        found = [Form(shape[1:], itemsize) for shape, itemsize in zip(shapes, itemsizes, strict=True)]
        which = tuple([places.setdefault(form, len(places)) for form in found])
        forms = tuple(places)
    if sum(array.nbytes for array in arrays) >= INLINE_BYTES * len(arrays):
        chunks = tuple([_own(array, arrow_type) for array in arrays])
        return Column("own", forms, which if len(forms) > 1 else (), chunks)
    return Column("joined", forms, which if len(forms) > 1 else (), (_joined(arrays, arrow_type, uniform=uniform),))


def _check_column(name: str, arrays: list[np.ndarray], description: str, lengths: list[int]) -> None:
    found = [array.dtype for array in arrays]
    # Describing a dtype costs 10 times what comparing it with its neighbour does.
    for dtype in found[:1] if found.count(found[0]) == len(found) else found:
        if (text := dtypes.describe(dtype)) != description:
            raise InternalError(f"encode: {name} is {text!r} in one batch, and {description!r} in the schema.")
    if (held := [len(array) for array in arrays]) != lengths:
        raise InternalError(f"encode: {name} has the lengths {held} in batches of the lengths {lengths}.")


def _own(array: np.ndarray, arrow_type: Any) -> Any:
    """The array as an Arrow array on its own memory, or on a padded copy where that is too small to be aligned."""
    if array.nbytes < SMALLEST_BUFFER_BYTES:
        return _joined([array], arrow_type)
    return _to_arrow(dense(array).reshape(-1).view(np.uint8), arrow_type)


def _joined(arrays: list[np.ndarray], arrow_type: Any, *, uniform: bool = False) -> Any:
    """The arrays end to end in one Arrow array, each at the next multiple of `ALIGNMENT_BYTES`; the gaps are zero.

    With `uniform` they are known to have one shape and item size.
    """
    sizes = [array.nbytes for array in arrays]
    places = offsets(sizes)
    total = max(places[-1], SMALLEST_BUFFER_BYTES)
    memory = (np.empty if sum(sizes) == total else np.zeros)(total, np.uint8)
    sources = [as_raw_items(array) for array in arrays] if arrays[0].dtype.kind == "V" else arrays
    together = rows(memory, len(arrays), sources[0].shape, sources[0].dtype) if uniform else None
    if together is not None:
        for index, source in enumerate(sources):
            together[index] = source
    else:
        for source, offset, size in zip(sources, places, sizes, strict=False):
            if size:
                np.ndarray(source.shape, source.dtype, memory, offset)[...] = source
    return _to_arrow(memory, arrow_type)


def _to_arrow(memory: np.ndarray, arrow_type: Any) -> Any:
    """An Arrow array on the memory of a flat array of bytes made for this: nobody may write to it from here on."""
    memory.flags.writeable = False
    return pa.Array.from_buffers(arrow_type, len(memory) // arrow_type.byte_width, [None, pa.py_buffer(memory)], 0)
