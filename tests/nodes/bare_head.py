"""Where trainers that claim nothing are, on a cluster whose head has no CPUs; run by `test_nodes.py` in a process of
its own. The other node has 1: too few for a claim to be made.

    python -m tests.nodes.bare_head
"""

import json
import os
import sys

import keras
import numpy as np
import ray
from ray.cluster_utils import Cluster

import rayfeed
from rayfeed import TrainerOptions
from rayfeed.producer.placement import trainer_claim
from rayfeed.trainer.process import TrainerProcess
from tests.oracle.conftest import classifier

NUM_TRAINERS = 6


class Rows(rayfeed.Sequence):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.zeros((4, 10), "float32"), np.zeros(4, "int64")


class Threads(keras.callbacks.Callback):
    """Takes down how many threads OpenMP has in its process."""

    def on_train_begin(self, logs=None):
        self.found = os.environ["OMP_NUM_THREADS"]


def node_of_a_trainer():
    options = TrainerOptions()
    process = TrainerProcess(trainer_claim(options), options)
    process.wait_until_open()
    node_id = ray.get(process.actor.open.remote()).node_id
    process.close()
    return node_id


def main():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    names = {cluster.head_node.node_id: "head", cluster.add_node(num_cpus=1, include_dashboard=False).node_id: "other"}
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    threads = Threads()
    try:
        claimed = str(trainer_claim(TrainerOptions()))
        trainers = [names[node_of_a_trainer()] for _ in range(NUM_TRAINERS)]
        rayfeed.fit_generator(classifier(), Rows(), callbacks=[threads], verbose=0, workers=0)
    finally:
        ray.shutdown()
        cluster.shutdown()
    sys.stdout.write(json.dumps({"claimed": claimed, "trainers": trainers, "threads": threads.found}) + "\n")


if __name__ == "__main__":
    main()
