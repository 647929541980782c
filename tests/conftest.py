"""What all tests share: one Ray for the session, and the check that a test leaves nothing behind."""

import os
import threading
import time

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

LEAVING_S = 15.0
"""How long actors, threads and objects may take to go; Ray ends processes within milliseconds when it is not busy."""


@pytest.fixture(scope="session")
def cluster():
    """The Ray that rayfeed starts by itself where none runs."""
    import ray

    from rayfeed.producer.cluster import ensure_ray

    ensure_ray()
    yield
    ray.shutdown()


@pytest.fixture
def nothing_left(cluster):
    """Fails a test that leaves an actor, a thread of rayfeed's, or objects in the store."""
    base = store_bytes()
    yield
    wait_for(lambda: not living_actors(), "actors are left: {}", living_actors)
    wait_for(lambda: not rayfeed_threads(), "threads are left: {}", rayfeed_threads)
    wait_for(lambda: store_bytes() <= base, f"bytes are left in the store, {base} before the test: {{}}", store_bytes)


def living_actors():
    """The actors that are not dead, as Ray's control service knows them."""
    import ray

    if not ray.is_initialized():
        return []
    from ray._private.state import state

    return [actor["ClassName"] for actor in state.actor_table(None).values() if actor["State"] != "DEAD"]


def rayfeed_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rayfeed")]


def store_bytes():
    """Bytes in use in this node's object store."""
    import ray
    from ray._private.internal_api import node_stats

    if not ray.is_initialized():
        return 0
    node = ray.nodes()[0]
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False)
    return stats.store_stats.object_store_bytes_used


def wait_for(condition, message, value=lambda: None):
    """Wait until a condition holds, and fail with a message when it does not in `LEAVING_S`."""
    deadline = time.monotonic() + LEAVING_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(message.format(value()))
        time.sleep(0.02)  # polls another process' state, which sends no event
