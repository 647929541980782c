"""Keras' `fit_generator` for Ray clusters: producers on CPU nodes, Arrow batches, a trainer on the GPU node.

This page is the public face. Importing it loads no framework, nor Ray or Arrow: whoever unpickles a `rayfeed.Sequence`
imports it, and shall load no more than it runs. What consumes batches is loaded when it is first named.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rayfeed import errors as errors
from rayfeed.options import ProducerOptions as ProducerOptions
from rayfeed.options import TrainerOptions as TrainerOptions
from rayfeed.source.sequence import Sequence as Sequence
from rayfeed.source.worker_info import WorkerInfo as WorkerInfo
from rayfeed.source.worker_info import get_worker_info as get_worker_info
from rayfeed.source.worker_info import rng as rng
from rayfeed.stats import FeedStats as FeedStats

if TYPE_CHECKING:
    from rayfeed.api import evaluate_generator as evaluate_generator
    from rayfeed.api import fit_generator as fit_generator
    from rayfeed.api import predict_generator as predict_generator
    from rayfeed.installing import install as install
    from rayfeed.queue.feed import Feed as Feed
    from rayfeed.trainer.driver_callbacks import on_driver as on_driver
    from rayfeed.trainer.session import Trainer as Trainer

__version__ = "0.1.0.dev0"

_CONSUMERS = {
    "Feed": "rayfeed.queue.feed",
    "Trainer": "rayfeed.trainer.session",
    "evaluate_generator": "rayfeed.api",
    "fit_generator": "rayfeed.api",
    "install": "rayfeed.installing",
    "on_driver": "rayfeed.trainer.driver_callbacks",
    "predict_generator": "rayfeed.api",
}

__all__ = [
    "Feed",
    "FeedStats",
    "ProducerOptions",
    "Sequence",
    "Trainer",
    "TrainerOptions",
    "WorkerInfo",
    "errors",
    "evaluate_generator",
    "fit_generator",
    "get_worker_info",
    "install",
    "on_driver",
    "predict_generator",
    "rng",
]


def __getattr__(name: str) -> Any:
    if name in _CONSUMERS:
        return getattr(import_module(_CONSUMERS[name]), name)
    raise AttributeError(f"module 'rayfeed' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
