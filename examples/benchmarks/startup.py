"""How long is the way from opening a feed to its first batch, and how much memory does a producer need?

Method: Ray runs already, and has as many idle processes as it keeps on this machine: one per CPU, brought up by a round
of tasks before each turn. `rayfeed` opens a Feed of eight workers whose source imports nothing and makes a batch at
once, and waits for the first batch, then for one of each producer. `ray` creates as many bare actors, none with a CPU
claim, and waits for their first answers: what Ray itself takes. Contenders take turns, three rounds.

Memory: of eight producers that made small batches, and of bare actors that answered one call, read from
/proc/PID/smaps_rollup while they live. `RSS` counts all pages that a process has touched, `PSS` divides those that
several share, `USS` counts those that it has alone; what a producer needs is its median minus the bare actors' median.

    python examples/benchmarks/startup.py

Report (2026-11-23, 2 cores, Ray 2.60; medians of three rounds):

    seconds          rayfeed                   bare Ray
    first of 8       2.25 (2.03 to 2.30)       1.89 (1.82 to 1.91)     wanted 3
    all 8            2.76 (2.74 to 2.92)       2.38 (2.18 to 2.40)
    one alone                                  0.51 (0.50 to 0.53)

    MB of a process  rayfeed    bare Ray
    RSS                  132         125        6.1 more, wanted 40
    PSS                 66.7        63.0
    USS                 61.3        57.9

Eight processes start on two cores at once: four fifths of the time is what bare Ray takes for them.
"""

import logging
import os
import re
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from common import Target, finish

import rayfeed

NUM_WORKERS = 8
FIRST_S = 3.0  # wanted
MEMORY_MB = 40.0  # wanted
ROUNDS = 3
TIMEOUT_S = 60.0
WARM_S = 0.2  # a task that keeps its process busy long enough for all of them to be up
BATCHES = 50  # of each producer, at least, before its memory is read
KINDS = {"RSS": ("Rss",), "PSS": ("Pss",), "USS": ("Private_Clean", "Private_Dirty")}


class Instant(rayfeed.Sequence):
    """Batches that cost nothing and tell which process made them."""

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        return np.full((32, 10), os.getpid()), np.zeros((32, 1))


class Bare:
    """An actor with nothing in it."""

    def pid(self):
        return os.getpid()


def is_alive(pid):
    return Path(f"/proc/{pid}").exists()


def warm_up(ended):
    """Let Ray have its idle processes again, and the processes of the turn before be gone."""
    deadline = time.monotonic() + TIMEOUT_S

    @ray.remote(num_cpus=1)
    def rest():
        time.sleep(WARM_S)

    while any(is_alive(pid) for pid in ended):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of actors that ended are still there: {ended}")
        time.sleep(0.02)
    ray.get([rest.remote() for _ in range(int(ray.cluster_resources()["CPU"]))])


def memory_mb(pid):
    """The kinds of memory of a process, in MB."""
    kilobytes = dict(re.findall(r"(?m)^(\w+): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text()))
    return {kind: sum(int(kilobytes[name]) for name in names) / 1000 for kind, names in KINDS.items()}


def median_mb(pids):
    found = [memory_mb(pid) for pid in pids]
    return {kind: statistics.median(mb[kind] for mb in found) for kind in KINDS}


def start_feed():
    """Seconds to the first batch and to one of each producer, the producers' memory, and their processes."""
    started = time.perf_counter()
    with rayfeed.Feed(
        Instant(), NUM_WORKERS, use_multiprocessing=True, producers=rayfeed.ProducerOptions(num_cpus=0)
    ) as feed:
        counts, times = {}, []
        for x, _ in feed:
            pid = int(x[0, 0])
            if pid not in counts:
                times.append(time.perf_counter() - started)
            counts[pid] = counts.get(pid, 0) + 1
            if len(counts) == NUM_WORKERS and min(counts.values()) >= BATCHES:
                break
            if time.perf_counter() - started > TIMEOUT_S:
                raise TimeoutError(f"no {BATCHES} batches of each of {NUM_WORKERS} producers: {counts}")
            if len(counts) < NUM_WORKERS:
                time.sleep(0.001)  # as a consumer that does something: the CPUs are for those that start
        return times[0], times[-1], median_mb(counts), list(counts)


def start_actors(number):
    """The same of bare actors."""
    started = time.perf_counter()
    actors: list[Any] = [ray.remote(num_cpus=0)(Bare).remote() for _ in range(number)]
    waiting, pids, times = [actor.pid.remote() for actor in actors], [], []
    while waiting:
        done, waiting = ray.wait(waiting)
        pids.extend(ray.get(done))
        times.append(time.perf_counter() - started)
    found = median_mb(pids)
    for actor in actors:
        ray.kill(actor)
    return times[0], times[-1], found, pids


def main():
    ray.init(address="local", include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
    first, every, one = f"first of {NUM_WORKERS}", f"all {NUM_WORKERS}", "one alone"
    seconds = {first: {"rayfeed": [], "ray": []}, every: {"rayfeed": [], "ray": []}, one: {"ray": []}}
    memory = {kind: {"rayfeed": [], "ray": []} for kind in KINDS}
    ended = []
    for _ in range(ROUNDS):
        warm_up(ended)
        first_s, _, _, ended = start_actors(1)
        seconds[one]["ray"].append(first_s)
        for name in ("rayfeed", "ray"):
            warm_up(ended)
            first_s, every_s, found, ended = start_feed() if name == "rayfeed" else start_actors(NUM_WORKERS)
            seconds[first][name].append(first_s)
            seconds[every][name].append(every_s)
            for kind in KINDS:
                memory[kind][name].append(found[kind])
        print({case: {name: round(row[name][-1], 2) for name in row} for case, row in seconds.items()}, flush=True)
    targets = [
        Target(f"first batch of {NUM_WORKERS} workers", seconds[first]["rayfeed"], FIRST_S, at_least=False, unit=" s")
    ]
    finish("startup", seconds, targets, unit="seconds")
    more = {kind: [ours - bare for ours, bare in zip(*memory[kind].values(), strict=True)] for kind in KINDS}
    wanted = Target("a producer's RSS beyond a bare actor's", more["RSS"], MEMORY_MB, at_least=False, unit=" MB")
    finish("producer_memory", memory, [wanted], unit="MB of a process")
    ray.shutdown()


if __name__ == "__main__":
    main()
