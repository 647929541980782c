"""Which way from an array in shared memory to a tensor costs least, for each of Keras' backends?

Method: one read-only, 64-byte aligned float32 array per size; each way makes a tensor of it 400 times (40 of the large
ones); the contenders take turns, five rounds, the best round counts. For JAX the whole of a step counts, on the array's
sum: it takes arrays as well as tensors. Backends that are not installed are left out. No Ray.

    python examples/benchmarks/tensors.py

The table of a run is in the docstring of `rayfeed/trainer/adapter.py`, which takes each backend's first way, but for
torch the third: the first two share memory, and a layer that works in place on read-only memory ends the process.
"""

import importlib
import importlib.util
import time
import warnings

import numpy as np
import pyarrow as pa

from rayfeed.trainer.conversion import ALIGNMENT, Alias

SIZES = (4_096, 153_600, 1_228_800, 19_267_584)
ROUNDS = 5
CALLS = 400
LARGE_CALLS = 40


def aligned(num_bytes):
    memory = np.zeros(num_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    array = memory[start : start + num_bytes].view("float32").reshape(8, -1)
    array.flags.writeable = False
    return array


def tensorflow(array):
    tf = importlib.import_module("tensorflow")

    from_dlpack = tf.experimental.dlpack.from_dlpack
    arrow = pa.array(array.reshape(-1))
    return {
        "alias, NumPy's dlpack": lambda: from_dlpack(np.asarray(Alias(array)).__dlpack__()),
        "Arrow's dlpack, reshape": lambda: tf.reshape(from_dlpack(arrow.__dlpack__()), array.shape),
        "convert_to_tensor": lambda: tf.convert_to_tensor(array),
    }


def jax(array):
    jax = importlib.import_module("jax")

    step = jax.jit(lambda x: x.sum())
    return {
        "step on the array": lambda: step(array).block_until_ready(),
        "step on device_put": lambda: step(jax.device_put(array)).block_until_ready(),
        "step on alias, dlpack": lambda: step(jax.numpy.from_dlpack(np.asarray(Alias(array)))).block_until_ready(),
        "step on jnp.array": lambda: step(jax.numpy.array(array)).block_until_ready(),
    }


def torch(array):
    torch = importlib.import_module("torch")

    return {
        "alias, NumPy's dlpack": lambda: torch.from_dlpack(np.asarray(Alias(array))),
        "alias, from_numpy": lambda: torch.from_numpy(np.asarray(Alias(array))),
        "np.array, as_tensor (Keras')": lambda: torch.as_tensor(np.array(array), dtype=torch.float32, device="cpu"),
        "alias, clone": lambda: torch.from_dlpack(np.asarray(Alias(array))).clone(),
        "torch.tensor": lambda: torch.tensor(array),
    }


def main():
    warnings.filterwarnings("ignore", message="Exporting an unversioned DLPack capsule", category=DeprecationWarning)
    for ways in (tensorflow, jax, torch):
        if importlib.util.find_spec(ways.__name__) is None:
            print(f"{ways.__name__} is not installed")
            continue
        for size in SIZES:
            contenders = ways(aligned(size))
            calls = CALLS if size < 10_000_000 else LARGE_CALLS
            best = dict.fromkeys(contenders, float("inf"))
            for _ in range(ROUNDS):
                for name, make in contenders.items():
                    make()
                    started = time.perf_counter()
                    for _ in range(calls):
                        make()
                    best[name] = min(best[name], (time.perf_counter() - started) / calls)
            figures = ", ".join(f"{name} {seconds * 1e6:.0f} us" for name, seconds in best.items())
            print(f"{ways.__name__:>10}, {size:>10,} bytes: {figures}")


if __name__ == "__main__":
    main()
