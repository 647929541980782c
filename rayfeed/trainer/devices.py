"""Whether Keras' backend finds the GPU that the trainer claimed: Ray counts what a node has, usable or not."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import keras

CUDA_BUILDS = {
    "tensorflow": "pip install 'tensorflow[and-cuda]' there: tensorflow alone brings no CUDA libraries",
    "jax": "pip install 'jax[cuda12]' there: jax alone runs on the CPU",
    "torch": "install PyTorch's build for CUDA there (https://pytorch.org/get-started/locally)",
}
"""How a backend gets what it needs besides the driver."""


def warn_without_gpu(num_gpus: float, place: str) -> None:
    """Warn if GPUs were claimed and the backend finds none; it would compute on the CPU without a word.

    Runs in the trainer's process, once, when the backend is loaded.

    Args:
        num_gpus: What it claims; 0 for nothing to look for.
        place: Its node and process, for the message.
    """
    if not num_gpus or finds_gpu():
        return
    backend = keras.backend.backend()
    build = CUDA_BUILDS.get(backend, "choose a backend that can use one (KERAS_BACKEND)")
    warnings.warn(
        f"rayfeed: the trainer ({place}) claims {num_gpus:g} GPU, and Keras' {backend} backend finds none there: it "
        "goes on on the CPU.\n"
        f"  To use the GPU: {build}; the machine needs NVIDIA's driver (nvidia-smi lists the GPU), and a container has "
        "to be started with it (docker run --gpus all, or NVIDIA's runtime).\n"
        "  Where the CPU is meant: TrainerOptions(num_gpus=0).",
        stacklevel=2,
    )


def finds_gpu() -> bool:
    """Whether the backend finds a GPU, or another device that is no CPU, in this process."""
    match keras.backend.backend():
        case "tensorflow" | "jax":
            # Asked for GPUs by name, jax raises where there is none; of several kinds Keras gives what computes.
            return any(not device.startswith("cpu") for device in keras.distribution.list_devices())
        case "torch":  # of which Keras (3.15) cannot list devices
            return bool(_torch().cuda.is_available())
        case _:
            return False


def _torch() -> Any:
    """The backend's own package, which others do without, the type checker's environment among them."""
    return importlib.import_module("torch")
