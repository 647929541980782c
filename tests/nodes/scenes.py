"""What happens to a feed when nodes of its cluster are drained or lost; run by `test_nodes.py` in a process of its own.

Ray's own test cluster stands for the machines: each node is a raylet with an object store and processes of its own. A
node is lost when all of them are killed at once, and cut off when all of them are stopped: nothing answers, and nothing
says so. The feed's process has a node without producers, with Ray's own settings for how a node's loss is noticed.
Batches are large enough to lie in the store of the node that made them.

    python -m tests.nodes.scenes
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

import rayfeed
from tests.sources import Numbered, number_of

LENGTH = 420
WORKERS = 4
MAKE_S = 0.02
SIZE = 20_000


class Slow(Numbered):
    def __getitem__(self, index):
        time.sleep(MAKE_S)  # as one that waits for a disk
        return super().__getitem__(index)


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def send(signum):
    """What sends a signal to all processes of a node."""

    def send_to(node):
        raylet = node.all_processes["raylet"][0].process.pid
        for pid in [raylet, *children(raylet)]:
            os.kill(pid, signum)

    return send_to


def drain_node(node):
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    accepted, reason = GcsClient(ray.get_runtime_context().gcs_address).drain_node(
        node.node_id, autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), "spot", 2**62
    )
    assert accepted, reason


def nodes_of(feed):
    return sorted(process.node_id for process in feed.processes())


def read(nodes, *happenings, replaced_s=0.0):
    """One pass, in which things happen to the node that has the first producer; replacements may come so much later."""
    options = rayfeed.ProducerOptions(num_cpus=1)
    numbers, gaps = [], []
    with rayfeed.Feed(Slow(LENGTH, size=SIZE), WORKERS, use_multiprocessing=True, producers=options) as feed:
        asked = time.perf_counter()
        for batch in feed:
            gaps.append(time.perf_counter() - asked)
            numbers.append(number_of(batch))
            if len(numbers) == LENGTH // 6:
                (gone,) = [node for node in nodes if node.node_id == feed.processes()[0].node_id]
                before = nodes_of(feed)
            if len(numbers) % (LENGTH // 6) == 0 and happenings:
                happen, *happenings = happenings
                happen(gone)
            asked = time.perf_counter()
        deadline = time.monotonic() + replaced_s
        while len(feed.processes()) < WORKERS and time.monotonic() < deadline:
            time.sleep(0.05)  # polls what another thread is told
        after = nodes_of(feed)
        stats = feed.stats()
    return {
        "in order": numbers == list(range(LENGTH)),
        "longest gap": max(gaps[1:]),
        "there before": before.count(gone.node_id),
        "there after": after.count(gone.node_id),
        "producers after": len(after),
        "lost": stats.lost_producers,
        "remade": stats.remade_tickets,
    }


@contextlib.contextmanager
def nodes_of_a_cluster(count, **resources):
    """Nodes besides the one of this process, which has no CPU."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=2, resources=resources, include_dashboard=False) for _ in range(count)]
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        yield nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


def main():
    with nodes_of_a_cluster(3) as nodes:
        found = {
            "cut off": read(nodes, send(signal.SIGSTOP), send(signal.SIGCONT)),
            "drained": read(nodes, drain_node, replaced_s=10),
            "killed": read(nodes, send(signal.SIGKILL)),
        }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
