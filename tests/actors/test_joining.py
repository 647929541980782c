"""Which Ray a call uses: the one that is there, the one of RAY_ADDRESS, or one of its own (contract A)."""

import socket

import pytest
import ray

from tests.conftest import NUM_CPUS, assert_runs

FEED = """
import sys
import ray
import rayfeed
from tests.sources import Numbered, numbers_of

with rayfeed.Feed(Numbered(5)) as feed:
    assert numbers_of(feed) == [0, 1, 2, 3, 4]
print(ray.get_runtime_context().gcs_address)
"""

NOTED = """
import sys
from ray._private import services, utils
import rayfeed.producer.cluster as cluster
cluster.find_bootstrap_address = utils.read_ray_address = lambda temp_dir=None: sys.argv[1]
"""
"""As if `ray start` had noted this address. The real note is the machine's, and others use it."""


@pytest.fixture
def address():
    return ray.get_runtime_context().gcs_address


def test_ray_address_is_joined(address):
    assert assert_runs(FEED, RAY_ADDRESS=address).split() == [address]


def test_the_cluster_that_ray_start_noted_on_this_machine_is_joined(address):
    assert assert_runs(NOTED + FEED, address, RAY_ADDRESS=None).split() == [address]


@pytest.fixture
def dead_address():
    """Bound, but nobody listens there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"


def test_where_the_noted_cluster_is_dead_a_local_one_is_started_and_no_other_process_own_joined(address, dead_address):
    (found,) = assert_runs(NOTED + FEED, dead_address, RAY_ADDRESS=None, RAY_AUTH_MODE="token").split()
    assert found not in (address, dead_address)


def test_ray_address_local_starts_one_also_without_authentication(address):
    assert assert_runs(FEED, RAY_ADDRESS="local", RAY_AUTH_MODE="disabled").split() != [address]


def test_a_ray_that_is_initialized_is_used_as_it_is(address):
    from rayfeed.producer.cluster import ensure_ray

    ensure_ray()
    assert ray.get_runtime_context().gcs_address == address
    assert ray.cluster_resources()["CPU"] == NUM_CPUS
