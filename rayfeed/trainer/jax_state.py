"""What a model holds while Keras' JAX backend trains it, and after a step that failed.

JAX' steps take the model's state as an argument and return a new one. For an epoch's length Keras keeps it in a local
variable and takes the values out of the model's variables, "to save memory"; they are put back at the epoch's end. When
the first step of an epoch fails, or a step of an evaluation or a prediction, nobody puts them back, and the model has
lost its weights (Keras 3.15). A source that raises is such a step.

The values need not be taken out: a compiled step donates its arguments, so their memory is used again whoever refers to
them. Only a model that runs without being compiled (``jit_compile=False``) needs memory for its state twice so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

PURGE = "_purge_model_variables"
"""Keras' method that takes the values out of the variables."""


@contextlib.contextmanager
def state_kept(model: Any) -> Iterator[None]:
    """Within, and after, the model's variables have values, whatever fails. Other backends than JAX see to it."""
    if keras.backend.backend() != "jax" or not hasattr(model, PURGE):
        yield
        return
    vars(model)[PURGE] = lambda **_: None
    try:
        yield
    except BaseException:
        model.jax_state_sync()
        model._jax_state = None  # noqa: SLF001 - else a later call that fails would put back what is there now
        raise
    finally:
        vars(model).pop(PURGE, None)
