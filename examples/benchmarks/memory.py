"""How much of the object store does a feed take, and how much of a core does its control cost?

Store: two producers that have their batches at hand, `max_queue_size=10`, a consumer that reads one byte of every page.
For three seconds after the first batch a thread asks the node every 20 ms how many bytes of the store are in use, which
Ray tells only when it is asked; the peak is set against what is allowed:

    Ray keeps freed objects for 1 s (its default)    (max_queue_size + workers) batches + one second of throughput
    Ray frees at once                                (max_queue_size + workers) batches + one frame

The first part is the queue's bound (contract C13); the frame is the one whose last batch the consumer still has in
hand, of the mean size in `feed.stats()`. Each setting is a process with a Ray of its own, since only the start of a Ray
can set it. Nothing may be spilled, nor be written beside the store. They take turns, three rounds.

Control: a consumer that takes exactly 1,000 batches of 4 KB a second, one each millisecond by the clock, for four
seconds. Its process' CPU time, all threads, minus that of the same loop over ready-made batches in a process that knows
no Ray, is what the feed costs there. Three rounds.

    python examples/benchmarks/memory.py

Report (2026-11-23, 2 cores, Ray 2.60; medians of three rounds):

    MB in the store                              peak    allowed    of what is allowed
    600 KB, Ray keeps freed objects 1 s           358        825    0.43 (0.42 to 0.45)
    600 KB, Ray frees at once                    10.8       10.8    1.01 (1.00 to 1.34)
    4.8 MB, Ray keeps freed objects 1 s         1,944      2,426    0.70 (0.68 to 0.98)
    4.8 MB, Ray frees at once                    90.0       73.5    1.16 (0.84 to 1.22)
    spilled, or beside the store: 0

    1,000 batches a second     ready-made    queue 10    queue 100
    % of a core                       3.8        31.5         18.1    28.1 and 14.7 more, wanted 5

Ray frees "at once" by messages that pass through the raylet: frames that were given up are still counted while the
next ones come. The control cost is that of frames of 6 and of 51 batches, 1.7 and 7.5 ms each: more than that of frames
that come without a pause (`frame_cost.py`). The 0.4 ms that bare Ray takes there for a frame in the consumer's process
would alone be 7 % of a core with the default queue.
"""

import contextlib
import itertools
import logging
import threading
import time
from typing import Any

from common import Target, finish, ratios
from loaders import NUM_WORKERS, Ready, Turns, touch

import rayfeed

SIZES = {"600 KB": 602_112, "4.8 MB": 4_800_000}
QUEUE = 10
FREEING_MS = {"keeps freed objects 1 s": 1000, "frees at once": 0}
STORE_BYTES = 2_000_000_000
SAMPLE_S = 0.02
TURN_S = 3.0
RATE = 1000  # batches a second that the paced consumer takes
PACED_S = 4.0
PACED_WARM_S = 1.0
PACED_BYTES = 4_096
QUEUES = {"queue 10": 10, "queue 100": 100}
MOST_CONTROL = 5.0  # per cent of a core
ROUNDS = 3


class Sampler:
    """Asks this node's store for its bytes in use every 20 ms; a context that ends with the greatest figures."""

    def __init__(self):
        import ray
        from ray._private.grpc_utils import init_grpc_channel
        from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc

        messages: Any = node_manager_pb2  # made when it is imported, as nothing says beforehand
        (node,) = ray.nodes()
        channel = init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
        self.service = node_manager_pb2_grpc.NodeManagerServiceStub(channel)
        self.request = messages.GetNodeStatsRequest(include_memory_info=False)
        self.peak = self.beside = self.samples = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.wait(SAMPLE_S):
            store = self.service.GetNodeStats(self.request, timeout=30).store_stats
            self.samples += 1
            self.peak = max(self.peak, store.object_store_bytes_used)
            self.beside = max(self.beside, store.object_store_bytes_fallback + store.spilled_bytes_total)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join()


