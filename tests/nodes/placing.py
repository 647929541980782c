"""Where producers are placed on a cluster of three machines; run by `test_nodes.py` in a process of its own.

The consumer's machine has 2 CPUs, as have "left" and "right"; the label `rayfeed.io/role` is "producer" on the right.

    python -m tests.nodes.placing
"""

import json
import sys
import time
from collections import Counter

import numpy as np
import ray
from ray.cluster_utils import Cluster

import rayfeed
from rayfeed import ProducerOptions
from tests.sources import Numbered

RIGHT = {"rayfeed.io/role": "producer"}
LENGTH = 200
SLOW_S, FAST_S = 0.04, 0.005


class Unequal(rayfeed.Sequence):
    """Takes longer on one node; a batch is its index, and whether it was made there."""

    def __init__(self, slow_node):
        self.slow_node = slow_node

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        is_slow = ray.get_runtime_context().get_node_id() == self.slow_node
        time.sleep(SLOW_S if is_slow else FAST_S)
        return np.array([[index, is_slow]]), None


def places(names, workers, **options):
    """How many producers are on each machine, once all have come."""
    with rayfeed.Feed(Numbered(50), workers, use_multiprocessing=True, producers=ProducerOptions(**options)) as feed:
        deadline = time.monotonic() + 60
        while len(feed.processes()) < workers:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{feed.processes()} of {workers} have come")
            time.sleep(0.05)  # polls what another thread is told
        found = Counter(names[process.node_id] for process in feed.processes())
    wait_for_cpus()
    return found


def wait_for_cpus():
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        if time.monotonic() > deadline:
            raise RuntimeError("CPUs are still taken")
        time.sleep(0.05)  # Ray tells of it by and by


def shares(slow_node):
    """Who made how many of the second pass, one producer on each machine: all have come in the first."""
    options = ProducerOptions(num_cpus=2)
    with rayfeed.Feed(Unequal(slow_node), 3, use_multiprocessing=True, producers=options) as feed:
        _, rows = (np.concatenate([inputs for inputs, _ in feed]) for _ in range(2))
    wait_for_cpus()
    return {"in order": rows[:, 0].tolist() == list(range(LENGTH)), "slow": int(rows[:, 1].sum())}


def main():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    left = cluster.add_node(num_cpus=2, include_dashboard=False)
    right = cluster.add_node(num_cpus=2, include_dashboard=False, labels=RIGHT)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    here = ray.get_runtime_context().get_node_id()
    names = {here: "here", left.node_id: "left", right.node_id: "right"}
    try:
        found = {
            "few": places(names, 2),
            "as many as the others hold": places(names, 4, num_cpus=1),
            "more": places(names, 6, num_cpus=1),
            "as many, without a claim": places(names, 4, num_cpus=0),
            "more, without a claim": places(names, 6, num_cpus=0),
            "labelled": places(names, 3, num_cpus=0, label_selector=RIGHT),
            "here alone": places(names, 2, num_cpus=1, label_selector={"ray.io/node-id": here}),
            "unequal": shares(left.node_id),
        }
    finally:
        ray.shutdown()
        cluster.shutdown()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
