"""How many batches a second reach a consumer, from two processes that have them at hand?

Method: `loaders.py` has the contenders. Each opens its loader for every case; then they take turns, three rounds: 0.7 s
that do not count, in which its queue fills, and 1.5 s in which it hands over batches to a consumer that reads one byte
of every page. `queue` is `max_queue_size`, or what comes next to it. Ratios are to the best of Keras' process pool,
torch's DataLoader, Grain and Ray Data in the same round; the ring is no library but the limit: the time of the copies
and nothing else.

    python examples/benchmarks/transport.py
"""

import contextlib
import sys

from common import Target, finish, ratios
from loaders import OPENERS, Turns, open_loader

SIZES = {"4 KB": 4_096, "600 KB": 602_112, "4.8 MB": 4_800_000, "19 MB": 19_200_000}
WIDE = {"4 KB": 1000}
WIDE_OTHERWISE = 64
BOUNDS = {"4 KB": (1.0, 10.0), "600 KB": (2.0, 3.5), "4.8 MB": (1.6, 2.0), "19 MB": (2.0, 2.0)}
PEERS = ("keras", "torch", "grain", "ray data")
ROUNDS = 3
TURN_S = 1.5


def main(names):
    rows = {}
    with contextlib.ExitStack() as stack:
        turns = {name: stack.enter_context(Turns(open_loader, name)) for name in names}
        cases = [
            (f"{size}, queue {queue}", num_bytes, queue)
            for size, num_bytes in SIZES.items()
            for queue in (10, WIDE.get(size, WIDE_OTHERWISE))
        ]
        for case, num_bytes, queue in cases:
            rows[case] = {name: [] for name in names}
            for _ in range(ROUNDS):
                for name in names:
                    rows[case][name].append(turns[name].take(num_bytes, queue, TURN_S))
            print(case, {name: [round(rate) for rate in rates] for name, rates in rows[case].items()}, flush=True)
    bounds = [bound for pair in BOUNDS.values() for bound in pair]
    targets = []
    for (case, row), bound in zip(rows.items(), bounds, strict=True):
        best = [max(rates) for rates in zip(*(row[name] for name in PEERS if name in row), strict=True)]
        if not best or "rayfeed" not in row:
            continue  # some contenders alone, to look at
        targets.append(Target(f"{case}, of the best peer's batches a second", ratios(row["rayfeed"], best), bound))
    finish("transport", rows, targets, unit="batches a second", log=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(OPENERS))
