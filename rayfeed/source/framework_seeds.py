"""The global random streams of the frameworks that user code has imported: seeded before a batch, as `random` is.

A framework that nobody imported is never imported here: without one, a batch pays for three look-ups. One that is
imported while a batch is made is seeded from the next batch on: import it at the head of the module.

    module        what is seeded
    tensorflow    operations without a seed (`tf.random.set_seed`)
    torch         the CPU's generator and the devices'
    keras         `keras.random` without a seed: its generator is let go, and made anew from `random` when used

A generator that user code holds is its own: `tf.random.Generator`, `torch.Generator`, `keras.random.SeedGenerator`, of
which every random layer of Keras has one. Its numbers follow from how often it was used before, so a batch that draws
from one is no function of its index. To do: make it in ``__getitem__``, or set its state there, from `rayfeed.rng`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TENSORFLOW_CONTEXT = "tensorflow.python.eager.context"
"""Where TensorFlow keeps what it draws the seeds of operations from, once a global seed was set."""

KERAS_STATE = "keras.src.backend.common.global_state"
KERAS_GENERATOR = "global_seed_generator"
"""Where Keras keeps the generator of functions without a seed, one for each thread, and by which name."""


def seed_frameworks(words: np.ndarray) -> None:
    """Seed what is imported. Runs in a producer.

    Args:
        words: At least 3 random words, uint32.
    """
    if (tensorflow := _imported("tensorflow")) is not None:
        tensorflow.random.set_seed(int(words[2]))
    if (torch := _imported("torch")) is not None:
        torch.manual_seed(_torch_seed(words))
    if (keras_state := _imported(KERAS_STATE)) is not None:
        keras_state.set_global_attribute(KERAS_GENERATOR, None)


@contextmanager
def frameworks_seeded(words: np.ndarray, *, with_torch: bool = True) -> Iterator[None]:
    """Seed what is imported in the consumer's process, and restore it after.

    Only what can be restored: not torch's generators of devices, which training draws from, and not TensorFlow, where a
    seed makes every operation begin its stream anew, those of a model in training too.

    Args:
        words: As of `seed_frameworks`.
        with_torch: Whether torch's generator of the CPU is seeded; all threads share it. Keras has one for each thread.
    """
    torch = _imported("torch") if with_torch else None
    keras_state = _imported(KERAS_STATE)
    torch_state = torch.get_rng_state() if torch is not None else None
    keras_generator = keras_state.get_global_attribute(KERAS_GENERATOR) if keras_state is not None else None
    if torch is not None:
        torch.default_generator.manual_seed(_torch_seed(words))
    if keras_state is not None:
        keras_state.set_global_attribute(KERAS_GENERATOR, None)
    try:
        yield
    finally:
        if torch is not None:
            torch.set_rng_state(torch_state)
        if keras_state is not None:
            keras_state.set_global_attribute(KERAS_GENERATOR, keras_generator)


def framework_states() -> dict[str, Any]:
    """The states of streams that the threads of one process share, of the frameworks that are imported; to compare."""
    states: dict[str, Any] = {}
    if (context := _imported(TENSORFLOW_CONTEXT)) is not None:
        drawn_from: Any = getattr(context.context(), "_rng", None)  # seeds operations that nobody gave a seed
        if drawn_from is not None:
            states["tensorflow.random"] = drawn_from.getstate()
    if (torch := _imported("torch")) is not None:
        states["torch"] = torch.get_rng_state().numpy().tobytes()
    return states


def _torch_seed(words: np.ndarray) -> int:
    return int(words[0]) << 32 | int(words[1])


def _imported(name: str) -> Any:
    """A module that is imported; where another thread is still at it, this waits."""
    return importlib.import_module(name) if sys.modules.get(name) is not None else None
