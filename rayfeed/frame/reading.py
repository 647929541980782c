"""Read a frame: what it says of itself is held against its buffers, then each batch is a view of them.

Nothing is read beyond a buffer, whatever a frame says. Most frames of a stream say the same but for their buffers: what
follows from that, a *plan*, is made once and kept.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any

import numpy as np
import pyarrow as pa

from rayfeed.batch import Batch, unflatten
from rayfeed.errors import BatchError, InternalError
from rayfeed.frame import dtypes
from rayfeed.frame.compression import decompress
from rayfeed.frame.layout import (
    ALIGNMENT_BYTES,
    DAMAGED,
    Column,
    Form,
    Frame,
    aligned,
    dense,
    offsets,
    refuse,
    require,
    rows,
)
from rayfeed.frame.schema import FrameSchema

Layout = tuple[str, tuple[Form, ...], tuple[int, ...]]
"""A `Column` without its Arrow arrays."""

Layouts = tuple[Layout, ...]


class _ColumnPlan:
    """What is known of a column before its buffers are: the same for most frames of a stream, and made once for them.

    Attributes:
        name: Of the array, for messages.
        arrow_type: Of its Arrow arrays.
        is_joined: Whether one Arrow array holds all batches.
        num_arrays: Arrow arrays it must have.
        dtypes: One per form.
        num_bytes: Of each batch, where all are alike; else 0.
        stride: Bytes from one batch to the next, where all are alike and joined.
        ends: For each Arrow array the batch that ends last in it, and the byte where it ends.
    """

    def __init__(self, name: str, description: str, layout: Layout, lengths: tuple[int, ...], num_batches: int) -> None:
        how, forms, which = layout
        require(len(which) in (0, num_batches), f"{len(which)} of {num_batches} batches have a form", name)
        require(len(forms) == 1 or (forms and which), f"its {len(forms)} forms belong to no batch", name)
        require(all(type(place) is int and 0 <= place < len(forms) for place in which), "a form is missing", name)
        require(how in ("joined", "own"), f"its layout is {how!r}", name)
        self.name, self.is_joined = name, how == "joined"
        self.num_arrays = 1 if self.is_joined else num_batches
        self.dtypes = [_form_dtype(name, description, form) for form in forms]
        self.arrow_type: Any = dtypes.arrow_type(description)
        self._lengths, self._forms, self._which = lengths, forms, which
        alike = len(lengths) == 1 and not which
        self.num_bytes = self.size(0) if alike else 0
        self.stride = aligned(self.num_bytes) if self.is_joined else 0
        self._offsets: list[int] | None = None
        last = num_batches - 1
        if not self.is_joined:
            self.ends = [(index, self.size(index)) for index in range(num_batches)]
        elif alike:
            self.ends = [(last, self.stride * last + self.num_bytes)]
        else:
            # Sizes are natural numbers, so the offsets only grow: where the last batch fits, all do.
            self._offsets = offsets([self.size(index) for index in range(num_batches)])
            self.ends = [(last, self._offsets[last] + self.size(last))]
        self.is_uniform = alike and self.is_joined

    def size(self, index: int) -> int:
        """Bytes of a batch."""
        return self._form(index).num_bytes(self._length(index))

    def shape(self, index: int) -> tuple[int, ...]:
        return (self._length(index), *self._form(index).inner)

    def dtype(self, index: int) -> np.dtype[Any]:
        return self.dtypes[self._which[index] if self._which else 0]

    def offset(self, index: int) -> int:
        """Where a batch begins in its Arrow array."""
        return self._offsets[index] if self._offsets is not None else self.stride * index

    def _form(self, index: int) -> Form:
        return self._forms[self._which[index] if self._which else 0]

    def _length(self, index: int) -> int:
        return self._lengths[index if len(self._lengths) > 1 else 0]


class _FramePlan:
    """What is known of a frame before its buffers are."""

    def __init__(self, schema: FrameSchema, num_batches: int, lengths: tuple[int, ...], layouts: Layouts) -> None:
        self.schema, self.num_batches = schema, num_batches
        require(type(num_batches) is int and num_batches >= 1, f"it has {num_batches!r} batches")
        require(len(lengths) in (1, num_batches), f"{len(lengths)} of its batches have a length")
        require(all(type(length) is int and length >= 0 for length in lengths), "a length is not a natural number")
        names = schema.names
        require(len(layouts) == len(names), f"it has {len(layouts)} columns for {len(names)} arrays")
        self.columns = [
            _ColumnPlan(name, description, layout, lengths, num_batches)
            for name, description, layout in zip(names, schema.dtypes, layouts, strict=True)
        ]


@functools.lru_cache(maxsize=64)
def _frame_plan(schema_json: bytes, num_batches: int, lengths: tuple[int, ...], layouts: Layouts) -> _FramePlan:
    return _FramePlan(FrameSchema.from_json(schema_json), num_batches, lengths, layouts)


class _ColumnReader:
    """One column, found consistent: every batch lies within its buffer."""

    def __init__(self, plan: _ColumnPlan, column: Column) -> None:
        arrays = column.arrays
        require(len(arrays) == plan.num_arrays, f"it has {len(arrays)} Arrow arrays, not {plan.num_arrays}", plan.name)
        self._plan = plan
        self.buffers = [_data_buffer(plan.name, array, plan.arrow_type) for array in arrays]
        self._views = [memoryview(buffer).toreadonly() for buffer in self.buffers]
        for (index, end), view in zip(plan.ends, self._views, strict=True):
            if end > len(view):
                refuse(f"batch {index} ends at byte {end} of a buffer of {len(view)}", plan.name)
        num_batches = plan.ends[-1][0] + 1
        self._rows = rows(self._views[0], num_batches, plan.shape(0), plan.dtypes[0]) if plan.is_uniform else None

    def shape(self, index: int) -> tuple[int, ...]:
        return self._plan.shape(index)

    def array(self, index: int) -> np.ndarray:
        if self._rows is not None:
            return self._rows[index]
        plan = self._plan
        view = self._views[0 if plan.is_joined else index]
        try:
            return np.ndarray(plan.shape(index), plan.dtype(index), view, plan.offset(index))
        except (TypeError, ValueError, OverflowError) as error:
            # Only shapes that NumPy cannot express get here: too many axes, or a zero among axes too long.
            raise BatchError(f"a frame contradicts itself: shape {plan.shape(index)} ({error}).") from error

    def arrow(self, index: int) -> Any:
        plan = self._plan
        buffer, offset = self.buffers[0 if plan.is_joined else index], plan.offset(index)
        num_bytes = plan.size(index)
        if (buffer.address + offset) % ALIGNMENT_BYTES:
            copied = pa.allocate_buffer(max(num_bytes, ALIGNMENT_BYTES))
            np.frombuffer(copied, np.uint8)[:num_bytes] = np.frombuffer(buffer, np.uint8, num_bytes, offset)
            buffer, offset = copied, 0
        width = plan.arrow_type.byte_width
        return pa.Array.from_buffers(plan.arrow_type, num_bytes // width, [None, buffer], 0, offset // width)


class FrameReader:
    """The batches of one frame.

    Used by one thread at a time. What it gives shares the frame's memory and keeps all of it alive: one view that is
    held pins every batch of the frame in the object store.

    Attributes:
        schema: Structure and dtypes of the batches.
        num_batches: Valid indices are 0 to ``num_batches - 1``.
    """

    # A compressed frame is made whole when its first batch is asked for: until then it waits small.

    def __init__(self, frame: Frame) -> None:
        layouts = tuple([(column.layout, column.forms, column.which) for column in frame.columns])
        try:
            plan = _frame_plan(frame.schema_json, frame.num_batches, frame.lengths, layouts)
        except TypeError as error:  # what cannot be hashed
            raise BatchError(f"a frame contradicts itself: its layout is {layouts!r}.\n  {DAMAGED}") from error
        self.schema: FrameSchema = plan.schema
        self.num_batches: int = plan.num_batches
        self._plans = plan.columns
        self._codec = frame.codec
        self._compressed = frame.columns if frame.codec else None
        self._read = [] if frame.codec else self._readers(frame.columns)

    def _readers(self, columns: tuple[Column, ...]) -> list[_ColumnReader]:
        return [_ColumnReader(plan, column) for plan, column in zip(self._plans, columns, strict=True)]

    @property
    def _columns(self) -> list[_ColumnReader]:
        if self._compressed is not None:
            whole = [
                decompress(plan.name, column, self._codec, [end for _, end in plan.ends], plan.arrow_type)
                for plan, column in zip(self._plans, self._compressed, strict=True)
            ]
            self._read, self._compressed = self._readers(tuple(whole)), None
        return self._read

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
        return unflatten(self.schema.structure, [dense(array, copy=True) for array in arrays] if copy else arrays)

    def memory(self) -> tuple[int, list[weakref.ref[Any]]]:
        """Bytes that the frame has in the store, and weak references that live as long as something uses a view of one.

        Of a compressed one there are none: its batches are in the process' own memory.
        """
        if self._codec:
            return 0, []
        buffers = [buffer for column in self._columns for buffer in column.buffers]
        return sum(buffer.size for buffer in buffers), [weakref.ref(buffer) for buffer in buffers]

    def num_bytes(self, index: int) -> int:
        """Bytes of one batch's arrays."""
        return sum(plan.num_bytes or plan.size(index) for plan in self._plans)

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


def _form_dtype(name: str, description: str, form: Form) -> np.dtype[Any]:
    inner, itemsize = form
    require(all(type(axis) is int and axis >= 0 for axis in (*inner, itemsize)), f"it has the form {form!r}", name)
    dtype = dtypes.build(description, itemsize if dtypes.is_string(description) else 0)
    require(dtype.itemsize == itemsize, f"its items have {itemsize} bytes, those of {dtype} {dtype.itemsize}", name)
    return dtype


def _data_buffer(name: str, array: Any, arrow_type: Any) -> Any:
    is_array = isinstance(array, pa.Array)
    if not is_array or array.type != arrow_type:
        refuse(f"it holds {array.type if is_array else type(array).__name__}, not {arrow_type}", name)
    validity, data = array.buffers()
    if validity is not None or array.offset:
        refuse("its Arrow array has nulls or an offset", name)
    size, held = len(array) * arrow_type.byte_width, data.size if data is not None else -1
    if size > held:
        refuse(f"its Arrow array has {size} bytes in a buffer of {held}", name)
    return data
