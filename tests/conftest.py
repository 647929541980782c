"""What all tests share: one Ray for the session, and the check that a test leaves nothing behind."""

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.sources import Gate, Log

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

LEAVING_S = 15.0
"""How long actors, threads and objects may take to go; Ray ends processes within milliseconds when it is not busy."""

POLL_S = 0.02
"""How often another process' state is looked at, which sends no event."""

MARKS_BYTES = 64
"""What may stay in the store: Ray marks an object that is freed while a producer fetches it by one of 2 bytes of its
own, which it keeps. The smallest frame has some hundreds."""

WITH_REPLIES_BYTES = 1000
"""What calls give comes with their replies, if it is small, and is in no store: that a trainer is up has 196 bytes,
which its caller keeps. Frames in the store are larger."""

MOST_ORPHANS = 2
"""Tests of a session after which Ray may keep an object that no process refers to."""

STORE_BYTES = 500_000_000
"""What the session's object store holds."""

NUM_CPUS = 4
"""CPUs that the session's Ray counts, whatever the machine has: claims and refusals are the same everywhere."""


@pytest.fixture(scope="session")
def cluster():
    """A Ray of this session's own: never one that runs on this machine already."""
    import ray

    from rayfeed.producer.cluster import FREE_OBJECTS_PERIOD_MS

    # With fewer files than this Ray lists them ten times a second, and each of the session's workers leaves two.
    os.environ.setdefault("RAY_LOG_MONITOR_MANY_FILES_THRESHOLD", "50")
    ray.init(
        address="local",
        num_cpus=NUM_CPUS,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        logging_level="WARNING",
        log_to_driver=False,
        _system_config={"free_objects_period_milliseconds": FREE_OBJECTS_PERIOD_MS},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def orphans():
    """Tests after which Ray kept an object that no process refers to. It does so at times."""
    found = []
    yield found
    assert len(found) <= MOST_ORPHANS, f"objects that nobody refers to are left after too many tests: {found}"


@pytest.fixture
def nothing_left(cluster, orphans, request):
    """Fails a test that leaves an actor, a process or thread of rayfeed's, or an object."""
    before = Remains()
    yield
    gc.collect()  # a traceback's frames are cycles, and may hold what the test used
    if not within(LEAVING_S, lambda: not before.left()):
        evict()
        within(LEAVING_S, lambda: not before.left() or not before.left(bytes_held()))
        if left := before.left():
            if held := before.left(bytes_held()):
                pytest.fail(f"{'; '.join(left)}; of these, some process refers to: {'; '.join(held)}")
            orphans.append(request.node.nodeid)
    # What is there now stays: modules, above all TensorFlow's. To look at all of it takes 0.3 s, once is enough.
    gc.freeze()


class Remains:
    """What is there when this is made, and what `left` finds later besides."""

    def __init__(self):
        self._actors = set(living_actors())
        self._threads = set(threading.enumerate())
        self._references = references()
        self._bytes = store_bytes()
        self._cpus = free_cpus()

    def left(self, num_bytes=None):
        """One sentence for each kind of thing that was not there before; the store has so many bytes in use."""
        num_bytes = store_bytes() if num_bytes is None else num_bytes
        found = {
            "actors": [name for name in living_actors() if name not in self._actors],
            "producer processes": producer_pids(),
            "threads": sorted(thread.name for thread in set(threading.enumerate()) - self._threads),
            "references to objects": sorted(references() - self._references),
            "bytes in the store": [num_bytes] if num_bytes > self._bytes + MARKS_BYTES else [],
            "claims": [f"{free_cpus():g} CPU free"] if free_cpus() < self._cpus else [],
        }
        return [f"{name} are left: {values}" for name, values in found.items() if values]


def living_actors():
    """The actors that are not dead, as Ray's control service knows them."""
    from ray._private.state import state

    return sorted(name for name, actor in state.actor_table(None).items() if actor["State"] != "DEAD")


def producer_pids():
    """Processes of this session's Ray that host a producer, also those that Ray has written off already."""
    from ray._private.worker import global_worker

    raylet = global_worker.node.all_processes["raylet"][0].process.pid
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            title = (status.parent / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if parent == raylet and title.startswith(b"ray::Producer"):
            found.append(int(status.parent.name))
    return found


def evict():
    """Have Ray drop what nobody holds, as it does where room is needed; what somebody holds stays.

    A producer that was killed between the making of a frame and the news of it leaves one.
    """
    import ray

    ray.put(bytes(STORE_BYTES * 9 // 10))


def references():
    """Objects and actors that this process holds on to, by their ids."""
    from ray._private.worker import global_worker

    return {name.decode() for name in global_worker.core_worker.get_all_reference_counts()}


def store_bytes():
    """Bytes in use in this node's object store."""
    return node_stats(include_memory_info=False).store_stats.object_store_bytes_used


def bytes_held():
    """Bytes in this node's object store to which some process refers: this one, a producer, a trainer."""
    workers = node_stats(include_memory_info=True).core_workers_stats
    sizes = {found.object_id: found.object_size for worker in workers for found in worker.object_refs}
    return sum(size for size in sizes.values() if size >= WITH_REPLIES_BYTES)  # -1 of one that is not there


def node_stats(**arguments):
    import ray
    from ray._private import internal_api

    node = ray.nodes()[0]
    return internal_api.node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], **arguments)


def private_bytes(pid="self"):
    """A process' memory, without what it shares with the object store."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith("RssAnon")]
    return 1024 * int(found)


def free_cpus():
    """CPUs that nobody claims."""
    import ray

    return ray.available_resources().get("CPU", 0.0)


@pytest.fixture(scope="session")
def house(cluster):
    """The process of the trainer that tests share."""
    from tests.shared_trainer import House

    house = House()
    yield house
    house.close()


@pytest.fixture
def shared_trainer(house, monkeypatch):
    """Calls of the test that want a trainer actor get the one that all tests share."""
    house.reopen()
    monkeypatch.setattr("rayfeed.trainer.session.RemoteTrainer", house.lodge)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log")


@pytest.fixture
def gate(tmp_path):
    """Opened when the test ends, so that no producer waits for it."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


def within(seconds, condition):
    """Whether a condition comes to hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def wait_until(condition, otherwise, *, seconds=LEAVING_S):
    """Wait until a condition holds, and fail with a message when it does not in time."""
    if not within(seconds, condition):
        pytest.fail(f"after {seconds:g} s: {otherwise() if callable(otherwise) else otherwise}")


def start_script(code, *arguments, **environment):
    """Run a script that finds this repository in a process of its own.

    Args:
        code: Python.
        arguments: Of ``sys.argv``.
        environment: Variables set besides this process' own; None unsets one.
    """
    merged = {**os.environ, "PYTHONPATH": str(Path.cwd()), **environment}
    # A shell's background jobs, and so their children, ignore Ctrl-C unless told otherwise.
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    return subprocess.Popen(  # noqa: S603 - the test's own script
        [sys.executable, "-c", code, *arguments],
        env={name: value for name, value in merged.items() if value is not None},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_runs(code, *arguments, seconds=90, **environment):
    """Run a script to its end; its output, or a failure with its errors."""
    with start_script(code, *arguments, **environment) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    return output
