"""A cluster that can grow, from one machine of 2 CPUs to two; run by `test_nodes.py` in a process of its own.

No autoscaler runs: its part is to look at what is waited for, which `machines_wanted` has its own code do, and to add a
machine, which this does.

    python -m tests.nodes.growing
"""

import json
import os
import sys
import time
import warnings
from collections import Counter

import ray
from ray._raylet import GcsClient
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.schema import AutoscalerInstance
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.cluster_utils import Cluster
from ray.core.generated.instance_manager_pb2 import Instance

import rayfeed
from rayfeed import ProducerOptions, TrainerOptions
from rayfeed.producer.placement import producer_claim, start_timeout_s, trainer_claim
from tests.sources import Numbered, numbers_of

GROUP = "RAY_NODE_TYPE_NAME"
"""The environment variable by which Ray's launcher and KubeRay tell a node its group."""

LABELS = {"rayfeed.io/role": "producer"}
NUM_PRODUCERS, NUM_LABELLED, NUM_CPUS = 6, 2, 8


def until(condition, otherwise):
    """What a condition gives once that is something."""
    deadline = time.monotonic() + 30
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.05)  # polls what other processes tell by and by
    return found


def machines_wanted(address, num_waiting):
    """The machines that Ray's autoscaler would start, once so many actors are known to wait."""

    def waited_for():
        state = get_cluster_resource_state(GcsClient(address=address))
        return state if sum(one.count for one in state.pending_resource_requests) == num_waiting else None

    state = until(waited_for, "what waits is not known")
    (node,) = state.node_states
    head = Instance(instance_id="0", instance_type="head", status=Instance.RAY_RUNNING)
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs={
                "head": NodeTypeConfig("head", 0, 1, resources={"CPU": 2}),
                "producer": NodeTypeConfig("producer", 0, 32, resources={"CPU": 4}, labels=LABELS),
            },
            resource_requests=list(state.pending_resource_requests),
            current_instances=[AutoscalerInstance(cloud_instance_id="0", ray_node=node, im_instance=head)],
        )
    )
    return {one.instance_type: one.count for one in reply.to_launch}, len(reply.infeasible_resource_requests)


def places(feed, names):
    return Counter(names[process.node_id] for process in feed.processes())


def feeds(cluster):
    """What two feeds do while the cluster grows: one for any machine, and one for a label that none has yet."""
    names = {ray.get_runtime_context().get_node_id(): "here"}
    labelled = ProducerOptions(label_selector=LABELS)
    with (
        warnings.catch_warnings(record=True, action="always") as told,
        rayfeed.Feed(Numbered(50), NUM_PRODUCERS, use_multiprocessing=True) as feed,
        rayfeed.Feed(Numbered(5), NUM_LABELLED, use_multiprocessing=True, producers=labelled) as other,
    ):
        first = numbers_of(feed)
        until(feed.processes, "no producer came")
        wanted, infeasible = machines_wanted(cluster.address, NUM_PRODUCERS - 1 + NUM_LABELLED)
        before = places(feed, names), places(other, names)
        names[cluster.add_node(num_cpus=NUM_CPUS, include_dashboard=False, labels=LABELS).node_id] = "added"
        until(lambda: len(feed.processes()) == NUM_PRODUCERS, "not all producers came")
        until(lambda: len(other.processes()) == NUM_LABELLED, "not all producers with a label came")
        return {
            "told": [str(one.message) for one in told],
            "read": [first, numbers_of(feed), numbers_of(other)],
            "wanted": wanted,
            "infeasible": infeasible,
            "before": before,
            "after": (places(feed, names), places(other, names)),
        }


def main():
    os.environ[GROUP] = "head"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    del os.environ[GROUP]
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        found = {
            "claimed": [
                producer_claim(ProducerOptions(), NUM_PRODUCERS).num_cpus,
                trainer_claim(TrainerOptions()).num_cpus,
            ],
            "start_timeout_s": [start_timeout_s(ProducerOptions()), start_timeout_s(TrainerOptions())],
            **feeds(cluster),
        }
    finally:
        ray.shutdown()
        cluster.shutdown()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
