"""Random states that travel with a job and come home after it, as if the job had run in the caller's process.

What is not given a seed of its own draws from these: initializers of layers that are made while the model is built,
callbacks, a source that runs in line; with the torch backend also dropout and torch's own modules, on a GPU from a
state of the GPU's. With the others a layer's own seeds (dropout) are variables of the model and travel as such.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator
from keras.src.utils.rng_utils import get_random_seed

from rayfeed.source.own_streams import own_streams


@dataclass(frozen=True)
class RandomState:
    """The random states of a process.

    Attributes:
        seed: What `keras.utils.set_random_seed` was given last; None if never.
        python: That of `random`.
        legacy: That of `numpy.random`'s functions.
        keras: That of `keras.random`'s functions without a seed; None where none was used yet.
        torch: That of torch's functions on the CPU, as bytes; None with other backends than torch.
        cuda: Likewise, on each GPU of the process; empty without any.
    """

    seed: int | None
    python: Any
    legacy: Any
    keras: np.ndarray | None
    torch: np.ndarray | None = None
    cuda: tuple[np.ndarray, ...] = ()


def random_state() -> RandomState:
    """The states of this process, and not those of a hook that runs seeded beside training."""
    generator = get_global_attribute(GLOBAL_SEED_GENERATOR)
    python, legacy = own_streams.get()
    return RandomState(
        seed=get_random_seed(),
        python=python,
        legacy=legacy,
        keras=np.array(keras.ops.convert_to_numpy(generator.state)) if generator is not None else None,
        torch=np.array(_torch().get_rng_state()) if keras.backend.backend() == "torch" else None,
        cuda=_cuda_states() if keras.backend.backend() == "torch" else (),
    )


def set_random_state(state: RandomState) -> None:
    """Take states on. The framework's global seed is set only where it is another: that resets its operations."""
    if state.seed is not None and state.seed != get_random_seed():
        keras.utils.set_random_seed(state.seed)
    if state.keras is not None:
        global_seed_generator().state.assign(state.keras)
    if state.torch is not None:
        _torch().set_rng_state(_torch().tensor(state.torch))
    if state.cuda and _torch().cuda.is_available():  # the caller may have other GPUs than the trainer, or none
        for device, one in zip(range(_torch().cuda.device_count()), state.cuda, strict=False):
            _torch().cuda.set_rng_state(_torch().tensor(one), device)
    own_streams.set((state.python, state.legacy))


def _cuda_states() -> tuple[np.ndarray, ...]:
    """Dropout on a GPU that has no seed of its own draws from the GPU's."""
    cuda = _torch().cuda
    return tuple(np.array(one) for one in cuda.get_rng_state_all()) if cuda.is_available() else ()


def _torch() -> Any:
    """The backend's own package, which others do without, the type checker's environment among them."""
    return importlib.import_module("torch")
