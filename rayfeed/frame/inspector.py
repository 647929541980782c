"""Holds every batch of a source against its first one.

Most sources give the same plain thing again and again: a tuple or list of one NumPy array per role, each of the dtype
it always had. That is seen at a glance; all else is taken apart and compared with care.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rayfeed.batch import Batch, flatten
from rayfeed.errors import BatchError
from rayfeed.frame.schema import FrameSchema, conform

PLAIN_KINDS = "biufc"
"""Kinds of dtype of which equal ones are the same in every respect, names, padding and widths included."""


class Inspector:
    """Checks the batches of one source. Its first decides what the others must be like.

    Args:
        bare_inputs: Whether a batch may be inputs alone.

    Attributes:
        schema: Of the first batch; None until it came.
    """

    def __init__(self, *, bare_inputs: bool) -> None:
        self.schema: FrameSchema | None = None
        self._bare_inputs = bare_inputs
        self._plain_type: type[Any] | None = None
        self._plain_dtypes: tuple[np.dtype[Any], ...] = ()

    def arrays(self, batch: Batch, where: object) -> list[np.ndarray]:
        """The arrays of a batch, in the order of `Structure.names`.

        Args:
            batch: What the source gave.
            where: Who made it, for messages; used as text only if there is one.

        Raises:
            BatchError: It is not a batch, or not like the source's first.
        """
        if type(batch) is self._plain_type and self._is_plain(batch):
            return list(batch)
        structure, arrays = flatten(batch, where=where, bare_inputs=self._bare_inputs)
        if self.schema is None:
            try:
                schema = FrameSchema.of(structure, arrays)
            except BatchError as error:
                raise BatchError(f"{where}: {error}") from error
            conform(schema, structure, arrays, where=where)
            self._learn(schema, arrays)
        else:
            conform(self.schema, structure, arrays, where=where)
        return arrays

    def _learn(self, schema: FrameSchema, arrays: list[np.ndarray]) -> None:
        structure = schema.structure
        is_plain = structure.kind != "bare" and all(group.kind == "array" for group in structure.groups)
        if is_plain and all(array.dtype.kind in PLAIN_KINDS for array in arrays):
            self._plain_dtypes = tuple([array.dtype for array in arrays])
            self._plain_type = tuple if structure.kind == "tuple" else list
        self.schema = schema

    def _is_plain(self, batch: Any) -> bool:
        if len(batch) != len(self._plain_dtypes):
            return False
        length = -1
        for array, dtype in zip(batch, self._plain_dtypes, strict=True):
            if type(array) is not np.ndarray or array.dtype != dtype or not array.ndim:
                return False
            if length < 0:
                length = len(array)
            elif len(array) != length:
                return False
        return True
