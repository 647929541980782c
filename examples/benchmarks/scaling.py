"""Do more producers make proportionally more batches?

Method: a source that sleeps 50 ms for each small batch, so that producers need no CPU to speak of, read through
`Feed(workers=w, use_multiprocessing=True)` with the queue's default size. Counting begins when batches of all `w`
producers were seen, and takes 30 batches of each, a whole number of turns. Linear is ``w / 50 ms``. One Ray serves all;
each turn starts its producers anew, which claim no CPU, so that 32 have a place on any machine. Two rounds.

With the rate it prints how much of one core the consumer's process took, and of all cores everything took: where either
is full, the machine bounds the rate and not the queue.

    python examples/benchmarks/scaling.py

Report (2026-11-23, 2 cores, Ray 2.60; medians of the rounds):

    workers                  1       2       4       8      16      32
    batches a second      19.5    39.0    78.1   156     313     595
    of linear             0.98    0.98    0.98    0.98    0.98    0.93
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from common import Target, finish, ratios

import rayfeed

WORKERS = (1, 2, 4, 8, 16, 32)
LEAST = {32: 0.85}  # of linear
LEAST_OTHERWISE = 0.95
MAKE_S = 0.05
PERIODS = 30  # batches of each producer that count
ROUNDS = 2


class Sleeping(rayfeed.Sequence):
    """Batches that tell which process made them, 50 ms each."""

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        time.sleep(MAKE_S)
        return np.full((1, 1), os.getpid()), np.zeros((1, 1))


def busy_s():
    """CPU seconds that all processes of the machine have used."""
    user, nice, system, _idle, _io, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system + sum(rest[:2])) / os.sysconf("SC_CLK_TCK")


def take_turn(workers):
    """Batches a second, cores that this process took, and the share of the machine's cores that all took."""
    options = rayfeed.ProducerOptions(num_cpus=0)
    with rayfeed.Feed(Sleeping(), workers, use_multiprocessing=True, producers=options) as feed:
        seen = set()
        for x, _ in feed:
            seen.add(int(x[0, 0]))
            if len(seen) == workers:
                break
        for _ in feed.take(2 * workers):  # what the last producers' start held up
            pass
        count = PERIODS * workers
        started, own, all_busy = time.perf_counter(), time.process_time(), busy_s()
        for _ in feed.take(count):
            pass
        passed = time.perf_counter() - started
        used = (time.process_time() - own) / passed
        return count / passed, used, (busy_s() - all_busy) / passed / (os.cpu_count() or 1)


def main(numbers):
    rows = {f"{workers}": {"rayfeed": [], "linear": []} for workers in numbers}
    for _ in range(ROUNDS):
        for workers in numbers:
            rate, used, busy = take_turn(workers)
            rows[f"{workers}"]["rayfeed"].append(rate)
            rows[f"{workers}"]["linear"].append(workers / MAKE_S)
            print(
                f"{workers} workers: {rate:.1f} batches a second, {rate * MAKE_S / workers:.1%} of linear; "
                f"the consumer's process {used:.0%} of a core, the machine {busy:.0%} busy",
                flush=True,
            )
    targets = [
        Target(
            f"{workers} workers, of linear",
            ratios(rows[f"{workers}"]["rayfeed"], rows[f"{workers}"]["linear"]),
            LEAST.get(workers, LEAST_OTHERWISE),
        )
        for workers in numbers
    ]
    finish("scaling", rows, targets, unit="batches a second", log=True)


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]] or list(WORKERS))
