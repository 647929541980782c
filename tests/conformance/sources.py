"""Sources of this folder. Producers import this file: it needs no framework."""

import functools
import itertools
import os
import threading
import time
from pathlib import Path

import numpy as np

import rayfeed
from tests.sources import GATE_TIMEOUT_S, POLL_S, Numbered, batch


def numbered(log, stop=1 << 30):
    """A generator that notes what it yields."""
    for number in range(stop):
        log.add(number)
        yield batch(number)


class Resized(Numbered):
    """Passes of three, five and two batches."""

    lengths = (3, 5, 2, 2)

    def __init__(self):
        super().__init__(3)
        self.passes = 0

    def on_epoch_end(self):
        self.passes += 1
        self.length = self.lengths[self.passes]


class Samples(rayfeed.Sequence):
    """Twelve samples in batches of two, grouped anew after each pass."""

    def __init__(self):
        self.order = np.arange(12)
        self.random = np.random.default_rng(1)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        members = self.order[2 * index : 2 * index + 2]
        return np.stack([members, members], axis=1).astype("float32"), members

    def on_epoch_end(self):
        self.random.shuffle(self.order)


class SlowHook(Numbered):
    """Its hook does half of its work, waits, and then does the rest."""

    def __init__(self, log, gate):
        super().__init__(4)
        self.log = log
        self.gate = gate
        self.first = self.second = 0

    def __getitem__(self, index):
        self.log.add("batch", self.first, self.second)
        return batch(100 * self.first + 10 * self.second + index)

    def on_epoch_end(self):
        self.first += 1
        self.gate.wait()
        self.second += 1


def arrays_from_file(path, pid_path):
    """The generator of Keras' documentation; it also says where it runs."""
    Path(pid_path).write_text(str(os.getpid()))
    while True:
        with open(path) as file:  # noqa: PTH123 - as Keras' documentation writes it
            for line in file:
                yield batch(int(line))


def count_to(stop):
    for number in range(stop):
        yield batch(number)


class Regression(rayfeed.Sequence):
    """Rows of four numbers and their sum, in batches of eight; the last is short."""

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.x = random.normal(size=(36, 4)).astype("float32")
        self.y = self.x.sum(axis=1, keepdims=True)

    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * (index + 1))
        return self.x[rows], self.y[rows]


class ThreadsafeIter:
    """The wrapper with a lock that is copied from page to page."""

    def __init__(self, it):
        self.it = it
        self.lock = threading.Lock()

    def __iter__(self):
        return self

    def __next__(self):
        with self.lock:
            return next(self.it)


def locked(function):
    """The decorator that comes with it."""

    @functools.wraps(function)
    def wrapped(*arguments):
        return ThreadsafeIter(function(*arguments))

    return wrapped


class Factory:
    """A callable that is no function; what it returns is an iterable and no iterator."""

    def __call__(self):
        return [batch(number) for number in range(6)]


class Meeting(Numbered):
    """Notes process and thread of each batch, and gives none before so many have met.

    Args:
        length: Batches.
        log: Where places are noted.
        number: Workers that must be at work at once.
    """

    def __init__(self, length, log, number):
        super().__init__(length)
        self.places = log
        self.number = number

    def __getitem__(self, index):
        self.places.add(os.getpid(), threading.get_ident())
        deadline = time.monotonic() + GATE_TIMEOUT_S
        while len(set(self.places.lines())) < self.number:
            if time.monotonic() > deadline:
                raise RuntimeError("the workers do not work at once")
            time.sleep(POLL_S)  # polls a file that other processes write
        return super().__getitem__(index)


def copies():
    """Tells the copies apart: copy k of n makes k, k + n, k + 2 n."""
    info = rayfeed.get_worker_info()
    for number in itertools.count(info.id, info.num_workers):
        yield batch(number)


CLASSES = np.array([0, 1, 2, 1], "int64")
SAMPLE_WEIGHTS = np.array([1, 2, 3, 0], "float32")
INPUTS = np.ones((4, 3), "float32")


class Classes:
    """Twice a batch of four samples, as it is given."""

    def __init__(self, targets, *weights):
        self.batch = (INPUTS, targets, *weights)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.batch


def classes(targets, *weights):
    """The batches of `Classes` from a generator."""
    return (Classes(targets, *weights)[0] for _ in range(100))


def fails_at(number):
    for place in itertools.count():
        if place == number:
            raise KeyError("row 17")
        yield batch(place)


class Slow(Numbered):
    """Takes its time for each batch; the trainer takes none."""

    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)


LEFT, RIGHT = np.array([0, 1, 2, 1], "int64"), np.array([1, 1, 0, 0], "int64")


class Pairs:
    """Targets of two outputs, by their names."""

    def __init__(self, *weights):
        self.weights = weights

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (np.ones((4, 2), "float32"), {"left": LEFT, "right": RIGHT}, *self.weights)


def fail():
    raise KeyError("row 17")


def noise():
    """Its copies ask which they are, and all begin with the same seed."""
    numbers = np.random.default_rng(0)
    rayfeed.get_worker_info()
    while True:
        yield numbers.random((4, 2)), np.zeros(4)


def constant():
    rayfeed.get_worker_info()
    return itertools.repeat(batch(1))
