"""Where does the time of a frame go?

Method: two producers that have their batches at hand, a consumer that reads one byte of every page, four seconds after
one that does not count. CPU time is read from /proc, for each thread of the consumer's process and for each other
process of Ray, and divided by the frames that came. `bare Ray` does no more than Ray must: two actors that return the
same bytes, made beforehand, one call of each under way, and a consumer that takes each answer by a callback and asks
for the next.

    python examples/benchmarks/frame_cost.py

Report (2026-11-23, 2 cores, Ray 2.60; microseconds of CPU per frame, medians of three rounds):

                                        4 KB, queue 10       4 KB, queue 1000     600 KB, queue 10
                                      rayfeed  bare Ray     rayfeed  bare Ray    rayfeed  bare Ray
    batches in a frame                      6                   252                    6
    frames a second                     1,105     1,793         251       501        352       439
    consumer: the reading thread           84       159       1,466       258        166       306
    consumer: rayfeed's thread            253         -         397         -        360         -
    consumer: Ray's thread                255       192         701       461        677       505
    consumer: others                       87        84         365       303        352       319
    raylet                                  9         6       1,144       933      1,080       985
    producers                             600       396       2,975     1,238      1,989     1,589

Letting a consumer that waits handle events itself, without rayfeed's thread, made no difference: the work is the same,
and waking a thread is the least of it.
"""

import contextlib
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from common import finish
from loaders import NUM_WORKERS, Ready, touch

import rayfeed
from rayfeed.producer.cluster import ensure_ray

CASES = {"4 KB, queue 10": (4_096, 10), "4 KB, queue 1000": (4_096, 1000), "600 KB, queue 10": (602_112, 10)}
WARM_S = 1.0
TURN_S = 4.0
ROUNDS = 3
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
NAMES = {
    "MainThread": "consumer: the reading thread",
    "rayfeed-conductor": "consumer: rayfeed's thread",
    "worker.io": "consumer: Ray's thread, with callbacks",
}


def threads():
    """CPU seconds of this process' threads, by what they are, each with its number."""
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            name = known.get(int(task.name)) or (task / "comm").read_text().strip()
            kind = NAMES.get(name, "consumer: others")
            found[kind, task.name] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return found


def processes():
    """The same of the producers, or bare actors, and of the raylets."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name, fields = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            kind = "producers" if name.startswith(("ray::Producer", "ray::Bare")) else name
            if kind in ("producers", "raylet"):
                user, system = fields.split()[11:13]
                found[kind, stat.parent.name] = (int(user) + int(system)) * TICK_S
    return found


def measure(take, count):
    """Frames a second, and microseconds of CPU per frame by who spent them; `count` tells the frames so far."""
    started = time.perf_counter()
    while time.perf_counter() - started < WARM_S:
        take()
    frames, before, started = count(), threads() | processes(), time.perf_counter()
    while time.perf_counter() - started < TURN_S:
        take()
    passed, after = time.perf_counter() - started, threads() | processes()
    frames = count() - frames
    spent = {}
    for (kind, number), seconds in after.items():
        more = (seconds - before.get((kind, number), 0.0)) / frames * 1e6
        spent[kind] = spent.get(kind, 0.0) + more
    return frames / passed, spent


class Bare:
    """Returns the same bytes, or the same array where bytes would be copied."""

    def __init__(self, num_bytes):
        self.answer = os.urandom(num_bytes) if num_bytes < 100_000 else np.ones(num_bytes, np.uint8)

    def make(self, ticket):
        return self.answer


def measure_bare(num_bytes):
    settings: dict[str, Any] = {"num_cpus": 0, "enable_task_events": False}
    decorate: Any = ray.remote(**settings)
    actors = [decorate(Bare).remote(num_bytes) for _ in range(NUM_WORKERS)]
    answers, count = queue.SimpleQueue(), 0

    def ask(actor):
        actor.make.remote(b"a ticket").future().add_done_callback(lambda answer: answers.put((actor, answer)))

    def take():
        nonlocal count
        actor, answer = answers.get(timeout=30)
        touch(np.frombuffer(answer.result(), np.uint8))
        ask(actor)
        count += 1

    for actor in actors:
        ask(actor)
    found = measure(take, lambda: count)
    for _ in actors:
        answers.get(timeout=30)
    for actor in actors:
        ray.kill(actor)
    return found


def measure_feed(num_bytes, queue_size):
    with rayfeed.Feed(Ready(num_bytes), NUM_WORKERS, use_multiprocessing=True, max_queue_size=queue_size) as feed:
        batches = (x for x, _ in feed)
        found = measure(lambda: touch(next(batches)), lambda: feed.stats().frames)
        stats = feed.stats()
        return found, stats.batches / stats.frames, stats.bytes // stats.frames


def main():
    ensure_ray()
    costs = {f"{case}: {who}": {} for case in CASES for who in ("rayfeed", "bare Ray")}
    rates = {case: {"rayfeed": [], "bare Ray": []} for case in CASES}
    for _ in range(ROUNDS):
        for case, (num_bytes, queue_size) in CASES.items():
            ours, num_batches, frame_bytes = measure_feed(num_bytes, queue_size)
            print(f"{case}: {num_batches:.1f} batches and {frame_bytes:,} bytes a frame", flush=True)
            for who, (rate, cost) in (("rayfeed", ours), ("bare Ray", measure_bare(frame_bytes))):
                rates[case][who].append(rate)
                for kind, microseconds in cost.items():
                    costs[f"{case}: {who}"].setdefault(kind, []).append(microseconds)
    finish("frame_rate", rates, [], unit="frames a second", log=True)
    finish("frame_cost", costs, [], unit="microseconds of CPU per frame", log=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
