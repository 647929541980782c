"""Reads one pass on a host, and waits at named batches until it is told to go on; run by `test_hosts`.

Each line it prints is JSON: at each stop the number of batches that were read and the hosts of the producers, at the
end what was found. It goes on when it reads a line.
"""

import json
import sys
import time

import ray

import rayfeed
from tests.nodes.scenes import LENGTH, SIZE, WORKERS, Slow
from tests.sources import number_of


def tell(**found):
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main(*stops):
    ray.init(logging_level="ERROR", log_to_driver=False)
    options = rayfeed.ProducerOptions(num_cpus=1)
    numbers, gaps = [], []
    with rayfeed.Feed(Slow(LENGTH, size=SIZE), WORKERS, use_multiprocessing=True, producers=options) as feed:
        asked = time.perf_counter()
        for batch in feed:
            gaps.append(time.perf_counter() - asked)
            numbers.append(number_of(batch))
            if len(numbers) in stops:
                tell(read=len(numbers), hosts=sorted(process.node for process in feed.processes()))
                sys.stdin.readline()
            asked = time.perf_counter()
        stats = feed.stats()
        tell(
            in_order=numbers == list(range(LENGTH)),
            longest_gap=max(gaps[1:]),
            hosts=sorted(process.node for process in feed.processes()),
            lost=stats.lost_producers,
            remade=stats.remade_tickets,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
