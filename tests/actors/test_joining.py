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


def test_a_ray_that_is_initialized_is_used_as_it_is(address):
    from rayfeed.producer.cluster import ensure_ray

    ensure_ray()
    assert ray.get_runtime_context().gcs_address == address
    assert ray.cluster_resources()["CPU"] == NUM_CPUS


SEVERAL = """
import threading
import rayfeed
from tests.sources import Numbered, numbers_of

all_have_read = threading.Barrier(3)

def read():
    with rayfeed.Feed(Numbered(5)) as feed:
        print(numbers_of(feed))
    all_have_read.wait(60)  # Ray's processes end with the thread that started them

threads = [threading.Thread(target=read) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_begin_at_one_time_share_one_ray():
    assert assert_runs(SEVERAL, RAY_ADDRESS="local").splitlines() == ["[0, 1, 2, 3, 4]"] * 3


REFUSED = """
import sys
import ray
import rayfeed
from rayfeed.errors import OptionError
from tests.sources import Numbered, numbers_of

try:
    rayfeed.Feed(Numbered(5), workers=2)
except OptionError as error:
    print(error)
with rayfeed.Feed(Numbered(5), workers=0) as feed:
    assert numbers_of(feed) == [0, 1, 2, 3, 4]
"""

WAY_OUT = "\n  Run the script in the cluster: `ray job submit --working-dir . -- python train.py`"


def test_an_address_of_ray_client_is_refused_before_anything_is_joined():
    said = assert_runs(REFUSED + "assert not ray.is_initialized()", RAY_ADDRESS="ray://127.0.0.1:10001")
    assert said.startswith("RAY_ADDRESS is ray://127.0.0.1:10001: over Ray Client this process has no object store")
    assert WAY_OUT in said


CLIENT = """
import socket
import ray.util.client.server.server as server_module
from ray._private.client_mode_hook import disable_client_hook
from ray.util.client import ray as client
with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    port = unused.getsockname()[1]
def connect(job_config=None, **arguments):
    import ray
    with disable_client_hook():
        return ray.init(sys.argv[1], job_config=job_config, log_to_driver=False, **arguments)
import sys
server = server_module.serve("127.0.0.1", port, ray_connect_handler=connect)
client._inside_client_test = True
client.connect(f"127.0.0.1:{port}")
"""


def test_a_process_that_joined_as_a_client_is_told_where_to_run(address):
    said = assert_runs(CLIENT + REFUSED + "client.disconnect()\nserver.stop(0)", address)
    assert said.startswith("ray.init joined its cluster as a client (ray://...): over Ray Client this process has no")
    assert WAY_OUT in said
