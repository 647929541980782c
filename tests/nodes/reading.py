"""Reads one pass on a host, and waits at named batches until it is told to go on; run by `test_hosts`.

Each line it prints is JSON: at each stop the number of batches that were read and the hosts of the producers, at the
end what was found. It goes on when it reads a line, or, where that says so, when no producer is left on the first of
the others' hosts.
"""

import json
import sys
import time

import ray

import rayfeed
from tests.nodes.scenes import LENGTH, SIZE, WORKERS, Slow
from tests.sources import number_of

MOVED_S = 30.0


def tell(**found):
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def wait_until_moved(feed, address):
    """Return when no producer is on this host any more, and all are there."""
    deadline = time.monotonic() + MOVED_S
    while address in (nodes := [process.node for process in feed.processes()]) or len(nodes) < WORKERS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the producers are on {nodes}")
        time.sleep(0.05)  # polls what another thread is told


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
                before = sorted(process.node for process in feed.processes())
                tell(read=len(numbers), hosts=before)
                if "when they have moved" in sys.stdin.readline():
                    wait_until_moved(feed, min(set(before) - {ray.util.get_node_ip_address()}))
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
