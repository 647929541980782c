"""rayfeed and its peers as contenders: each gives one endless stream of the same batches, made by two processes.

Every contender has a process of its own, so that no other's threads and polls disturb it, and opens its loader anew for
each case. A batch is made beforehand: what is measured is its way from the process that has it to the one that wants
it.

    rayfeed    Feed(workers=2, use_multiprocessing=True)
    keras      PyDataset(workers=2, use_multiprocessing=True), read as Keras' own fit reads it
    torch      DataLoader(num_workers=2)
    grain      MapDataset ... mp_prefetch(num_workers=2)
    ray data   map_batches over two tasks, iter_batches
    ring       no library: copies into slots of shared memory, which the consumer reads in place; the limit
"""

import contextlib
import itertools
import multiprocessing
import os
import time
import warnings
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np

import rayfeed

NUM_WORKERS = 2
ROWS = 32  # samples in a batch
READY = 8  # different batches a producer has at hand
LENGTH = 10_000_000  # batches of a pass: more than a turn can take
WARM_S = 0.7  # a turn's begin that does not count: the loader fills its queue, pages are touched
REST_S = 15  # what the contender before may take to come to rest
IDLE_SHARE = 0.9  # of the processors' time: Ray's own processes never rest
LOOK_S = 0.2
END_S = 20  # a contender's end: its loader's processes may be waited for
MAX_RING_SLOTS = 4  # per producer: few pages, used again and again, are the fastest


