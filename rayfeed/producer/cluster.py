"""Joining a Ray cluster, or starting a local one where there is none (contract A)."""

from __future__ import annotations

import logging
import os
import socket
import threading

import ray
from ray._private.services import find_bootstrap_address
from ray._private.state import state
from ray._private.worker import global_worker
from ray.util.client import ray as client

from rayfeed.errors import InternalError, OptionError

FREE_OBJECTS_PERIOD_MS = 50
"""How long a local Ray keeps freed objects. Its default of 1000 lets a second's throughput pile up behind the window,
and pages that were never touched are slow to write; so the same few are used again soon. Not at once: at 10 Ray left
some objects in the store that were freed as soon as they were made. Only the start of a cluster can set it."""

BIRTH_S = 5.0
"""How long after it was asked for an actor that has not come up is not killed. Ray's control service (2.60) loses count
of the claim of an actor that is killed in the millisecond between the grant of a worker and the arrival of the actor's
class there: the worker stays, idle, and its CPUs stay taken until the cluster ends. An actor that has not come up after
this time waits for a place, and has no worker."""

CLIENT_SCHEME = "ray://"

KNOCK_TIMEOUT_S = 2.0
"""How long a cluster of this machine may take to accept a connection."""

_joining = threading.Lock()


def ensure_ray() -> None:
    """Join the cluster of ``RAY_ADDRESS``, or the one this machine joined by ``ray start``; else start a local one.

    A local Ray that another process started for itself is not joined: it ends with that process. The one started here
    ends with this process, so that a second call need not start another. ``RAY_ADDRESS=local`` always starts one.

    Raises:
        OptionError: This process has, or would get, its Ray through Ray Client.
    """
    if client.is_connected():
        raise _no_client("ray.init joined its cluster as a client (ray://...)")
    with _joining:  # several threads may begin at once
        if not ray.is_initialized():
            _join()


def _join() -> None:
    address = os.environ.get("RAY_ADDRESS") or _started_here()
    if address is not None and address.startswith(CLIENT_SCHEME):
        raise _no_client(f"RAY_ADDRESS is {address}")
    if address is not None and address != "local":
        ray.init(logging_level=logging.WARNING)  # not by that address: only so Ray takes up an authentication token
        return
    ray.init(
        address="local",
        include_dashboard=False,
        logging_level=logging.WARNING,
        _system_config={"free_objects_period_milliseconds": FREE_OBJECTS_PERIOD_MS},
    )


def _no_client(how: str) -> OptionError:
    return OptionError(
        f"{how}: over Ray Client this process has no object store, from which batches are read, and cannot own the "
        "actors that make them.\n"
        "  Run the script in the cluster: `ray job submit --working-dir . -- python train.py`, or by hand on one of "
        "its nodes."
    )


def store_capacity() -> int:
    """Bytes that the object store of this process' node holds."""
    here = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == here:
            return int(node["Resources"].get("object_store_memory", 0))
    raise InternalError(f"this process' node, {here}, is none of the cluster's")


def draining_nodes() -> set[str]:
    """Nodes that were told to end, and still run what they have: spot machines, and those that an autoscaler takes."""
    return set(state.get_draining_nodes())


def connection() -> object:
    """Which connection to Ray this process has, to compare; None for none.

    Actors and objects belong to one connection. Used after it ended they fail, or make Ray start another cluster.
    """
    try:
        return global_worker.current_cluster_and_job if ray.is_initialized() else None
    except (AttributeError, AssertionError):  # it ended meanwhile
        return None


def _started_here() -> str | None:
    """The cluster that ``ray start`` noted for this machine, if it still answers.

    The note outlives a cluster that was killed, and Ray would wait many minutes for one that is gone.
    """
    address = find_bootstrap_address(None)
    if not address:
        return None
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_TIMEOUT_S).close()
    except (OSError, ValueError):
        logging.getLogger("rayfeed").warning(
            "rayfeed: the Ray cluster at %s, noted by `ray start` on this machine, does not answer; starting a local "
            "Ray. Set RAY_ADDRESS to join another cluster.",
            address,
        )
        return None
    return address
