"""Which way from an array in shared memory to a TensorFlow tensor costs least?

Method: one read-only, 64-byte aligned float32 array per size; each way makes a tensor of it 400 times; the contenders
take turns, five rounds, the best round counts. No Ray.

    python examples/benchmarks/tensors.py

The table of the run is in the docstring of `rayfeed/trainer/adapter.py`, which takes the first way.
"""

import time
import warnings

import numpy as np
import pyarrow as pa
import tensorflow as tf

from rayfeed.trainer.conversion import ALIGNMENT, Alias

SIZES = (4_096, 153_600, 1_228_800)
ROUNDS = 5
CALLS = 400


def aligned(num_bytes):
    memory = np.zeros(num_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    array = memory[start : start + num_bytes].view("float32").reshape(8, -1)
    array.flags.writeable = False
    return array


def ways(array):
    from_dlpack = tf.experimental.dlpack.from_dlpack
    arrow = pa.array(array.reshape(-1))
    return {
        "alias, NumPy's dlpack": lambda: from_dlpack(np.asarray(Alias(array)).__dlpack__()),
        "Arrow's dlpack, reshape": lambda: tf.reshape(from_dlpack(arrow.__dlpack__()), array.shape),
        "convert_to_tensor": lambda: tf.convert_to_tensor(array),
    }


def main():
    warnings.filterwarnings("ignore", message="Exporting an unversioned DLPack capsule", category=DeprecationWarning)
    for size in SIZES:
        contenders = ways(aligned(size))
        best = dict.fromkeys(contenders, float("inf"))
        for _ in range(ROUNDS):
            for name, make in contenders.items():
                started = time.perf_counter()
                for _ in range(CALLS):
                    make()
                best[name] = min(best[name], (time.perf_counter() - started) / CALLS)
        print(f"{size:>9} bytes: " + ", ".join(f"{name} {seconds * 1e6:.0f} us" for name, seconds in best.items()))


if __name__ == "__main__":
    main()
