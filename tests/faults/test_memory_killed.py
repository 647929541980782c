"""Ray ends a process that takes the machine's memory: a producer's batches are made again, or named where each maker
dies; a trainer begins again."""

from pathlib import Path

import pytest

from tests.conftest import assert_runs

MARGIN = 6e9
"""Bytes above what the machine uses at the start, from which on Ray ends workers. What runs beside takes of them too,
and a margin that it could use up alone would end workers that took nothing. Two tests of this file at once would end
each other: `make test` spreads whole files."""

MOST = 1.5 * MARGIN
"""Bytes at which a worker stops taking: Ray has let it have more than there was to take."""

START = """
import os
import sys
import time

import numpy as np
import ray

used, total, margin, most = map(float, sys.argv[1:5])
os.environ["RAY_memory_usage_threshold"] = str((used + margin) / total)
os.environ["RAY_memory_monitor_refresh_ms"] = "100"
ray.init(num_cpus=1, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)

def take():
    # At a rate at which Ray sees each step.
    held = []
    while sum(part.nbytes for part in held) < most:
        held.append(np.ones(500_000_000, "u1"))
        time.sleep(0.1)
    raise AssertionError(f"Ray let this process have {most} bytes")
"""

FEED = """
import rayfeed
from rayfeed.errors import ProducerDiedError
from tests.sources import Numbered, Once, numbers_of

once = Once(sys.argv[5])

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

TRAINING = """
import warnings

import keras

import rayfeed
from rayfeed import TrainerOptions
from tests.oracle.conftest import classifier
from tests.oracle.sources import Rows
from tests.sources import Once

once = Once(sys.argv[5])

class Takes(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 5 and once("take"):
            take()

model = classifier()
options = TrainerOptions(checkpoint_dir=f"{sys.argv[5]}/saved", save_every=3, max_failures=1)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    rayfeed.fit_generator(model, Rows(), verbose=0, workers=0, callbacks=[Takes()], trainer=options)
print(int(model.optimizer.iterations.numpy()), *[one.message for one in told if "rayfeed" in str(one.message)])
"""


def memory():
    """The machine's bytes: all, and those that are not in use."""
    with Path("/proc/meminfo").open() as file:
        fields = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in file)}
    return fields["MemTotal"], fields["MemAvailable"]


def run(script, folder):
    """Run it where Ray ends who takes too much; what it printed."""
    total, available = memory()
    if available < 2 * MARGIN:
        pytest.skip(f"{available / 1e9:.0f} GB of memory are free, and this test takes {MARGIN / 1e9:g} beside others")
    used = total - available
    return assert_runs(START + script, *map(str, (used, total, MARGIN, MOST, folder)), RAY_ADDRESS="local")


def test_a_producer_that_takes_the_memory_is_replaced_and_a_batch_that_always_does_is_named(tmp_path):
    said = run(FEED, tmp_path)
    told, because = said.split(" because ", 1)
    assert "3 producers died while they made batch 20 of pass 0 of source (Numbered)" in told
    assert "memory" in because


@pytest.mark.slow
def test_a_trainer_that_takes_the_memory_is_replaced_and_goes_on_from_its_checkpoint(tmp_path):
    steps, told = run(TRAINING, tmp_path).split(maxsplit=1)
    assert steps == "10"
    assert "was lost during fit: going on from epoch 0, batch 3" in told