def open_store(setting):
    """What takes the turns of one setting: peak, allowed, and spilled or fallback bytes, and batches a second."""
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=False,
        object_store_memory=STORE_BYTES,
        _system_config={"free_objects_period_milliseconds": FREEING_MS[setting]},
    )

    def take_turn(num_bytes):
        with rayfeed.Feed(Ready(num_bytes), NUM_WORKERS, use_multiprocessing=True, max_queue_size=QUEUE) as feed:
            batches = (x for x, _ in feed)
            touch(next(batches))
            before = feed.stats()
            with Sampler() as sampler:
                started = time.perf_counter()
                while time.perf_counter() - started < TURN_S:
                    touch(next(batches))
                passed = time.perf_counter() - started
            after = feed.stats()
        num_batches = after.batches - before.batches
        per_batch = (after.bytes - before.bytes) / num_batches
        allowed = (QUEUE + NUM_WORKERS) * per_batch
        if FREEING_MS[setting]:
            allowed += (after.bytes - before.bytes) / passed * FREEING_MS[setting] / 1000
        else:
            allowed += after.bytes / after.frames
        return sampler.peak, allowed, sampler.beside, num_batches / passed, sampler.samples

    return take_turn


def open_paced(name):
    """What takes the turns of a paced consumer: per cent of a core, and batches a second."""

    def consume(batches, seconds):
        used, started = time.process_time(), time.perf_counter()
        for number in range(int(RATE * seconds)):
            wait_s = started + number / RATE - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            touch(next(batches))
        passed = time.perf_counter() - started
        return 100 * (time.process_time() - used) / passed, RATE * seconds / passed

    @contextlib.contextmanager
    def open_batches():
        if name in QUEUES:
            with rayfeed.Feed(
                Ready(PACED_BYTES), NUM_WORKERS, use_multiprocessing=True, max_queue_size=QUEUES[name]
            ) as feed:
                yield (x for x, _ in feed)
        else:
            source = Ready(PACED_BYTES)
            yield (source[index][0] for index in itertools.count())

    def take_turn():
        with open_batches() as batches:
            consume(batches, PACED_WARM_S)
            return consume(batches, PACED_S)

    return take_turn


def measure_store():
    rows = {f"{size}, Ray {setting}": {"peak": [], "allowed": []} for size in SIZES for setting in FREEING_MS}
    beside = []
    with contextlib.ExitStack() as stack:
        turns = {setting: stack.enter_context(Turns(open_store, setting)) for setting in FREEING_MS}
        for (size, num_bytes), _, setting in itertools.product(SIZES.items(), range(ROUNDS), FREEING_MS):
            case = f"{size}, Ray {setting}"
            peak, allowed, more, rate, samples = turns[setting].take(num_bytes)
            rows[case]["peak"].append(peak / 1e6)
            rows[case]["allowed"].append(allowed / 1e6)
            beside.append(more / 1e6)
            print(
                f"{case}: peak {peak / 1e6:.1f} MB of {allowed / 1e6:.1f} MB in {samples} samples, "
                f"{rate:.0f} batches a second, {more / 1e6:.1f} MB beside the store",
                flush=True,
            )
    targets = [
        Target(f"{case}, peak of what is allowed", ratios(row["peak"], row["allowed"]), 1.0, at_least=False)
        for case, row in rows.items()
    ]
    spilled = Target(
        "spilled or written beside the store, the most of any turn", [max(beside)], 0.0, at_least=False, unit=" MB"
    )
    finish("memory", rows, [*targets, spilled], unit="MB in the store")


def measure_control():
    rows = {"1,000 batches a second": {name: [] for name in ("ready-made", *QUEUES)}}
    (row,) = rows.values()
    with contextlib.ExitStack() as stack:
        turns = {name: stack.enter_context(Turns(open_paced, name)) for name in row}
        for _ in range(ROUNDS):
            for name in row:
                share, rate = turns[name].take()
                row[name].append(share)
                print(f"{name}: {share:.1f} % of a core at {rate:.0f} batches a second", flush=True)
    targets = []
    for name, size in QUEUES.items():
        cost = [ours - bare for ours, bare in zip(row[name], row["ready-made"], strict=True)]
        what = f"{'default ' if size == QUEUE else ''}{name}, a core's share for 1,000 batches a second"
        targets.append(Target(what, cost, MOST_CONTROL, at_least=False, unit=" %"))
    finish("control_cost", rows, targets, unit="% of a core")


if __name__ == "__main__":
    measure_store()
    measure_control()
