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

from rayfeed.batch import Batch, unflatten
from rayfeed.errors import BatchError, InternalError
from rayfeed.frame import dtypes
from rayfeed.frame.layout import ALIGNMENT_BYTES, SMALLEST_BUFFER_BYTES, Column, Form, Frame, aligned, offsets, rows
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
    names = schema.structure.names()
    columns = tuple(
        _write_column(name, [flat[place] for flat in flats], description, lengths)
        for place, (name, description) in enumerate(zip(names, schema.dtypes, strict=True))
    )
    uniform = lengths.count(lengths[0]) == len(lengths)
    return Frame(schema.to_json(), len(flats), tuple(lengths[:1] if uniform else lengths), columns)


def decode(frame: Frame) -> FrameReader:
    """Open a frame for reading. Runs in the trainer process, once per frame; copies nothing.

    Raises:
        BatchError: The frame contradicts itself: nothing was read beyond its buffers.
    """
    return FrameReader(frame)


class FrameReader:
    """The batches of one frame.

    Used by one thread at a time. What it gives shares the frame's memory and keeps all of it alive: one view that is
    held pins every batch of the frame in the object store.

    Attributes:
        schema: Structure and dtypes of the batches.
        num_batches: Valid indices are 0 to ``num_batches - 1``.
    """

    def __init__(self, frame: Frame) -> None:
        self.schema: FrameSchema = FrameSchema.from_json(frame.schema_json)
        self.num_batches: int = frame.num_batches
        _require(type(self.num_batches) is int and self.num_batches >= 1, f"it has {self.num_batches!r} batches")
        _require(len(frame.lengths) in (1, self.num_batches), f"{len(frame.lengths)} of its batches have a length")
        _require(
            all(type(length) is int and length >= 0 for length in frame.lengths), "a length is not a natural number"
        )
        names = self.schema.structure.names()
        _require(len(frame.columns) == len(names), f"it has {len(frame.columns)} columns for {len(names)} arrays")
        self._columns = [
            _ColumnReader(name, description, column, frame.lengths, self.num_batches)
            for name, description, column in zip(names, self.schema.dtypes, frame.columns, strict=True)
        ]

    def arrays(self, index: int) -> list[np.ndarray]:
        """The arrays of one batch in the order of `Structure.names`: read-only, C-ordered views of the frame."""
        self._check(index)
        return [column.array(index) for column in self._columns]

    def batch(self, index: int, *, copy: bool = False) -> Batch:
        """One batch as its source gave it.

        Args:
            index: Which of the frame's batches.
            copy: Whether its arrays are private, writable and C-ordered, and the frame may go.
        """
        arrays = self.arrays(index)
        return unflatten(self.schema.structure, [_dense(array, copy=True) for array in arrays] if copy else arrays)

    def arrow(self, index: int, column: int) -> Any:
        """One array, flat and C-ordered, as a ``pa.Array`` whose ``__dlpack__()`` can be handed out.

        Its memory is the frame's, and always begins at a multiple of 64 bytes: where the frame's does not (one that
        never was in the store) it is copied. A dtype that Arrow lacks (`is_native` is False) comes as its bytes, in
        ``uint8``.
        """
        self._check(index)
        return self._columns[column].arrow(index)

    def is_native(self, column: int) -> bool:
        """Whether `arrow` gives this array's own dtype, not its bytes."""
        return dtypes.is_native(self.schema.dtypes[column])

    def shape(self, index: int, column: int) -> tuple[int, ...]:
        """The shape of one array."""
        self._check(index)
        return self._columns[column].shape(index)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.num_batches:
            raise InternalError(f"batch {index} was asked of a frame that holds {self.num_batches} batches.")


