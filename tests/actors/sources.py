"""Sources of this folder. Producers import this file: it needs no framework."""

import os

import numpy as np

import rayfeed
from tests.sources import Numbered, batch


class Both(rayfeed.Sequence):
    """Its batches tell how often each hook had run; the log tells all hooks and batches in their order."""

    def __init__(self, log, length=4):
        self.log = log
        self.length = length
        self.begun = self.ended = 0

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.log.add("batch", self.begun, self.ended)
        return batch(100 * self.begun + 10 * self.ended + index)

    def on_epoch_begin(self):
        self.begun += 1
        self.log.add("begin", self.begun, os.getpid())

    def on_epoch_end(self):
        self.ended += 1
        self.log.add("end", self.ended, os.getpid())


class Grows(Both):
    """Decides its length when a pass begins."""

    def on_epoch_begin(self):
        super().on_epoch_begin()
        self.length = self.begun + 1


class Drawing(rayfeed.Sequence):
    """Draws its numbers when a pass begins."""

    def __len__(self):
        return 3

    def on_epoch_begin(self):
        self.drawn = np.random.randint(1000, size=3)  # noqa: NPY002 - the stream that users use

    def __getitem__(self, index):
        return batch(self.drawn[index])


class Raises(Both):
    def on_epoch_begin(self):
        raise LookupError("no shard for this epoch")


class Empties(Both):
    def on_epoch_begin(self):
        self.length = 0


class Pids(Numbered):
    """Notes the process that makes each batch."""

    def __getitem__(self, index):
        self.log.add(os.getpid())
        return batch(index, self.size)


class BothProcesses(Pids):
    """Makes nothing before a second process was asked for a batch."""

    def __init__(self, length, *, log, gate):
        super().__init__(length, log=log)
        self.gate = gate

    def __getitem__(self, index):
        made = super().__getitem__(index)
        if len(set(self.log.lines())) == 2:
            self.gate.open()
        self.gate.wait()
        return made


class WithHook(Pids):
    def on_epoch_end(self):
        pass


def pids(log):
    while True:
        log.add(os.getpid())
        yield batch(0)
