"""Sources and signals that tests with real producers share. Producers import this file: it needs no test framework."""

import os
import signal
import time
from pathlib import Path

import numpy as np

import rayfeed

GATE_TIMEOUT_S = 60.0
POLL_S = 0.005


class Log:
    """Lines that any process appends and the test reads; the order is that of writing, over all processes."""

    def __init__(self, path):
        self.path = str(path)

    def add(self, *words):
        with open(self.path, "a") as file:  # noqa: PTH123 - one write in append mode is atomic
            file.write(" ".join(str(word) for word in words) + "\n")

    def lines(self):
        return Path(self.path).read_text().splitlines() if Path(self.path).exists() else []

    def numbers(self):
        return [int(line) for line in self.lines()]


class Gate:
    """Shut until some process opens it."""

    def __init__(self, path):
        self.path = str(path)

    def open(self):
        Path(self.path).touch()

    def wait(self):
        deadline = time.monotonic() + GATE_TIMEOUT_S
        while not Path(self.path).exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"nobody opened {self.path}")
            time.sleep(POLL_S)  # polls a file: it may be opened by any process


class Once:
    """True for the first process that asks about a name, false ever after."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __call__(self, name):
        try:
            os.close(os.open(f"{self.folder}/once-{name}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def die():
    """End this process as the kernel's out-of-memory killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


def batch(number, size=4):
    """A batch that tells its number."""
    return np.full((size, 2), number, "float32"), np.full(size, number, "int64")


def number_of(batch):
    """The number of a `batch`, once it is sure that nothing in it is another's."""
    inputs, targets = batch
    (number,) = {*inputs.ravel().tolist(), *targets.tolist()}
    return int(number)


def numbers_of(batches):
    return [number_of(batch) for batch in batches]


class Numbered(rayfeed.Sequence):
    """Batch i tells i.

    Args:
        length: Batches.
        size: Samples of each.
        log: Where each making is noted.
        at: What to do before a batch is made: index -> function.
    """

    def __init__(self, length, *, size=4, log=None, at=None):
        self.length = length
        self.size = size
        self.log = log
        self.at = at or {}

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.at:
            self.at[index]()
        if self.log is not None:
            self.log.add(index)
        return batch(index, self.size)


class Shuffling(rayfeed.Sequence):
    """Shuffles its index array in place after each pass, and notes every batch and hook.

    Args:
        log: "batch PASS PLACE" for each making, "hook PASS PID" for each `on_epoch_end`.
        length: Batches of a pass.
        at: What to do before a batch is made: (pass, place) -> function.
    """

    def __init__(self, log, length=20, at=None):
        self.log = log
        self.indexes = np.arange(length)
        self.random = np.random.default_rng(5)
        self.passes = 0
        self.at = at or {}

    def __len__(self):
        return len(self.indexes)

    def __getitem__(self, place):
        if (self.passes, place) in self.at:
            self.at[self.passes, place]()
        self.log.add("batch", self.passes, place)
        return batch(1000 * self.passes + self.indexes[place])

    def on_epoch_end(self):
        self.log.add("hook", self.passes, os.getpid())
        self.random.shuffle(self.indexes)
        self.passes += 1


def plain_passes(sequence, num_passes):
    """What a plain loop over a Sequence gives: a list of numbers for each pass."""
    passes = []
    for _ in range(num_passes):
        passes.append(numbers_of(sequence[index] for index in range(len(sequence))))
        sequence.on_epoch_end()
    return passes


def is_settled(feed):
    """Whether a feed's producers have nothing left to do until something is consumed."""
    conductor, state = feed._stream._conductor, feed._stream._state
    window = state.window
    if not conductor._events.empty() or len(conductor._pool.working()) < len(conductor._pool._members):
        return False
    being_made = [ticket for ticket in list(window.issued.values()) if not ticket.done]
    return window.outstanding > 0 and not being_made and conductor._events.empty()
