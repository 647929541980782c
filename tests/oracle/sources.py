"""Sources of the oracle tests, in a module that imports no framework: producers load it in a moment."""

import math
import os
import threading

import numpy as np

import rayfeed


class Rows:
    """Ten features and two classes; the last batch is short. No base class: the methods make a Sequence."""

    def __init__(self, num_rows=76, batch_size=8, seed=0, weights=False, dtype="float32"):
        rng = np.random.default_rng(seed)
        self.x = rng.normal(size=(num_rows, 10)).astype(dtype)
        self.y = (self.x.sum(axis=1) > 0).astype("int64")
        self.w = rng.uniform(0.5, 2, size=num_rows).astype("float32") if weights else None
        self.batch_size = batch_size

    def __len__(self):
        return math.ceil(len(self.x) / self.batch_size)

    def __getitem__(self, index):
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        if self.w is None:
            return self.x[rows], self.y[rows]
        return self.x[rows], self.y[rows], self.w[rows]


class Numbers(rayfeed.Sequence):
    """Batch i holds the number i; remembers nothing, so any copy will do."""

    def __init__(self, length, path=None):
        self.length = length
        self.passes = 0
        self.path = path

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return np.full((2, 1), 100 * self.passes + index, "float32"), np.zeros((2, 1), "float32")


class Growing(Numbers):
    """One batch more in each pass."""

    def on_epoch_end(self):
        self.passes += 1
        self.length += 1


def count(start=0, stop=1 << 30):
    for number in range(start, stop):
        yield np.full((2, 1), number, "float32"), np.zeros((2, 1), "float32")


class Logged(Numbers):
    def on_epoch_end(self):
        self.passes += 1
        with open(self.path, "a") as file:  # noqa: PTH123
            file.write(f"{self.passes}\n")


class OwnError(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"code {code}: {detail}")
        self.code = code


class Failing(Rows):
    def __getitem__(self, index):
        if index == 4:
            raise OwnError(17, detail="bad row")
        return super().__getitem__(index)


class FailingLater(Numbers):
    """Raises in the second pass, or in the hook before it."""

    def __init__(self, length, where):
        super().__init__(length)
        self.where = where

    def __getitem__(self, index):
        if self.where == "batch" and self.passes == 1:
            raise OwnError(5, detail="second pass")
        return super().__getitem__(index)

    def on_epoch_end(self):
        self.passes += 1
        if self.where == "hook":
            raise OwnError(5, detail="hook")


class OutOfRange(Numbers):
    """Raises the error by which TensorFlow tells itself that data ended."""

    def __getitem__(self, index):
        if index == 1:
            import tensorflow as tf

            raise tf.errors.OutOfRangeError(None, None, "the user's own")
        return super().__getitem__(index)


class TwoOutputs(rayfeed.Sequence):
    """Two outputs of two and three classes; the last batch is short.

    Args:
        targets: "list" or "dict": how targets come.
        weights: None, "array" (one for both outputs), "list" or "dict".
        one_hot: Whether targets are one-hot rows.
    """

    def __init__(self, targets="dict", weights=None, one_hot=False):
        rng = np.random.default_rng(2)
        self.x = rng.normal(size=(44, 6)).astype("float32")
        self.y = {"left": rng.integers(2, size=44), "right": rng.integers(3, size=44)}
        self.w = {name: rng.uniform(0.5, 2, 44).astype("float32") for name in self.y}
        self.targets = targets
        self.weights = weights
        self.one_hot = one_hot

    def __len__(self):
        return 6

    def labels(self, index):
        return [labels[8 * index : 8 * (index + 1)] for labels in self.y.values()]

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * (index + 1))
        y = {name: labels[rows] for name, labels in self.y.items()}
        if self.one_hot:
            y = {name: np.eye(2 if name == "left" else 3, dtype="float32")[labels] for name, labels in y.items()}
        w = {name: weights[rows] for name, weights in self.w.items()}
        y = y if self.targets == "dict" else list(y.values())
        if self.weights is None:
            return self.x[rows], y
        return self.x[rows], y, {"array": w["left"], "list": list(w.values()), "dict": w}[self.weights]


