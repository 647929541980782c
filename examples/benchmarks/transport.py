"""How many batches a second reach a consumer, from two processes that have them at hand?

Method: `loaders.py` has the contenders. Each opens its loader for every case; then they take turns, three rounds: 0.7 s
that do not count, which empty its queue, and 1.5 s in which it hands over batches to a consumer that reads one byte of
every page; each turn begins on an idle machine. `queue` is `max_queue_size`, or what comes next to it. Ratios are to
the best of Keras' process pool, torch's DataLoader, Grain and Ray Data in the same round; the ring is no library but
the limit: the time of the copies and nothing else.

    python examples/benchmarks/transport.py

Report (2026-11-23, 2 cores, Ray 2.60, Keras 3.15, torch 2.13, Grain 0.2.18; medians of three rounds):

    batches a second     rayfeed     keras     torch     grain  ray data      ring    of the best peer, wanted
    4 KB, queue 10         2,736     3,960       482     1,463       886    92,454    0.63 (0.54 to 0.70), 1
    4 KB, queue 1000      31,715     5,706       317     2,523       611    56,539    5.68 (5.12 to 5.90), 10
    600 KB, queue 10         988       519       313       625       598    23,117    1.52 (1.44 to 1.67), 2
    600 KB, queue 64       2,782       600       333       735       666    27,531    3.38 (3.00 to 3.92), 3.5
    4.8 MB, queue 10         394      78.5       134       176       163     2,298    2.19 (2.06 to 2.33), 1.6
    4.8 MB, queue 64         534      68.5       157       220       127     2,656    2.42 (2.19 to 2.90), 2
    19 MB, queue 10          166      20.9      57.1      55.3      31.6       681    2.80 (2.47 to 3.53), 2
    19 MB, queue 64          187      17.7      51.7      63.2      41.4       658    2.50 (2.17 to 2.66), 2

The machine was slower than two hours before, when the same command gave 5,960 batches a second in the first line and
210 in the last; the ratios were 0.79, 5.66, 1.38, 3.44, 2.00, 2.67, 3.01 and 2.32.

Four are not met; `frame_cost.py` has the profile. With the default queue a frame holds 6 batches, half of what may be
outstanding, and Ray's own work for a call bounds their number: with nobody beside them, bare Ray calls with the same
bytes make 1,793 frames a second at 4 KB and rayfeed 1,105; at 600 KB, 439 and 352. With the wide queue it is the
batches themselves: all in all 12 us each in the producer, where it is made, checked and copied, and 6 in the reading
thread.

A turn begins when the processors rest. Without that, the loader before filled its queue at the cost of the next one's
turn: 19 MB with a queue of 64 then seemed unsteady, 18 to 96 batches a second in half of the rounds.
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
