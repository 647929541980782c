"""Parcels lie once on a node, are private to each process that maps them, and leave nothing behind."""

import contextlib
import errno
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest

from rayfeed.producer import node_memory
from rayfeed.producer.node_memory import SHARED_BYTES, private_pieces
from tests.conftest import wait_until

SIZES = [SHARED_BYTES, 70_001]
DEADLINE_S = 30.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shares memory on Linux only")


@pytest.fixture
def key():
    """A parcel's key; fails a test that leaves its memory behind."""
    key = uuid.uuid4().hex
    yield key
    assert node_memory._found(f"rayfeed-{key}", sum(SIZES)) is None
    assert open_files(key) == []


def open_files(key):
    """Of which open files of this process the name has the key in it."""
    return [path for path in links() if key in path]


def links():
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            found.append(str(link.readlink()))
    return found


def pieces(value=1):
    return [np.full(size, value, np.uint8) for size in SIZES]


def forbidden():
    pytest.fail("the parcel was fetched again")


def content(buffers):
    return [set(np.unique(np.frombuffer(buffer, np.uint8)).tolist()) for buffer in buffers]


def test_a_parcel_is_fetched_once_and_each_loading_is_private_and_writable(key):
    one = private_pieces(key, SIZES, pieces)
    other = private_pieces(key, SIZES, forbidden)
    np.frombuffer(one[0], np.uint8)[:] = 7
    third = private_pieces(key, SIZES, forbidden)
    assert content(one) == [{7}, {1}]
    assert content(other) == content(third) == [{1}, {1}]
    assert [len(buffer) for buffer in one] == SIZES
    del one, other, third


def test_every_piece_begins_at_an_address_that_suits_every_type(key):
    sizes = [3, 65_537, SHARED_BYTES, 1]
    found = private_pieces(key, sizes, lambda: [np.full(size, size % 251, np.uint8) for size in sizes])
    assert [np.frombuffer(one, np.uint8).__array_interface__["data"][0] % 64 for one in found] == [0] * 4
    assert content(found) == [{size % 251} for size in sizes]
    del found


def test_the_memory_lives_as_long_as_anything_in_it(key):
    first, second = private_pieces(key, SIZES, pieces)
    array = np.frombuffer(second, np.uint8)
    del first, second
    assert open_files(key)
    assert array.sum() == SIZES[1]
    del array
    assert not open_files(key)


def test_small_parcels_are_plain_copies(key):
    source = [np.ones(100, np.uint8)]
    (found,) = private_pieces(key, [100], lambda: source)
    np.frombuffer(found, np.uint8)[:] = 2
    assert source[0].sum() == 100
    assert not open_files(key)


def test_another_process_finds_it_and_what_either_writes_stays_its_own(key):
    def other(pipe):
        found = private_pieces(key, SIZES, forbidden)
        array = np.frombuffer(found[0], np.uint8)
        array[:100] = 9
        pipe.send("written")
        pipe.recv()
        pipe.send(content([array]))

    found = private_pieces(key, SIZES, pieces)
    with forked(other) as (_, pipe):
        assert heard(pipe) == "written"
        mine = np.frombuffer(found[0], np.uint8)
        assert mine.max() == 1
        mine[-1] = 5
        pipe.send("look")
        assert heard(pipe) == [{9, 1}]
    del found, mine


def test_what_nobody_wrote_to_is_no_processs_own(key):
    def other(pipe):
        before = private_kb()
        found = private_pieces(key, [64 << 20], forbidden)
        total = int(np.frombuffer(found[0], np.uint64).sum())
        pipe.send((total, private_kb() - before))

    found = private_pieces(key, [64 << 20], lambda: [np.zeros(64 << 20, np.uint8)])
    assert np.frombuffer(found[0], np.uint64).sum() == 0  # what only one process has looked at counts as its own
    with forked(other) as (_, pipe):
        total, grown_kb = heard(pipe)
    assert total == 0
    assert grown_kb < 8 << 10
    del found


def private_kb():
    """What this process has for itself."""
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words[0] in ("Private_Clean:", "Private_Dirty:"))


