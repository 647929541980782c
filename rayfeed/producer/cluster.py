"""Joining a Ray cluster, or starting a local one where there is none (contract A)."""

from __future__ import annotations

import logging
import os

import ray

FREE_OBJECTS_PERIOD_MS = 10
"""How long a local Ray keeps freed objects. Its default of 1000 lets a second's throughput pile up behind the window;
with the pages used again at once, transfer was 20 to 45 % faster (0 against 1000, 2 cores, Ray 2.60). Only the start of
a cluster can set it."""


def ensure_ray() -> None:
    """Join the cluster of ``RAY_ADDRESS``, or one that runs on this machine; else start a local one.

    A local Ray started here ends with this process, so that a second call need not start another.
    """
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
        return
    try:
        ray.init(address="auto", logging_level=logging.WARNING)
    except ConnectionError:
        ray.init(
            address="local",
            include_dashboard=False,
            logging_level=logging.WARNING,
            _system_config={"free_objects_period_milliseconds": FREE_OBJECTS_PERIOD_MS},
        )
