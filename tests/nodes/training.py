"""A training whose trainer is lost together with its node, and producers of its with them; run by `test_nodes.py`.

Apart from `scenes`, which producers import: they need no framework.

    python -m tests.nodes.training
"""

import json
import signal
import sys
import tempfile
import time
import warnings

import keras
from ray._private.state import state

import rayfeed
from tests.nodes.scenes import nodes_of_a_cluster, send
from tests.oracle.conftest import classifier
from tests.oracle.sources import Drawing

RESOURCE = "trainer"
"""What the nodes have on which a trainer may be."""


class LosesItsNode(keras.callbacks.Callback):
    """Loses the trainer's node in the middle of the second epoch, once; takes down how long nothing is trained then."""

    def __init__(self, nodes, lose):
        super().__init__()
        self.nodes = nodes
        self.lose = lose
        self.lost = None
        self.heard_at = self.waited_s = 0.0
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.lost is not None:  # hooks of batches before the loss may still come
            now = time.perf_counter()
            self.waited_s, self.heard_at = max(self.waited_s, now - self.heard_at), now
        elif (self.epoch, batch) == (1, 4):
            free = {name: left.get(RESOURCE) for name, left in state.available_resources_per_node().items()}
            (self.lost,) = [node for node in self.nodes if free.get(node.node_id, 1) != 1]
            self.heard_at = time.perf_counter()
            self.lose(self.lost)


def train(nodes, lose):
    """Train while the trainer's node is lost, and in this process alone; say in what they differ."""
    model = classifier()
    options = {"epochs": 3, "seed": 3, "verbose": 0}
    loses = LosesItsNode(nodes, lose)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ours = rayfeed.fit_generator(
            model,
            Drawing(),
            workers=3,
            use_multiprocessing=True,
            callbacks=[rayfeed.on_driver(loses)],
            trainer=rayfeed.TrainerOptions(
                resources={RESOURCE: 1}, checkpoint_dir=folder, save_every=3, max_failures=1
            ),
            producers=rayfeed.ProducerOptions(num_cpus=1),
            **options,
        )
    theirs = classifier()
    history = rayfeed.fit_generator(theirs, Drawing(), workers=0, trainer="driver", **options)
    return {
        "history": ours.history == history.history,
        "weights": all(
            (one == other).all() for one, other in zip(model.get_weights(), theirs.get_weights(), strict=True)
        ),
        "told": [str(one.message) for one in told if issubclass(one.category, UserWarning)],
        "waited": loses.waited_s,
    }


def main():
    with nodes_of_a_cluster(2, **{RESOURCE: 1}) as nodes:
        found = train(nodes, send(signal.SIGKILL))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
