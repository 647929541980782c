"""How many batches a second reach a consumer, from two processes that have them at hand?

Method: `loaders.py` has the contenders. Each opens its loader for every case; then they take turns, three rounds: 0.7 s
that do not count, in which its queue fills, and 1.5 s in which it hands over batches to a consumer that reads one byte
of every page. `queue` is `max_queue_size`, or what comes next to it. Ratios are to the best of Keras' process pool,
torch's DataLoader, Grain and Ray Data in the same round; the ring is no library but the limit: the time of the copies
and nothing else.

    python examples/benchmarks/transport.py

Report (2026-11-22, 2 cores, Ray 2.60, Keras 3.15, torch 2.13, Grain 0.2.18; medians of three rounds):

    batches a second     rayfeed     keras     torch     grain  ray data      ring    of the best peer, wanted
    4 KB, queue 10         6,086     8,176       745     2,331     1,258   149,156    0.74 (0.71 to 0.84), 1
    4 KB, queue 1000      51,017     9,178       585     2,718     1,196   142,535    5.43 (5.28 to 7.44), 10
    600 KB, queue 10       1,558       917       510       952       851    39,845    1.64 (1.48 to 2.19), 2
    600 KB, queue 64       3,352     1,094       576     1,051     1,022    40,345    3.05 (3.02 to 3.41), 3.5
    4.8 MB, queue 10         631       105       222       256       279     3,829    2.26 (1.88 to 2.36), 1.6
    4.8 MB, queue 64         694        91       179       243       253     2,908    2.61 (2.54 to 2.66), 2
    19 MB, queue 10          211        26        73        73        60       727    2.82 (2.59 to 2.90), 2
    19 MB, queue 64          204        17        36        56        39       632    3.66 (0.97 to 4.17), 2

Where the time goes at 4 KB and the default queue: a frame holds 6 batches, half of what may be outstanding. Some half
of its CPU time is a bare call of a Ray actor; the rest is spread over making, laying out, pickling, checking and
handing over, in threads that wake one another. A frame that goes by the object store costs several times as much,
whatever its size, in the consumer's process and in the raylet: that is the limit at 600 KB, where six batches share it.
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