@contextlib.contextmanager
def forked(function):
    """A child of this process that runs a function; both have an end of a pipe, which ends with either."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def run():
        here.close()
        with contextlib.suppress(EOFError):
            function(there)

    process = context.Process(target=run)
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        here.close()
        process.join(DEADLINE_S)
        process.kill()
        process.join()


def heard(pipe):
    assert pipe.poll(DEADLINE_S)
    return pipe.recv()


def test_who_comes_while_another_fills_waits_for_it(key):
    begun, go_on, results = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        assert go_on.wait(DEADLINE_S)
        return pieces()

    threads = [threading.Thread(target=lambda: results.append(private_pieces(key, SIZES, slow)))]
    threads[0].start()
    assert begun.wait(DEADLINE_S)
    for _ in range(3):
        threads.append(threading.Thread(target=lambda: results.append(private_pieces(key, SIZES, forbidden))))
        threads[-1].start()
    assert results == []
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert [content(found) for found in results] == [[{1}, {1}]] * 4
    results.clear()


def test_when_the_filler_is_killed_another_takes_its_place(key):
    def fills_for_ever(pipe):
        def fetch():
            pipe.send("filling")
            pipe.recv()
            return pieces()

        private_pieces(key, SIZES, fetch)

    with forked(fills_for_ever) as (process, pipe):
        assert heard(pipe) == "filling"
        results = []
        thread = threading.Thread(target=lambda: results.append(private_pieces(key, SIZES, lambda: pieces(2))))
        thread.start()
        os.kill(process.pid, signal.SIGKILL)
        thread.join(DEADLINE_S)
        assert content(results.pop()) == [{2}, {2}]


def test_after_the_fillers_death_its_memory_serves_who_has_it_and_who_comes_later(key):
    def fills(pipe):
        found = private_pieces(key, SIZES, lambda: pieces(3))
        pipe.send(len(found))
        pipe.recv()

    with forked(fills) as (process, pipe):
        assert heard(pipe) == 2
        one = private_pieces(key, SIZES, forbidden)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        other = private_pieces(key, SIZES, forbidden)
    assert content(one) == content(other) == [{3}, {3}]
    del one, other


def test_an_error_while_it_is_fetched_is_the_callers_and_the_next_one_may_try(key):
    def lost():
        raise LookupError("the parcel is lost")

    with pytest.raises(LookupError):
        private_pieces(key, SIZES, lost)
    found = private_pieces(key, SIZES, pieces)
    assert content(found) == [{1}, {1}]
    del found


@pytest.mark.parametrize("failing", ["memfd_create", "pwrite", "mmap", "platform"])
def test_where_memory_cannot_be_shared_everyone_has_a_copy(failing, key, monkeypatch):
    def refuses(*arguments, **options):
        raise OSError(errno.ENOSPC, "no room")

    if failing == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
    elif failing == "mmap":
        monkeypatch.setattr(node_memory.mmap, "mmap", refuses)
    else:
        monkeypatch.setattr(os, failing, refuses)
    found = private_pieces(key, SIZES, pieces)
    np.frombuffer(found[0], np.uint8)[:] = 2
    assert content(found) == [{2}, {1}]


def test_a_door_that_nobody_opens_costs_a_copy_and_no_hang(key, monkeypatch):
    monkeypatch.setattr(node_memory, "FILL_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"\0rayfeed-{key}")
        door.listen()
        found = private_pieces(key, SIZES, pieces)
    assert content(found) == [{1}, {1}]
    assert not open_files(key)


def test_a_file_that_is_not_whole_is_not_taken(key):
    """As one whose filler was stopped: it is not sealed, or has another length."""
    name = f"rayfeed-{key}"
    unsealed = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.truncate(unsealed, node_memory._layout(SIZES)[1])
    found = private_pieces(key, SIZES, pieces)
    os.close(unsealed)
    assert content(found) == [{1}, {1}]
    del found


def test_what_is_shared_cannot_be_changed_by_anybody(key):
    found = private_pieces(key, SIZES, pieces)
    file = node_memory._found(f"rayfeed-{key}", node_memory._layout(SIZES)[1])
    writable = os.open(f"/proc/self/fd/{file}", os.O_RDWR)
    for change in (lambda: os.pwrite(writable, b"x", 0), lambda: os.truncate(writable, 0)):
        with pytest.raises(PermissionError):
            change()
    os.close(file)
    os.close(writable)
    del found


def test_a_child_that_was_forked_while_a_parcel_was_filled_keeps_nobody_waiting(key):
    """It has the socket that says that someone fills."""
    with contextlib.ExitStack() as stack:

        def forks():
            stack.enter_context(forked(lambda pipe: pipe.recv()))
            threads[0].start()
            wait_until(lambda: waits(key), "nobody waits")
            return pieces()

        results = []
        threads = [threading.Thread(target=lambda: results.append(private_pieces(key, SIZES, forbidden)))]
        found = private_pieces(key, SIZES, forks)
        threads[0].join(DEADLINE_S)
        results.append(private_pieces(key, SIZES, forbidden))
        assert [content(one) for one in results] == [[{1}, {1}]] * 2
        del found
        results.clear()


def waits(key):
    """Whether someone is connected to the filler's socket, or about to be."""
    return sum(key in line for line in Path("/proc/net/unix").read_text().splitlines()) > 1


def test_a_program_that_is_started_does_not_hold_it(key):
    found = private_pieces(key, SIZES, pieces)
    output = subprocess.run(["/bin/ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False)  # noqa: PLW1510
    assert "->" in output.stdout
    assert key not in output.stdout
    del found
