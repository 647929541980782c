"""One batch in the form Keras takes: its roles, its weights, and each array's dtype and memory.

Keras 3 takes less than `fit_generator` did: a single output's array may not come in a list or under its name, weights
of several outputs come only in the form of the outputs, class weights only by themselves. That is bridged here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from rayfeed.batch import ROLES, unflatten
from rayfeed.queue.stream import Delivered
from rayfeed.trainer.class_weight import ClassWeight
from rayfeed.trainer.transport import InputSpec

ALIGNMENT = 64
"""TensorFlow ends the process when a kernel meets memory that is not aligned to this; such arrays are copied."""

DLPACK_KINDS = "biufc"
"""Kinds of dtype that NumPy exports by dlpack."""


class Conversion:
    """Converts the batches of one stream.

    Args:
        model: The model they go to.
        class_weight: Weights of the classes; training only.
    """

    def __init__(self, model: Any, class_weight: ClassWeight | None) -> None:
        self._model = model
        self._class_weight = class_weight

    def input_specs(self, item: Delivered) -> Any:
        """A batch's inputs, as `InputSpec` in the model's structure."""
        structure = item.reader.schema.structure
        arrays = [as_keras_dtype(array) for array in item.reader.arrays(item.place)]
        roles = unflatten(structure, [InputSpec(array.shape, array.dtype.name) for array in arrays])
        inputs = roles if structure.kind == "bare" else roles[0]
        return tuple(inputs) if isinstance(inputs, list) else inputs

    def data(self, item: Delivered, convert: Callable[[np.ndarray], Any]) -> tuple[Any, ...]:
        """The batch as Keras' (x, y, sample_weight), each array converted by `convert`."""
        arrays = item.reader.arrays(item.place)
        structure = item.reader.schema.structure
        roles = unflatten(structure, [convert(array) for array in arrays])
        parts = [roles] if structure.kind == "bare" else list(roles)
        parts = [tuple(part) if isinstance(part, list) else part for part in parts]  # as Keras feeds several arrays
        parts[1:] = [self._unnamed(part) for part in parts[1:]]
        if self._class_weight is not None:
            raw = [*(self._unnamed(part) for part in unflatten(structure, arrays)), None]
            weights = self._class_weight.sample_weight(raw[1], raw[2] if len(parts) == len(ROLES) else None)
            parts[2:] = [keras.tree.map_structure(convert, weights)]
        while parts[-1] is None:  # no weights, or no targets: ``tf.data`` has no word for None
            parts.pop()
        return (*parts[:2], *(self._as_outputs(weights) for weights in parts[2:]))

    def _as_outputs(self, weights: Any) -> Any:
        """Weights of several outputs in the form of the model's outputs: by name, or in their order.

        Keras 3 takes targets in either form and weights in that one alone.
        """
        names = getattr(self._model, "output_names", None) or []
        if len(names) < 2 or not isinstance(weights, (dict, list, tuple)) or len(weights) != len(names):
            return weights
        if isinstance(weights, dict):
            is_other = not isinstance(self._model.output, dict) and set(weights) == set(names)
            return tuple(weights[name] for name in names) if is_other else weights
        if isinstance(self._model.output, dict):
            return keras.tree.pack_sequence_as(self._model.output, list(weights))
        return weights

    def _unnamed(self, part: Any) -> Any:
        """A single output's array, where it comes in a list, or under the output's name as Keras 3 does not take it."""
        names = getattr(self._model, "output_names", None)
        if isinstance(part, (list, tuple)) and len(part) == 1:
            return part[0]
        if isinstance(part, dict) and names is not None and list(part) == list(names) and len(names) == 1:
            return part[names[0]] if not isinstance(self._model.output, dict) else part
        return part


class Alias:
    """An array's memory, offered as writable: NumPy exports no read-only memory by dlpack.

    TensorFlow does not write to it (held by tests/oracle/test_keras_contract.py), and keeps this object, and with it
    the frame, for as long as the tensor lives.
    """

    __slots__ = ("__array_interface__", "_owner")

    def __init__(self, array: np.ndarray) -> None:
        self._owner = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def as_keras_dtype(array: np.ndarray) -> np.ndarray:
    """The array as Keras feeds it: floats in `keras.config.floatx()`, all else unchanged."""
    if array.dtype.kind == "f" and array.dtype.name != keras.config.floatx() and keras.config.floatx() != "bfloat16":
        return array.astype(keras.config.floatx())
    return array


def can_alias(array: np.ndarray) -> bool:
    """Whether a tensor may share the array's memory."""
    return (
        array.size > 0
        and array.dtype.kind in DLPACK_KINDS
        and array.dtype.isnative
        and as_keras_dtype(array) is array
        and array.flags.c_contiguous
        and array.ctypes.data % ALIGNMENT == 0
    )


def as_tensor(tf: Any, array: np.ndarray) -> Any:
    """The array as a tensor in the host's memory; the same memory, where that may be."""
    if not can_alias(array):
        return tf.convert_to_tensor(as_keras_dtype(array))
    return tf.experimental.dlpack.from_dlpack(np.asarray(Alias(array)).__dlpack__())


def on_device(tf: Any, device: str, array: np.ndarray) -> Any:
    """The array as a tensor on a device; of strings, which lie in the host's memory alone, there."""
    tensor = as_tensor(tf, array)
    if tensor.dtype == tf.string:
        return tensor
    with tf.device(device):
        return tf.identity(tensor)
