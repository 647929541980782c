"""How a Keras model travels: its configuration, and its variables' values as plain arrays.

The configuration is what Keras itself saves (architecture, compile arguments); the variables are sent by position,
which is the same on both sides for the same configuration. Random states of layers (dropout) are variables too and
travel along, so that training elsewhere continues their streams. Metrics hold no state between calls and stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from rayfeed.errors import OptionError


@dataclass(frozen=True)
class ModelState:
    """The values of a model's variables.

    Attributes:
        variables: Weights, then other state such as seeds, in the model's order.
        optimizer: The optimizer's variables (iterations, learning rate, slots); None where it is not built.
    """

    variables: list[np.ndarray]
    optimizer: list[np.ndarray] | None


@dataclass(frozen=True)
class PackedModel:
    """A model on its way.

    Attributes:
        config: What `keras.saving.serialize_keras_object` gives.
        state: Its variables.
        floatx: ``keras.config.floatx()`` it was made under.
        image_data_format: ``keras.config.image_data_format()`` likewise.
    """

    config: Any
    state: ModelState
    floatx: str
    image_data_format: str


def check_model(model: Any) -> None:
    """Raise `OptionError` unless this is a Keras model that can be trained and sent as it is."""
    if not isinstance(model, keras.Model):
        raise OptionError(f"model must be a keras.Model, got {type(model).__module__}.{type(model).__name__}.")
    if not model.built:
        raise OptionError(
            f"model {model.name!r} is not built, so its weights do not exist yet.\n"
            "  Give it an Input layer, or call model.build(input_shape) first."
        )


def check_compiled(model: Any, *, call: str) -> None:
    """Raise `OptionError` unless the model was compiled."""
    if not model.compiled:
        raise OptionError(f"model {model.name!r} must be compiled before {call}: call model.compile(...) first.")


def pack_model(model: Any) -> PackedModel:
    """Take a built model down."""
    return PackedModel(
        config=keras.saving.serialize_keras_object(model),
        state=state_of(model),
        floatx=keras.config.floatx(),
        image_data_format=keras.config.image_data_format(),
    )


def unpack_model(packed: PackedModel) -> keras.Model:
    """Build the model anew, with its state."""
    keras.config.set_floatx(packed.floatx)
    keras.config.set_image_data_format(packed.image_data_format)
    # safe_mode guards against code in files of unknown origin; this configuration is the caller's own.
    model = keras.saving.deserialize_keras_object(packed.config, safe_mode=False)
    apply_state(model, packed.state)
    return model


def state_of(model: Any) -> ModelState:
    """The model's state as it is now, copied out of its variables."""
    optimizer = model.optimizer if model.compiled else None
    return ModelState(
        variables=[_value(variable) for variable in _variables(model)],
        optimizer=[_value(variable) for variable in optimizer.variables] if optimizer and optimizer.built else None,
    )


def apply_state(model: Any, state: ModelState) -> None:
    """Give the model's variables these values; an optimizer that is not built is built first."""
    for variable, value in zip(_variables(model), state.variables, strict=True):
        variable.assign(value)
    if state.optimizer is not None and model.optimizer is not None:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        for variable, value in zip(model.optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)


def _variables(model: Any) -> list[Any]:
    metrics = {id(variable) for variable in model.metrics_variables}
    return [variable for variable in model.variables if id(variable) not in metrics]


def _value(variable: Any) -> np.ndarray:
    return np.array(variable.numpy())