class Named(rayfeed.Sequence):
    """Two inputs by name, two outputs in a list, weights for each output where asked; the last batch is short.

    Args:
        num_rows: Samples.
        seed: Of its numbers.
        weights: Whether there are sample weights.
        listed: Whether inputs come in a list instead, for one output.
    """

    def __init__(self, num_rows, seed=0, weights=False, listed=False):
        rng = np.random.default_rng(seed)
        self.x = {"one": rng.normal(size=(num_rows, 4)), "two": rng.normal(size=(num_rows, 6))}
        self.x = {name: array.astype("float32") for name, array in self.x.items()}
        self.y = [rng.normal(size=(num_rows, width)).astype("float32") for width in (1, 2)]
        self.w = [rng.uniform(0.5, 2, num_rows).astype("float32") for _ in self.y] if weights else None
        self.listed = listed

    def __len__(self):
        return math.ceil(len(self.y[0]) / 8)

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * (index + 1))
        if self.listed:
            return [array[rows] for array in self.x.values()], self.y[0][rows]
        x = {name: array[rows] for name, array in self.x.items()}
        y = [array[rows] for array in self.y]
        return (x, y) if self.w is None else (x, y, [array[rows] for array in self.w])

    def arrays(self):
        return (self.x, self.y) if self.w is None else (self.x, self.y, self.w)


class Telling(Numbers):
    """Notes the processes that make its batches, and those that unpickle it."""

    def __init__(self, length, log):
        super().__init__(length)
        self.log = log

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.log.add("opened", os.getpid())

    def __getitem__(self, index):
        self.log.add("made", os.getpid())
        return super().__getitem__(index)


class Changing(Telling):
    """Has another state after each pass."""

    def on_epoch_end(self):
        self.passes += 1


class Blocks(Numbers):
    """Its second batch never comes."""

    def __getitem__(self, index):
        if index == 1:
            threading.Event().wait()
        return super().__getitem__(index)


class Hooked:
    """A Sequence that takes down its passes' ends."""

    def __init__(self, rows, path):
        self.rows = rows
        self.path = path

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def on_epoch_end(self):
        with self.path.open("a") as file:
            file.write("end\n")


class Odd(rayfeed.Sequence):
    """Arrays whose length is no multiple of the alignment, so that careless slices would lie askew."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return np.full((3, 7), index, "float32"), np.full((3, 1), index, "float32")


def generated(source):
    """The passes of a source one after the other, as one stream."""
    while True:
        yield from (source[index] for index in range(len(source)))


def hangs_after(stop):
    yield from count(0, stop)
    threading.Event().wait()


class Noisy(Rows):
    """Five batches; draws for each batch, and after each pass changes its order and has one batch more."""

    def __init__(self, **options):
        super().__init__(**options)
        self.length = 5
        self.order = np.arange(len(self.x) // 8)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        x, y = super().__getitem__(self.order[index])
        return x + rayfeed.rng().normal(size=x.shape).astype("float32"), y

    def on_epoch_end(self):
        rayfeed.rng().shuffle(self.order)
        self.length += 1


class Drawing(Noisy):
    """The same, drawing from NumPy's global stream too."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + np.random.normal(size=x.shape).astype("float32"), y  # noqa: NPY002 - what users' sources do


class Announced(Noisy):
    """Noisy, where a hook runs before each pass too."""

    def on_epoch_begin(self):
        self.order = np.roll(self.order, 1)


def noise():
    """Random batches without end; they follow from the seed."""
    while True:
        x = rayfeed.rng().normal(size=(8, 10)).astype("float32")
        yield x, (x.sum(axis=1) > 0).astype("int64")
