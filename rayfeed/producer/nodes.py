"""The cluster's nodes as Ray counts them: which live and stay, what is free there, and whether others may come."""

from __future__ import annotations

from typing import Any

import ray
from ray._private.state import state

from rayfeed.producer.cluster import draining_nodes

NODE_ID = "ray.io/node-id"
"""The label by which Ray names each node."""

NODE_GROUP = "ray.io/node-group"
"""The label in which Ray tells by which part of its configuration an autoscaler started a node."""


def living_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes, as Ray describes them; also those that were told to end, and take nothing more."""
    return [node for node in ray.nodes() if node["Alive"]]


def staying_nodes() -> list[dict[str, Any]]:
    """The nodes on which an actor can still be placed."""
    going = draining_nodes()
    return [node for node in living_nodes() if node["NodeID"] not in going]


def can_grow() -> bool:
    """Whether an autoscaler may add nodes.

    Nothing public tells. Ray's launcher and KubeRay name each node's group to Ray (2.60), which makes it a label; some
    platforms write a cluster configuration, which Ray's own libraries ask for. KubeRay names the groups without an
    autoscaler too: there this is wrong in the safe direction, and what cannot be placed waits, with a message, instead
    of being refused.
    """
    return bool(state.get_max_resources_from_cluster_config()) or any(
        NODE_GROUP in node["Labels"] for node in living_nodes()
    )


def free_cpus() -> dict[str, float]:
    """Node -> its CPUs that nobody claims. Ray's figure lags behind the claims made last."""
    return {node_id: free.get("CPU", 0.0) for node_id, free in state.available_resources_per_node().items()}


def own_cpus() -> float:
    """CPUs that Ray counts for this process' node. The machine may have more: a pod's are those that it asked for."""
    here = ray.get_runtime_context().get_node_id()
    return sum(node["Resources"].get("CPU", 0.0) for node in living_nodes() if node["NodeID"] == here)
