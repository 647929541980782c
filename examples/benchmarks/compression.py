"""What does it bring to compress frames that cross a gigabit link?

Method: as in `network.py`, three hosts, each with ready batches of 4.8 MB for a fourth, over links of a gigabit. Here
the batches are of three kinds, and the contenders are rayfeed with each of `ProducerOptions.compression`; they take
turns of 8 s, three rounds.

    images    uint8: crops of 224 x 224 of the two photographs that scikit-learn has
    scaled    the same as float32, from 0 to 1
    noise     float32, of a normal distribution: nothing can be saved

All four hosts share this machine's CPUs: a codec has less to work with than it would have on machines of its own. Wants
root and `pip install '.[bench]'`.

    sudo .venv/bin/python examples/benchmarks/compression.py

Report (2026-11-23, 2 cores for all four hosts, Ray 2.60, pyarrow 24; medians of three rounds, in MB of arrays a second;
the share of their bytes that crossed the link):

                 none          lz4         zstd         auto    auto of none
    images  123, 1.00    135, 0.82    156, 0.63    156, 0.63    1.27 (1.26 to 1.33)
    scaled  117, 1.00    201, 0.49    174, 0.38    181, 0.39    1.54 (1.37 to 1.57)
    noise   115, 1.00    120, 1.00    125, 0.92    127, 0.92    1.07 (1.07 to 1.13)

Wanted was 0.95 of what is sent without, whatever the batches are. Of the scaled crops lz4 brings more than zstd, which
is what "auto" takes: it counts what a producer's own CPU does, and here all hosts have the same two, that also carry
what crosses the links.
"""

import contextlib
import functools
import itertools
import json
import logging
import os
import signal
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from common import Target, finish, ratios
from network import LINK, ROUNDS, TURN_S, WORKERS, Reader, hosts, wait_until_idle

import rayfeed

HERE = Path(__file__).resolve()
SIDE = 224
BATCH_BYTES = 4_816_896  # 32 crops of bytes, 8 of floats
QUEUE = 64
STORE_MB = 2_000  # of each host: the queues of all contenders at once
READY = 8  # different batches a producer has at hand
LENGTH = 10_000_000
WARM_S = 8.0  # the link is measured, and the queue emptied
KINDS = ("images", "scaled", "noise")
CODECS = ("none", "lz4", "zstd", "auto")


class Pictures(rayfeed.Sequence):
    """Batches that cost nothing to make. The arrays are made by the process that needs them."""

    def __init__(self, kind):
        self.kind = kind
        self.batches = None

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        if self.batches is None:
            rng = np.random.default_rng(0)
            self.batches = [(make(self.kind, rng), None) for _ in range(READY)]
        return self.batches[index % READY]


def make(kind, rng):
    """One batch of pictures."""
    dtype = np.dtype("uint8" if kind == "images" else "float32")
    shape = (BATCH_BYTES // (SIDE * SIDE * 3 * dtype.itemsize), SIDE, SIDE, 3)
    if kind == "noise":
        return rng.standard_normal(shape, dtype)
    crops = np.stack([crop(rng) for _ in range(shape[0])])
    return crops if kind == "images" else (crops / 255).astype(dtype)


@functools.cache
def photographs():
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def crop(rng):
    image = photographs()[rng.integers(2)]
    top, left = (rng.integers(size - SIDE + 1) for size in image.shape[:2])
    return image[top : top + SIDE, left : left + SIDE]


def read(codec, kind):
    """What runs on host 0: a turn for each line that it reads, answered by a line."""
    import ray

    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    options = rayfeed.ProducerOptions(num_cpus=0.5, compression=None if codec == "none" else codec)
    with rayfeed.Feed(
        Pictures(kind), WORKERS, use_multiprocessing=True, max_queue_size=QUEUE, producers=options
    ) as feed:
        batches = (x for x, _ in feed)
        next(batches)
        print("ready", flush=True)
        warm_s = WARM_S
        for _ in sys.stdin:
            print(json.dumps(take_turn(feed, batches, warm_s)), flush=True)
            warm_s = WARM_S / 2


def take_turn(feed, batches, warm_s):
    """Megabytes of arrays a second, and the share of their bytes that came."""
    started = time.perf_counter()
    while time.perf_counter() - started < warm_s:
        touch(next(batches))
    before, started = feed.stats(), time.perf_counter()
    while time.perf_counter() - started < TURN_S:
        touch(next(batches))
    passed, after = time.perf_counter() - started, feed.stats()
    frames, came = after.frames - before.frames, after.frame_bytes - before.frame_bytes
    delivered = after.bytes - before.bytes
    return delivered / passed / 1e6, came / delivered if frames else 1.0


def touch(array):
    """One byte of every page."""
    array.reshape(-1).view("uint8")[::4096].sum()


def measure(kind):
    """The rounds' megabytes a second of each contender, and the share that came."""
    with contextlib.ExitStack() as stack:
        readers = {}
        for codec in CODECS:
            readers[codec] = Reader(codec, kind, HERE)
            stack.callback(readers[codec].close)
        rows, shares = {codec: [] for codec in CODECS}, {codec: [] for codec in CODECS}
        for codec, reader in itertools.chain.from_iterable([readers.items()] * ROUNDS):
            wait_until_idle()
            speed, share = reader.turn()
            rows[codec].append(speed)
            shares[codec].append(share)
    for codec in CODECS:
        print(f"{kind}, {codec}: {rows[codec]}, of their bytes came {statistics.median(shares[codec]):.2f}", flush=True)
    return rows


def main():
    if os.geteuid() != 0:
        sys.exit("compression.py: hosts are made of namespaces, which only root may make: run it with sudo")
    os.environ["RAYFEED_HOSTS_STORE_MB"] = str(STORE_MB)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the hosts are removed then too
    hosts("up", 1 + WORKERS)
    try:
        hosts("shape", LINK)
        rows = {kind: measure(kind) for kind in KINDS}
    finally:
        hosts("down")
    targets = [
        Target(f"{kind}, auto: of the bytes a second without", ratios(row["auto"], row["none"]), 0.95)
        for kind, row in rows.items()
    ]
    finish("compression", rows, targets, unit="MB a second")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["read", codec, kind]:
            read(codec, kind)
        case _:
            main()
