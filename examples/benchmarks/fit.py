"""What does a training step cost, fed from a cluster, against Keras fed from its own memory?

Method: a dense layer of 8 units on batches of 32 samples, trained for three epochs; the time of a step is the mean over
the epochs after the first, epoch boundaries left out, between the ends of batches. Each contender has a process of its
own and is warm: the model is traced, rayfeed's trainer is up and its producers have the source. They take turns.

    arrays     Keras' fit on arrays in memory, as it comes: shuffled
    tf.data    Keras' fit on a tf.data set over arrays in memory, batched and prefetched
    pool       Keras' fit on PyDataset(workers=2, use_multiprocessing=True); 4.8 MB only, since it takes its time
    rayfeed    Trainer.fit_generator on a Sequence, workers=2, use_multiprocessing=True, max_queue_size=10; and with 100

    python examples/benchmarks/fit.py

Report (2026-11-23, 2 cores, Ray 2.60, Keras 3.15 on TensorFlow 2.21; medians of three rounds):

    microseconds a step     rayfeed  rayfeed, queue 100     arrays    tf.data       pool
    10 features                 878                 838        745        724          -
    600 KB                    1,423                 789        982        943          -
    4.8 MB                    4,720               2,629      3,596      3,228     23,946
    19 MB                     9,143               6,848      6,861      6,318          -

    10 features, of arrays' time     1.18 (0.96 to 1.22), wanted 1       of tf.data's   1.22 (1.07 to 1.22), wanted 1.1
    600 KB, of arrays' time          1.24 (1.19 to 1.86), wanted 1
    19 MB, of arrays' time           1.33 (1.30 to 1.49), wanted 1
    4.8 MB, of the pool's time       0.20 (0.15 to 0.20), wanted 0.4

Arrays in memory cost their training nothing to make; here producers, Ray and TensorFlow's threads share two cores. What
is left of it is `frame_cost.py`'s cost of a frame, 1.3 ms of CPU for 6 small batches and 4.6 ms for 6 of 600 KB,
and at 19 MB, a batch a frame, its copy into the store. With a queue of 100 more batches share a frame, or are there
before the epoch begins: then a step takes 0.8 of the time with arrays at 600 KB, and as long at 19 MB.
"""

import contextlib
import itertools
import statistics
import sys
import time

import numpy as np
from common import Target, finish, ratios
from loaders import NUM_WORKERS, ROWS, Pairs, Turns

import rayfeed

FEATURES = {"10 features": 10, "600 KB": 4_704, "4.8 MB": 37_632, "19 MB": 150_528}
STEPS = {"10 features": 300, "600 KB": 200, "4.8 MB": 50, "19 MB": 16}
EPOCHS = 3
ROUNDS = 3


def open_contender(name):
    """What takes a contender's turns; runs in its process."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs = []

        def on_epoch_begin(self, epoch, logs=None):
            self.epochs.append([])

        def on_train_batch_end(self, batch, logs=None):
            self.epochs[-1].append(time.perf_counter())

    state = {}

    def model_of(features):
        if state.get("features") != features:
            if "trainer" in state:
                state.pop("trainer").close()
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((features,)), keras.layers.Dense(8), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
            state.update(features=features, model=model, is_warm=False)
        return state["model"]

    def fit(case, clock):
        features, steps = FEATURES[case], STEPS[case]
        model, source = model_of(features), Pairs(features, steps)
        if name in QUEUES:
            if "trainer" not in state:
                state["trainer"] = rayfeed.Trainer(model)
            trainer = state["trainer"]
            trainer.fit_generator(
                source,
                epochs=EPOCHS,
                verbose=0,
                callbacks=[clock],
                max_queue_size=QUEUES[name],
                workers=NUM_WORKERS,
                use_multiprocessing=True,
            )
            return
        if name == "pool":
            from keras_dataset import Dataset

            dataset = Dataset(source, workers=NUM_WORKERS, use_multiprocessing=True, max_queue_size=10)
            model.fit(dataset, epochs=EPOCHS, verbose=0, callbacks=[clock], shuffle=False)
            return
        pairs = [source[index] for index in range(steps)]
        x, y = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
        if name == "arrays":
            model.fit(x, y, batch_size=ROWS, epochs=EPOCHS, verbose=0, callbacks=[clock])
            return
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(ROWS).prefetch(tf.data.AUTOTUNE)
        model.fit(dataset, epochs=EPOCHS, verbose=0, callbacks=[clock])

    def take_turn(case):
        clock = Clock()
        fit(case, clock)
        if not state["is_warm"]:
            state["is_warm"] = True
            clock = Clock()
            fit(case, clock)
        steps = [later - earlier for ends in clock.epochs[1:] for earlier, later in itertools.pairwise(ends)]
        return statistics.mean(steps) * 1e6

    return take_turn


QUEUES = {"rayfeed": 10, "rayfeed, queue 100": 100}
NAMES = (*QUEUES, "arrays", "tf.data", "pool")
POOL_CASES = ("4.8 MB",)


def main(cases):
    rows = {case: {name: [] for name in NAMES if name != "pool" or case in POOL_CASES} for case in cases}
    with contextlib.ExitStack() as stack:
        turns = {name: stack.enter_context(Turns(open_contender, name)) for name in NAMES}
        for case in cases:
            for _ in range(ROUNDS):
                for name in rows[case]:
                    rows[case][name].append(turns[name].take(case))
            print(case, {name: [round(us) for us in row] for name, row in rows[case].items()}, flush=True)
    bounds = [
        ("10 features", "arrays", 1.0),
        ("600 KB", "arrays", 1.0),
        ("19 MB", "arrays", 1.0),
        ("10 features", "tf.data", 1.1),
        ("4.8 MB", "pool", 0.4),
    ]
    targets = [
        Target(
            f"{case}, a step's time against {peer}",
            ratios(rows[case]["rayfeed"], rows[case][peer]),
            bound,
            at_least=False,
        )
        for case, peer, bound in bounds
        if case in rows
    ]
    finish("fit", rows, targets, unit="microseconds a step", log=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(FEATURES))