class Ready(rayfeed.Sequence):
    """Batches that cost nothing to make. The arrays are made by the process that needs them."""

    def __init__(self, num_bytes):
        self.num_bytes = num_bytes
        self.batches = None

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        if self.batches is None:
            shape = (ROWS, self.num_bytes // 4 // ROWS)
            rng = np.random.default_rng(0)
            self.batches = [(rng.random(shape, "float32"), np.arange(ROWS)) for _ in range(READY)]
        return self.batches[index % READY]


class Pairs(rayfeed.Sequence):
    """Batches to train on that cost nothing to make; in this file because the script's own classes do not travel from a
    process that multiprocessing spawned."""

    def __init__(self, features, steps):
        self.features, self.steps = features, steps
        self.batches = None

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        if self.batches is None:
            rng = np.random.default_rng(0)
            self.batches = [
                (rng.random((ROWS, self.features), "float32"), rng.random((ROWS, 1), "float32")) for _ in range(READY)
            ]
        return self.batches[index % READY]


class Shuffled(rayfeed.Sequence):
    """Batches that take a while to make, in an order that each pass changes."""

    FEATURES = 512
    MAKE_S = 0.004

    def __init__(self, steps):
        self.order = np.arange(steps)

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        time.sleep(self.MAKE_S)  # as one that waits for a disk does: it leaves the CPU to the trainer
        rng = np.random.default_rng(int(self.order[index]))
        return rng.random((ROWS, self.FEATURES), "float32"), rng.random((ROWS, 1), "float32")

    def on_epoch_end(self):
        np.random.shuffle(self.order)


def touch(array):
    """Read one byte of every page."""
    return int(np.asarray(array).reshape(-1).view(np.uint8)[::4096].sum())


@contextlib.contextmanager
def open_rayfeed(num_bytes, queue):
    with rayfeed.Feed(Ready(num_bytes), NUM_WORKERS, use_multiprocessing=True, max_queue_size=queue) as feed:
        yield (x for x, _ in feed)


@contextlib.contextmanager
def open_keras(num_bytes, queue):
    from keras.src.trainers.data_adapters.py_dataset_adapter import OrderedEnqueuer
    from keras_dataset import Dataset

    dataset = Dataset(Ready(num_bytes), workers=NUM_WORKERS, use_multiprocessing=True, max_queue_size=queue)
    enqueuer = OrderedEnqueuer(dataset, workers=NUM_WORKERS, use_multiprocessing=True, max_queue_size=queue)
    enqueuer.start()
    try:
        yield (x for x, _ in enqueuer.get())
    finally:
        enqueuer.stop()


@contextlib.contextmanager
def open_torch(num_bytes, queue):
    import torch.utils.data

    loader = torch.utils.data.DataLoader(
        Ready(num_bytes),
        batch_size=None,
        sampler=itertools.cycle(range(READY)),
        num_workers=NUM_WORKERS,
        prefetch_factor=max(queue // NUM_WORKERS, 1),
    )
    iterator = iter(loader)
    try:
        yield (x.numpy() for x, _ in iterator)
    finally:
        iterator._shutdown_workers()


@contextlib.contextmanager
def open_grain(num_bytes, queue):
    import grain

    options = grain.MultiprocessingOptions(num_workers=NUM_WORKERS, per_worker_buffer_size=max(queue // NUM_WORKERS, 1))
    dataset = grain.MapDataset.source(Ready(num_bytes)).to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    )
    iterator = iter(dataset.mp_prefetch(options))
    try:
        yield (x for x, _ in iterator)
    finally:
        iterator.close()


class RayDataBatches:
    def __init__(self, num_bytes):
        self.source = Ready(num_bytes)

    def __call__(self, rows):
        x, y = self.source[int(rows["id"][0])]
        return {"x": x, "y": y}


@contextlib.contextmanager
def open_ray_data(num_bytes, queue):
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    ids = ray.data.range(20_000, override_num_blocks=200)
    made = ids.map_batches(
        RayDataBatches, fn_constructor_args=(num_bytes,), batch_size=1, concurrency=NUM_WORKERS, num_cpus=0.5
    )
    iterator = iter(made.iter_batches(batch_size=ROWS, prefetch_batches=queue))
    try:
        yield (batch["x"] for batch in iterator)
    finally:
        iterator.close()


def fill_ring(name, num_bytes, num_slots, free, full, stop):
    memory = shared_memory.SharedMemory(name)
    slots = np.ndarray((num_slots, num_bytes), np.uint8, memory.buf)
    source = Ready(num_bytes)
    for index in itertools.count():
        free.acquire()
        if stop.is_set():
            break
        slots[index % num_slots] = source[index][0].reshape(-1).view(np.uint8)
        full.release()
    del slots
    memory.close()


@contextlib.contextmanager
def open_ring(num_bytes, queue):
    num_slots = min(max(queue // NUM_WORKERS, 1), MAX_RING_SLOTS)
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    rings = []
    for _ in range(NUM_WORKERS):
        memory = shared_memory.SharedMemory(create=True, size=num_slots * num_bytes)
        free, full = context.Semaphore(num_slots), context.Semaphore(0)
        process = context.Process(target=fill_ring, args=(memory.name, num_bytes, num_slots, free, full, stop))
        process.start()
        slots = np.ndarray((num_slots, num_bytes), np.uint8, memory.buf)
        rings.append((memory, free, full, process, slots))

    def read():
        for index in itertools.count():
            _, free, full, _, slots = rings[index % NUM_WORKERS]
            full.acquire()
            yield slots[index // NUM_WORKERS % num_slots]
            free.release()

    try:
        yield read()
    finally:
        stop.set()
        for memory, free, _, process, slots in rings:
            free.release()
            process.join()
            del slots
            memory.unlink()


OPENERS = {
    "rayfeed": open_rayfeed,
    "keras": open_keras,
    "torch": open_torch,
    "grain": open_grain,
    "ray data": open_ray_data,
    "ring": open_ring,
}


def open_loader(name):
    """What takes a loader's turns, which are its batches a second.

    A loader stays open until another case begins: it fills its queue and rests. Ray Data is opened for each turn: it
    goes on making blocks as long as the store has room, beside others' turns and for more than one of its own.
    """
    state = {"case": None, "stack": contextlib.ExitStack()}

    def take_turn(num_bytes, queue, turn_s):
        if state["case"] != (num_bytes, queue):
            state["stack"].close()
            state["batches"] = state["stack"].enter_context(OPENERS[name](num_bytes, queue))
            state["case"] = (num_bytes, queue)
        batches = state["batches"]
        started = time.perf_counter()
        while time.perf_counter() - started < WARM_S:
            touch(next(batches))
        count, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < turn_s:
            touch(next(batches))
            count += 1
        if name == "ray data":
            state["stack"].close()
            state["case"] = None
        return count / passed

    take_turn.close = state["stack"].close
    return take_turn


def serve(open_contender, name, connection):
    """A contender's process: take turns until told to end."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    take = open_contender(name)
    while (turn := connection.recv()) is not None:
        try:
            connection.send(take(*turn))
        except Exception as error:
            connection.send(RuntimeError(f"{name}: {error!r}"))
            raise
    getattr(take, "close", int)()


def wait_until_idle():
    """Wait until the processors have next to nothing to do: the contender before has filled its queue again, which it
    would otherwise do at the cost of this one's turn. At 19 MB a batch, 64 of which are waited for, that was most of
    the turn."""
    deadline = time.monotonic() + REST_S
    while _idle_share() < IDLE_SHARE:
        if time.monotonic() > deadline:
            warnings.warn(f"the machine is still busy after {REST_S} s: this turn shares it", stacklevel=3)
            break


def _idle_share():
    """The part of all processors' time that was idle in the `LOOK_S` after this was called."""
    before = _processor_times()
    time.sleep(LOOK_S)
    spent = [after - earlier for after, earlier in zip(_processor_times(), before, strict=True)]
    return (spent[3] + spent[4]) / max(sum(spent), 1)  # idle, and idle for a disk's sake


def _processor_times():
    return [int(ticks) for ticks in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]


class Turns:
    """One contender's process, seen from the benchmark.

    `open_contender(name)` runs there, and gives the function that takes a turn. A turn begins on an idle machine.
    """

    def __init__(self, open_contender, name):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(open_contender, name, theirs))
        self.process.start()
        theirs.close()  # so that the end of that process is noticed

    def take(self, *turn):
        wait_until_idle()
        self.connection.send(turn)
        result = self.connection.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.is_alive():
            self.connection.send(None)
            self.process.join(END_S)
        self.process.kill()
