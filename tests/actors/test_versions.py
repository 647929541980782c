"""C7 with large sources: every producer has what the hook left, only what changed travels, and one node has it once."""

import os
from pathlib import Path

import numpy as np
import pytest

import rayfeed
from rayfeed.producer.node_memory import SHARED_BYTES
from tests.conftest import producer_pids, store_bytes, wait_until
from tests.sources import batch, number_of, numbers_of

MB = 1 << 20
LARGE_BYTES = 48 * MB

WORKERS = [
    pytest.param(1, False, id="1-thread"),
    pytest.param(3, False, id="3-threads"),
    pytest.param(1, True, id="1-process"),
    pytest.param(3, True, id="3-processes"),
]


class Changing(rayfeed.Sequence):
    """Its batches tell all of its state; each pass ends with another kind of change, in place or not.

    Args:
        size: Numbers of the large arrays.
    """

    def __init__(self, size=SHARED_BYTES // 8):
        self.fixed = np.arange(size)
        self.edited = np.arange(size) * 2
        self.order = np.arange(20)
        self.same = self.order
        self.shards = {"first": [np.full(20_000, shard) for shard in range(5)]}
        self.random = np.random.default_rng(3)
        self.passes = 0

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        place = self.order[index]
        assert self.same is self.order
        self.fixed[place] += 0  # private memory: also where nothing was written before
        shards = [int(shard[index]) for shard in self.shards["first"]]
        told = (self.passes, place, self.fixed[place], self.edited[1000 + place], self.edited[-1], *shards)
        return np.array([told], "int64"), np.array([self.passes])

    def on_epoch_end(self):
        self.random.shuffle(self.order)
        self.passes += 1
        match self.passes % 4:
            case 0:
                self.edited[1000:1010] += 1
            case 1:
                self.random.shuffle(self.shards["first"])
            case 2:
                self.edited = self.edited.copy()
                self.shards["first"][2] = np.full(20_000, 100 * self.passes)
            case 3:
                self.edited[-1] = self.passes
                self.shards["first"].append(self.shards["first"].pop(0))


def told(batches):
    return [inputs.tolist() for inputs, _ in batches]


def plain(sequence, num_passes):
    passes = []
    for _ in range(num_passes):
        passes.append(told(sequence[index] for index in range(len(sequence))))
        sequence.on_epoch_end()
    return passes


@pytest.mark.parametrize(("workers", "use_multiprocessing"), WORKERS)
def test_every_pass_has_the_state_of_a_plain_loop(workers, use_multiprocessing):
    expected = plain(Changing(), 6)
    with rayfeed.Feed(Changing(), workers, use_multiprocessing, max_queue_size=4) as feed:
        assert [told(feed) for _ in range(6)] == expected


class Large(rayfeed.Sequence):
    """An array that never changes, and a small one that does.

    Args:
        num_bytes: Of the large one.
    """

    def __init__(self, num_bytes=LARGE_BYTES):
        self.inputs = np.arange(num_bytes // 8)
        self.order = np.arange(16)

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        return batch(self.inputs[1000:][self.order[index]])

    def on_epoch_end(self):
        self.order = self.order[::-1].copy()


def stored(feed):
    """The objects of the source in the store: of the version in use, and of its parcels."""
    conductor, state = feed._stream._conductor, feed._stream._state
    payload = conductor.crew.fetch(state.source_ref)
    return payload, [parcel.key for parcel in payload.parcels]


def test_a_version_of_a_large_source_is_some_kilobytes_in_the_store():
    before = store_bytes()
    with rayfeed.Feed(Large(), 2, use_multiprocessing=True, max_queue_size=2) as feed:
        numbers_of(feed)
        _, parcels = stored(feed)
        assert len(parcels) == 1
        for _ in range(4):
            numbers_of(feed)
            payload, now = stored(feed)
            assert now == parcels
            assert len(payload.stream) + sum(piece.nbytes for piece in payload.own) < 10_000
        wait_until(lambda: store_bytes() - before < LARGE_BYTES + MB, lambda: f"{store_bytes() - before} bytes")


def memory_mb(pid):
    """What a process has for itself."""
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words[0] in ("Private_Clean:", "Private_Dirty:")) / 1024


def memory_files():
    """Memory files of rayfeed's that any process of this session has open."""
    found = set()
    for pid in (os.getpid(), *producer_pids()):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                path = str(link.readlink())
            except OSError:
                continue
            if "memfd:rayfeed" in path:
                found.add(path)
    return found


def test_producers_of_a_node_have_a_large_array_once():
    sums = []
    for num_bytes in (MB, LARGE_BYTES):
        with rayfeed.Feed(Large(num_bytes), 3, use_multiprocessing=True, max_queue_size=2) as feed:
            for _ in range(3):
                numbers_of(feed)
            wait_until(lambda: len(producer_pids()) == 3, "the producers do not start")
            numbers_of(feed)
            sums.append(sum(memory_mb(pid) for pid in producer_pids()))
            assert len(memory_files()) == (num_bytes > MB)
    assert sums[1] - sums[0] < LARGE_BYTES / MB, "three copies would take three times that"
    wait_until(lambda: not memory_files(), lambda: f"{memory_files()} are left")


def test_nothing_is_left_in_any_folder_for_shared_memory():
    before = {path for folder in ("/dev/shm", "/tmp") for path in Path(folder).iterdir()}  # noqa: S108 - looked at only
    with rayfeed.Feed(Large(), 2, use_multiprocessing=True) as feed:
        numbers_of(feed)
        numbers_of(feed)
        now = {path for folder in ("/dev/shm", "/tmp") for path in Path(folder).iterdir()}  # noqa: S108 - as above
    assert not {path for path in now - before if "rayfeed" in path.name}


class Caching(Large):
    """Producers keep what they made in their copy; the hook empties it, on the canonical copy, where it is empty."""

    def __init__(self):
        super().__init__()
        self.cache = {}
        self.passes = 0

    def __getitem__(self, index):
        self.cache.setdefault("pass", len(self.cache))
        self.inputs[:10] += 1
        return batch(self.inputs[0] if self.inputs[0] < 17 else -1)

    def on_epoch_end(self):
        self.cache.clear()


def test_a_hook_that_changes_nothing_still_undoes_what_a_producer_did_to_its_copy():
    """Contract C7: the hook's effects are seen, those on what only the producer has included."""
    with rayfeed.Feed(Caching(), 1, use_multiprocessing=True) as feed:
        _, parcels = stored(feed)
        for _ in range(3):
            assert numbers_of(feed) == list(range(1, 17))
        assert stored(feed)[1] == parcels


def test_the_next_pass_is_asked_for_while_the_last_batches_still_wait():
    with rayfeed.Feed(Large(), 2, use_multiprocessing=True, max_queue_size=64) as feed:
        reader = iter(feed)
        next(reader)
        wait_until(lambda: feed._stream._state.window.pass_index > 0, "the next pass does not begin")
        assert len(list(reader)) == 15


@pytest.mark.filterwarnings("ignore:Producers . and . made the same batches")
def test_a_generators_large_closure_is_on_a_node_once_too():
    table = np.arange(LARGE_BYTES // 8)

    def batches():
        rayfeed.get_worker_info()
        for place in range(8):
            table[place] += 0
            yield batch(table[place])

    with rayfeed.Feed(batches, 2, use_multiprocessing=True, max_queue_size=2) as feed:
        reader = iter(feed)
        assert [number_of(next(reader)) for _ in range(4)] == [0, 0, 1, 1]
        assert len(memory_files()) == 1
        assert numbers_of(reader) == [place for place in range(2, 8) for _ in range(2)]
    wait_until(lambda: not memory_files(), lambda: f"{memory_files()} are left")
