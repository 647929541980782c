"""Where the trainer and its producers are on a cluster with one GPU; run by `test_nodes.py` in a process of its own.

Ray only counts the GPU, which need not be there: who may see it is told by an environment variable. Where it is not
there, the trainer says so.

    python -m tests.nodes.on_gpu
"""

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
import ray
from ray.cluster_utils import Cluster

import rayfeed
from tests.oracle.conftest import classifier

VISIBLE = "CUDA_VISIBLE_DEVICES"


def place():
    """This process' node, and the GPUs it may see."""
    return ray.get_runtime_context().get_node_id(), os.environ.get(VISIBLE)


class Placed(rayfeed.Sequence):
    """Notes where its batches are made, by files of a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return 8

    def __getitem__(self, index):
        node_id, visible = place()
        (self.folder / f"{node_id} {visible}").touch()
        return np.zeros((4, 10), "float32"), np.zeros(4, "int64")


class Where(keras.callbacks.Callback):
    """Takes down where the model trains."""

    def on_train_begin(self, logs=None):
        self.found = place()


def main():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    names = {cluster.head_node.node_id: "here"}
    names[cluster.add_node(num_cpus=2, include_dashboard=False).node_id] = "left"
    names[cluster.add_node(num_cpus=2, num_gpus=1, include_dashboard=False).node_id] = "gpu"
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    where = Where()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(record=True) as told,
            rayfeed.Trainer(classifier()) as held,
        ):
            warnings.simplefilter("always")
            held.fit_generator(
                Placed(Path(folder)),
                callbacks=[where],
                verbose=0,
                workers=4,
                use_multiprocessing=True,
                producers=rayfeed.ProducerOptions(num_cpus=1),
            )
            made = [path.name.split(" ") for path in Path(folder).iterdir()]
            held.evaluate_generator(Placed(Path(folder)), workers=0)  # in the same process
    finally:
        ray.shutdown()
        cluster.shutdown()
    trainer = names[where.found[0]], where.found[1]
    producers = [(names[node_id], visible) for node_id, visible in made]
    found = {"trainer": trainer, "producers": producers, "told": [str(warning.message) for warning in told]}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