class _ColumnReader:
    """One column, found consistent: every batch lies within its buffer."""

    def __init__(self, name: str, description: str, column: Column, lengths: tuple[int, ...], num_batches: int) -> None:
        forms, which = column.forms, column.which
        _require(len(which) in (0, num_batches), f"{len(which)} of {num_batches} batches have a form", name)
        _require(len(forms) == 1 or (forms and which), f"its {len(forms)} forms belong to no batch", name)
        _require(all(type(place) is int and 0 <= place < len(forms) for place in which), "a form is missing", name)
        self._lengths, self._forms, self._which = lengths, forms, which
        self._dtypes = [_form_dtype(name, description, form) for form in forms]
        self._type: Any = dtypes.arrow_type(description)
        self._joined = column.layout == "joined"
        _require(self._joined or column.layout == "own", f"its layout is {column.layout!r}", name)
        expected = 1 if self._joined else num_batches
        _require(len(column.arrays) == expected, f"it has {len(column.arrays)} Arrow arrays, not {expected}", name)
        self._buffers = [_data_buffer(name, array, self._type) for array in column.arrays]
        self._views = [memoryview(buffer).toreadonly() for buffer in self._buffers]
        self._place(name, num_batches)

    def _place(self, name: str, num_batches: int) -> None:
        """Find where each batch begins, and that it ends within its buffer."""
        self._stride: int = 0
        self._offsets: list[int] | None = None
        self._rows: np.ndarray | None = None
        if not self._joined:
            for index, view in enumerate(self._views):
                self._fits(name, index, 0, view)
        elif len(self._lengths) == 1 and not self._which:
            self._stride = aligned(self._form(0).num_bytes(self._length(0)))
            self._fits(name, num_batches - 1, self._stride * (num_batches - 1), self._views[0])
            self._rows = rows(self._views[0], num_batches, self.shape(0), self._dtypes[0])
        else:
            sizes = [self._form(index).num_bytes(self._length(index)) for index in range(num_batches)]
            self._offsets = offsets(sizes)
            # Sizes are natural numbers, so the offsets only grow: where the last batch fits, all do.
            self._fits(name, num_batches - 1, self._offsets[num_batches - 1], self._views[0])

    def _fits(self, name: str, index: int, offset: int, view: memoryview) -> None:
        end = offset + self._form(index).num_bytes(self._length(index))
        _require(end <= len(view), f"batch {index} ends at byte {end} of a buffer of {len(view)}", name)

    def _form(self, index: int) -> Form:
        return self._forms[self._which[index] if self._which else 0]

    def _length(self, index: int) -> int:
        return self._lengths[index if len(self._lengths) > 1 else 0]

    def _offset(self, index: int) -> int:
        return self._offsets[index] if self._offsets is not None else self._stride * index

    def shape(self, index: int) -> tuple[int, ...]:
        return (self._length(index), *self._form(index).inner)

    def array(self, index: int) -> np.ndarray:
        if self._rows is not None:
            return self._rows[index]
        dtype = self._dtypes[self._which[index] if self._which else 0]
        view = self._views[0 if self._joined else index]
        try:
            return np.ndarray(self.shape(index), dtype, view, self._offset(index))
        except (TypeError, ValueError, OverflowError) as error:
            # Only shapes that NumPy cannot express get here: too many axes, or a zero among axes too long.
            raise BatchError(f"a frame contradicts itself: shape {self.shape(index)} ({error}).") from error

    def arrow(self, index: int) -> Any:
        buffer, offset = self._buffers[0 if self._joined else index], self._offset(index)
        num_bytes = self._form(index).num_bytes(self._length(index))
        if (buffer.address + offset) % ALIGNMENT_BYTES:
            copied = pa.allocate_buffer(max(num_bytes, ALIGNMENT_BYTES))
            np.frombuffer(copied, np.uint8)[:num_bytes] = np.frombuffer(buffer, np.uint8, num_bytes, offset)
            buffer, offset = copied, 0
        width = self._type.byte_width
        return pa.Array.from_buffers(self._type, num_bytes // width, [None, buffer], 0, offset // width)


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
    return _to_arrow(_dense(array).reshape(-1).view(np.uint8), arrow_type)


def _joined(arrays: list[np.ndarray], arrow_type: Any, *, uniform: bool = False) -> Any:
    """The arrays end to end in one Arrow array, each at the next multiple of `ALIGNMENT_BYTES`; the gaps are zero.

    With `uniform` they are known to have one shape and item size.
    """
    sizes = [array.nbytes for array in arrays]
    places = offsets(sizes)
    total = max(places[-1], SMALLEST_BUFFER_BYTES)
    memory = (np.empty if sum(sizes) == total else np.zeros)(total, np.uint8)
    sources = [_as_raw_items(array) for array in arrays] if arrays[0].dtype.kind == "V" else arrays
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


def _as_raw_items(array: np.ndarray) -> np.ndarray:
    """Structured arrays as arrays of raw items, since NumPy copies the former by field and leaves padding behind."""
    if array.dtype.kind == "V" and array.dtype.itemsize:
        return array.view(f"V{array.dtype.itemsize}")
    return array


def _dense(array: np.ndarray, *, copy: bool = False) -> np.ndarray:
    """The array, or a copy of all its bytes, in C order."""
    if array.flags.c_contiguous and not copy:
        return array
    # Not array.copy(): that makes strings of no width one character wide.
    copied = np.ndarray(array.shape, array.dtype)
    if array.nbytes:
        _as_raw_items(copied)[...] = _as_raw_items(array)
    return copied


def _form_dtype(name: str, description: str, form: Form) -> np.dtype[Any]:
    inner, itemsize = form
    _require(all(type(axis) is int and axis >= 0 for axis in (*inner, itemsize)), f"it has the form {form!r}", name)
    dtype = dtypes.build(description, itemsize if dtypes.is_string(description) else 0)
    _require(dtype.itemsize == itemsize, f"its items have {itemsize} bytes, those of {dtype} {dtype.itemsize}", name)
    return dtype


def _data_buffer(name: str, array: Any, arrow_type: Any) -> Any:
    found = array.type if isinstance(array, pa.Array) else type(array).__name__
    _require(found == arrow_type, f"it holds {found}, not {arrow_type}", name)
    validity, data = array.buffers()
    _require(validity is None and not array.offset, "its Arrow array has nulls or an offset", name)
    size, held = len(array) * arrow_type.byte_width, data.size if data is not None else -1
    _require(size <= held, f"its Arrow array has {size} bytes in a buffer of {held}", name)
    return data


def _require(condition: object, otherwise: str, name: str = "") -> None:
    if not condition:
        raise BatchError(
            f"a frame contradicts itself: {name + ': ' if name else ''}{otherwise}.\n"
            "  It was damaged, or written by another version of rayfeed: use the same version on all nodes."
        )
