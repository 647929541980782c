"""Requests that no node can hold, and places that are taken (contract F5)."""

import re
import time

import pytest
import ray

import rayfeed
from rayfeed import ProducerOptions
from rayfeed.errors import PlacementError
from tests.conftest import NUM_CPUS, wait_until
from tests.sources import Numbered, numbers_of


@pytest.mark.parametrize(
    ("options", "claimed", "had"),
    [
        (ProducerOptions(num_cpus=64), "64 CPU", f"{NUM_CPUS} CPU"),
        (ProducerOptions(num_cpus=0, resources={"GPU": 1000}), "1000 GPU", "GPU"),
        (ProducerOptions(num_cpus=0, memory=2**50), "1048576.0 GiB memory", "GiB memory"),
        (ProducerOptions(num_cpus=0, resources={"licence": 2}), "2 licence", "0 licence"),
    ],
    ids=["cpus", "gpus", "memory", "custom"],
)
def test_what_no_node_has_is_refused_at_once_with_the_numbers(options, claimed, had):
    started = time.monotonic()
    with pytest.raises(PlacementError) as caught:
        rayfeed.Feed(Numbered(3), producers=options)
    assert time.monotonic() - started < 5
    text = str(caught.value)
    assert re.search(rf"a producer claims {claimed}, more than any node of the cluster has \([\d.]+: .*{had}\)", text)
    assert "lower ProducerOptions, or add such a node" in text


@pytest.fixture
def all_cpus_taken():
    """Another job's actor that holds every CPU."""

    @ray.remote(num_cpus=NUM_CPUS)
    class Other:
        def ready(self):
            return True

    # Producers of the test before may still be about to give theirs back.
    wait_until(lambda: ray.available_resources().get("CPU") == NUM_CPUS, "CPUs are still taken")
    other = Other.remote()
    assert ray.get(other.ready.remote())
    wait_until(lambda: not ray.available_resources().get("CPU"), "the CPUs are not counted as taken")
    yield
    ray.kill(other)


def test_a_place_that_stays_taken_is_an_error_after_the_deadline_with_the_numbers(all_cpus_taken):
    options = ProducerOptions(num_cpus=1, start_timeout_s=1.5)
    with rayfeed.Feed(Numbered(3), 2, use_multiprocessing=True, producers=options) as feed:
        started = time.monotonic()
        with pytest.raises(PlacementError) as caught:
            next(iter(feed))
        assert 1 < time.monotonic() - started < 8
    for part in (
        "found no place in",
        f"each of 2 claims 1 CPU, and the cluster has 0 of {NUM_CPUS} CPU free",
        "ProducerOptions.num_cpus",
        "start_timeout_s (now 1.5)",
    ):
        assert part in str(caught.value)


def test_without_a_claim_producers_start_though_all_cpus_are_taken(all_cpus_taken):
    with rayfeed.Feed(Numbered(3), 2, use_multiprocessing=True) as feed:
        assert numbers_of(feed) == [0, 1, 2]


def test_a_feed_goes_on_with_the_producers_that_found_a_place():
    options = ProducerOptions(num_cpus=NUM_CPUS, start_timeout_s=30)
    with rayfeed.Feed(Numbered(5), 3, use_multiprocessing=True, producers=options) as feed:
        assert numbers_of(feed.take(20)) == [0, 1, 2, 3, 4] * 4


def test_environment_variables_reach_the_producers_and_gpus_are_hidden_from_them():
    class Environment(rayfeed.Sequence):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            import os

            import numpy as np

            return np.array([os.environ["COLOUR"], f"<{os.environ['CUDA_VISIBLE_DEVICES']}>"]), None

    with rayfeed.Feed(Environment(), producers=ProducerOptions(env_vars={"COLOUR": "blue"})) as feed:
        ((inputs, _),) = feed
        assert inputs.tolist() == ["blue", "<>"]
