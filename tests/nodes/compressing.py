"""Frames that go from one machine to another are compressed; run by `test_nodes.py` and, on hosts, by `test_hosts.py`.

Prints as JSON the digests of a pass and the share of its bytes that came, and for hosts the speeds.

    python -m tests.nodes.compressing
"""

import hashlib
import json
import sys
import time

import numpy as np
import ray
from ray.cluster_utils import Cluster

import rayfeed
from rayfeed import ProducerOptions

LENGTH = 40
MEASURING_S = 5.0
"""How long the link is measured at most, and a codec chosen."""

RUN_S = 4.0


class Halves(rayfeed.Sequence):
    """Bytes of which zstd saves about a half: random numbers of 4 bits."""

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        return np.random.default_rng(index).integers(0, 16, (500, 1000), np.uint8), np.array([index] * 500)


def digest_of(feed):
    """Of a pass."""
    digest = hashlib.sha256()
    for inputs, targets in feed:
        digest.update(inputs.tobytes() + targets.tobytes())
    return digest.hexdigest()


def open_feed(compression, selector):
    options = ProducerOptions(num_cpus=1, label_selector=selector, compression=compression)
    return rayfeed.Feed(Halves(), 2, use_multiprocessing=True, producers=options)


def read_passes(feed, seconds):
    """Bytes that were delivered, and that came, in some seconds, up to the end of a pass; and the seconds."""
    before, began = feed.stats(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in feed:
            pass
    after = feed.stats()
    return after.bytes - before.bytes, after.frame_bytes - before.frame_bytes, time.perf_counter() - began


def read(compression, selector):
    with open_feed(compression, selector) as feed:
        digest = digest_of(feed)
        stats = feed.stats()
        return {"digest": digest, "came": stats.frame_bytes / stats.bytes}


def run(compression, selector):
    """Megabytes a second, and the share of them that came, after a while."""
    with open_feed(compression, selector) as feed:
        read_passes(feed, MEASURING_S)
        delivered, came, seconds = read_passes(feed, RUN_S)
    return {"MB a second": delivered / seconds / 1e6, "came": came / delivered}


def main():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2, include_dashboard=False)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    here = ray.get_runtime_context().get_node_id()
    away = {"ray.io/node-id": f"!{here}"}
    try:
        found = {name: read(name, away) for name in ("zstd", "auto")}
        found |= {"not compressed": read(None, away), "here": read("zstd", {"ray.io/node-id": here})}
        with rayfeed.Feed(Halves(), 0) as feed:
            found["wanted"] = digest_of(feed)
    finally:
        ray.shutdown()
        cluster.shutdown()
    sys.stdout.write(json.dumps(found) + "\n")


def main_on_host():
    """On a host of a cluster that is there, with producers on others."""
    ray.init(logging_level="ERROR", log_to_driver=False)
    away = {"ray.io/node-id": f"!{ray.get_runtime_context().get_node_id()}"}
    found = {"auto": run("auto", away), "not compressed": run(None, away)}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    (main_on_host if sys.argv[1:] == ["on-host"] else main)()
