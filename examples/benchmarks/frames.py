"""From which size do a frame's arrays keep their own memory, instead of being laid end to end?

Method: one producer actor encodes float32 batches out of 64 MB, about 8 MB a frame; three calls are in flight; this
process decodes each frame and reads every batch. For each size both layouts take turns, three rounds of 1.5 s; the
middle one counts.

    python examples/benchmarks/frames.py

The table of the run is in the docstring of `rayfeed/frame/codec.py`; `INLINE_BYTES` is where its rows cross.
"""

import statistics
import time
from collections import deque
from typing import Any

import numpy as np
import ray

from rayfeed.batch import flatten
from rayfeed.frame import codec
from rayfeed.frame.schema import FrameSchema

SIZES_KB = (4, 16, 64, 96, 128, 256, 600, 4800)
FRAME_BYTES = 8_000_000
LAYOUTS = {"own": 40_000, "joined": 1 << 40}  # the targets' 256 bytes are joined in both
ROUNDS = 3
ROUND_S = 1.5
IN_FLIGHT = 3


@ray.remote(num_cpus=1)
class Producer:
    def __init__(self, num_batches, num_bytes):
        memory = np.random.rand(64 * 2**20 // 8).view("float32")
        length = num_bytes // 4
        places = [i * length % (len(memory) - length + 1) for i in range(64)]
        self.inputs = [memory[place : place + length].reshape(32, -1) for place in places]
        self.targets = np.arange(32)
        self.num_batches = num_batches
        self.made = 0
        structure, arrays = flatten((self.inputs[0], self.targets), where="benchmark")
        self.schema = FrameSchema.of(structure, arrays)

    def make(self, inline_bytes):
        codec.INLINE_BYTES = inline_bytes
        flats = []
        for _ in range(self.num_batches):
            flats.append([self.inputs[self.made % 64], self.targets])
            self.made += 1
        return codec.encode(flats, self.schema)


def batches_per_second(producer, num_batches, inline_bytes):
    calls = deque(producer.make.remote(inline_bytes) for _ in range(IN_FLIGHT))
    count, started = 0, None
    while started is None or time.perf_counter() - started < ROUND_S:
        reader = codec.decode(ray.get(calls.popleft()))
        calls.append(producer.make.remote(inline_bytes))
        for place in range(num_batches):
            inputs, _ = reader.batch(place)
            count += 0 if started is None else int(inputs[0, 0] < 2)
        started = started or time.perf_counter()  # the first frame pays for pages nobody touched before
    seconds = time.perf_counter() - started
    ray.get(list(calls))
    return count / seconds


def main():
    ray.init(include_dashboard=False, num_cpus=2, _system_config={"free_objects_period_milliseconds": 0})
    for size_kb in SIZES_KB:
        num_batches = max(2, min(250, FRAME_BYTES // (size_kb * 1024)))
        producer: Any = Producer.remote(num_batches, size_kb * 1024)
        rates = {name: [] for name in LAYOUTS}
        for _ in range(ROUNDS):
            for name, inline_bytes in LAYOUTS.items():
                rates[name].append(batches_per_second(producer, num_batches, inline_bytes))
        middle = ", ".join(
            f"{name} {statistics.median(found):8,.0f} ({min(found):,.0f} to {max(found):,.0f})"
            for name, found in rates.items()
        )
        print(f"{size_kb:>5} KB, {num_batches:>3} a frame, batches a second: {middle}", flush=True)
        ray.kill(producer)


if __name__ == "__main__":
    main()
