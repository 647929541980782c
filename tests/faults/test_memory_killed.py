"""Ray ends a producer that takes the machine's memory: its batches are made again, or named where each maker dies."""

from pathlib import Path

import pytest

from tests.conftest import assert_runs

MARGIN = 2.5e9
"""Bytes above what the machine uses at the start, from which on Ray ends workers; others may take some of them."""

HOARD = 4e9
"""Bytes that one batch takes."""

SCRIPT = """
import os
import sys
import time

import numpy as np
import ray

used, total, margin, hoard = map(float, sys.argv[1:5])
os.environ["RAY_memory_usage_threshold"] = str((used + margin) / total)
os.environ["RAY_memory_monitor_refresh_ms"] = "100"
ray.init(num_cpus=1, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)

import rayfeed
from rayfeed.errors import ProducerDiedError
from tests.sources import Numbered, Once, numbers_of

once = Once(sys.argv[5])

def take():
    held = np.ones(int(hoard), "u1")
    time.sleep(60)
    raise AssertionError(f"Ray let this producer have {held.nbytes} bytes")

def take_once():
    if once("take"):
        take()

with rayfeed.Feed(Numbered(40, at={20: take_once}), 1, use_multiprocessing=True) as feed:
    assert numbers_of(feed) == list(range(40))
    assert feed.stats().lost_producers == 1

with rayfeed.Feed(Numbered(40, at={20: take}), 1, use_multiprocessing=True) as feed:
    try:
        numbers_of(feed)
    except ProducerDiedError as error:
        print(error, "because", error.__cause__)
"""


def memory():
    """The machine's bytes: all, and those that are not in use."""
    with Path("/proc/meminfo").open() as file:
        fields = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in file)}
    return fields["MemTotal"], fields["MemAvailable"]


def test_a_producer_that_takes_the_memory_is_replaced_and_a_batch_that_always_does_is_named(tmp_path):
    total, available = memory()
    if available < 2 * HOARD:
        pytest.skip(f"{available / 1e9:.0f} GB of memory are free, and this test takes {HOARD / 1e9:g}")
    said = assert_runs(SCRIPT, *map(str, (total - available, total, MARGIN, HOARD, tmp_path)), RAY_ADDRESS="local")
    told, because = said.split(" because ", 1)
    assert "3 producers died while they made batches" in told
    assert "of pass 0 of source (Numbered)" in told
    assert "memory" in because
