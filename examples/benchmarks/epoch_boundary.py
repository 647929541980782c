"""Does the trainer wait between two epochs?

Method: a Sequence whose batches take 4 ms to make, by two producers, with `on_epoch_end` overridden (it shuffles an
index array in place), and a validation Sequence of 10 steps; epochs of 60 steps, on a trainer that is warm. What is
compared is the time from an epoch's begin to the end of its first batch with the median of the time between the ends of
two batches. Keras' own fit on the same source as PyDataset(workers=2, use_multiprocessing=True) stands beside it, with
fewer epochs. They take turns, three rounds.

    python examples/benchmarks/epoch_boundary.py

Report (2026-11-23, 2 cores, Ray 2.60, Keras 3.15 on TensorFlow 2.21; medians of three rounds, milliseconds):

                                         rayfeed     pool
    a step                                  3.44     3.98
    an epoch's first step, median           3.61    3,665
    an epoch's first step, longest          6.11    3,691

    the median first step, of the median step      1.05 (0.92 to 1.18), wanted 1.2
    the longest first step, of the median step     1.71 (1.55 to 1.97), wanted 1.2

The longest of seven boundaries takes 2.7 ms more than a step.
"""

import contextlib
import itertools
import statistics
import time
from typing import Any

from common import Target, finish, ratios
from loaders import NUM_WORKERS, Shuffled, Turns

import rayfeed

EPOCHS = {"rayfeed": 8, "pool": 3}  # Keras' pool is started anew for each, which takes seconds
STEPS = 60
VALIDATION_STEPS = 10
ROUNDS = 3
NAMES = ("rayfeed", "pool")


def open_contender(name):
    """What takes a contender's turns; runs in its process."""
    import keras

    class Clock(keras.callbacks.Callback):
        """When each epoch began, and when each of its batches ended."""

        def __init__(self):
            super().__init__()
            self.begins, self.ends = [], []

        def on_epoch_begin(self, epoch, logs=None):
            self.begins.append(time.perf_counter())
            self.ends.append([])

        def on_train_batch_end(self, batch, logs=None):
            self.ends[-1].append(time.perf_counter())

    keras.utils.set_random_seed(0)
    model: Any = keras.Sequential(
        [keras.Input((Shuffled.FEATURES,)), keras.layers.Dense(512), keras.layers.Dense(512), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    source, validation = Shuffled(STEPS), Shuffled(VALIDATION_STEPS)
    if name == "rayfeed":
        trainer = rayfeed.Trainer(model)

        def fit(clock, epochs):
            trainer.fit_generator(
                source,
                epochs=epochs,
                verbose=0,
                callbacks=[clock],
                validation_data=validation,
                workers=NUM_WORKERS,
                use_multiprocessing=True,
            )
    else:
        from keras_dataset import Dataset

        options = {"workers": NUM_WORKERS, "use_multiprocessing": True, "max_queue_size": 10}

        def fit(clock, epochs):
            data, held_out = Dataset(source, **options), Dataset(validation, **options)
            model.fit(data, epochs=epochs, verbose=0, callbacks=[clock], validation_data=held_out)

    fit(Clock(), 2)

    def take_turn():
        clock = Clock()
        fit(clock, EPOCHS[name])
        step = statistics.median(later - earlier for ends in clock.ends for earlier, later in itertools.pairwise(ends))
        firsts = [ends[0] - begin for begin, ends in zip(clock.begins, clock.ends, strict=True)][1:]
        return step * 1e3, statistics.median(firsts) * 1e3, max(firsts) * 1e3

    return take_turn


def main():
    kinds = ("a step", "an epoch's first step, median", "an epoch's first step, longest")
    rows = {kind: {name: [] for name in NAMES} for kind in kinds}
    with contextlib.ExitStack() as stack:
        turns = {name: stack.enter_context(Turns(open_contender, name)) for name in NAMES}
        for _ in range(ROUNDS):
            for name in NAMES:
                for kind, found in zip(kinds, turns[name].take(), strict=True):
                    rows[kind][name].append(found)
    step, first, longest = (rows[kind] for kind in kinds)
    targets = [
        Target(
            "the median first step of epochs 2 to 8, of the median step",
            ratios(first["rayfeed"], step["rayfeed"]),
            1.2,
            at_least=False,
        ),
        Target(
            "the longest first step of epochs 2 to 8, of the median step",
            ratios(longest["rayfeed"], step["rayfeed"]),
            1.2,
            at_least=False,
        ),
    ]
    finish("epoch_boundary", rows, targets, unit="milliseconds", log=True)


if __name__ == "__main__":
    main()
