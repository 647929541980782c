"""What does a large Sequence cost that changes after each pass: memory of its producers, and the pause between passes?

A Sequence holds an array that never changes (with ``--changing``, it does) and an index array that `on_epoch_end`
shuffles in place. Several processes make its batches; the consumer does nothing with them, so that every pause is ours.

    PYTHONPATH=. python examples/benchmarks/versions.py --megabytes 200 --workers 4

It prints the seconds until the first batch; the pauses from the last batch of a pass to the first of the next; the
memory that producers have for themselves, and their share of what several processes have (PSS); the object store's use.
The table of the runs is in the docstring of `rayfeed/queue/versions.py`.
"""

import argparse
import logging
import os
import statistics
import time
from pathlib import Path

import numpy as np
import ray

import rayfeed


class Large(rayfeed.Sequence):
    def __init__(self, num_bytes, changing):
        self.inputs = np.random.default_rng(0).random((num_bytes // 4096, 1024), dtype="float32")
        self.order = np.arange(len(self.inputs))
        self.changing = changing

    def __len__(self):
        return 40

    def __getitem__(self, index):
        rows = self.order[32 * index : 32 * index + 32]
        return self.inputs[rows], np.full(len(rows), os.getpid())

    def on_epoch_end(self):
        np.random.shuffle(self.order)
        if self.changing:
            self.inputs += 1


def memory_mb(process):
    """What a process has for itself, and its share of all it has."""
    lines = [line.split() for line in (process / "smaps_rollup").read_text().splitlines()[1:]]
    sizes = {words[0]: int(words[1]) / 1024 for words in lines}
    return sizes["Private_Clean:"] + sizes["Private_Dirty:"], sizes["Pss:"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--passes", type=int, default=6)
    parser.add_argument("--changing", action="store_true")
    arguments = parser.parse_args()
    ray.init(
        address="local",
        num_cpus=arguments.workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=3 << 30,
    )
    started = time.perf_counter()
    source = Large(arguments.megabytes << 20, arguments.changing)
    with rayfeed.Feed(source, arguments.workers, use_multiprocessing=True) as feed:
        pauses, last, producers = [], None, set()
        for _ in range(arguments.passes):
            for place, (_, pids) in enumerate(feed):
                producers.add(pids[0])
                now = time.perf_counter()
                if place == 0:
                    pauses.append(now - (last or started))
                last = now
        first, *pauses = pauses
        print(f"first batch after {first:.2f} s")
        print(f"pauses {', '.join(f'{pause:.3f}' for pause in pauses)} s, median {statistics.median(pauses):.3f} s")
        time.sleep(2)  # the store frees what is not wanted once a second
        sizes = [memory_mb(Path(f"/proc/{pid}")) for pid in producers]
        private, shares = (sum(column) for column in zip(*sizes, strict=True))
        print(f"{len(sizes)} producers: {private:.0f} MB of their own, {shares:.0f} MB with their shares")
        print(f"this process: {memory_mb(Path('/proc/self'))[0]:.0f} MB of its own")
        used = ray.cluster_resources()["object_store_memory"] - ray.available_resources()["object_store_memory"]
        print(f"object store: {used / 2**20:.0f} MB")
    ray.shutdown()


if __name__ == "__main__":
    main()
