r"""Large pieces of a source, once per node instead of once per producer, and yet private and writable in each.

The bytes lie in a file without a name (`memfd_create`), which every process of the node maps copy-on-write: the pages
are shared until someone writes to them, and then that process has its own of those. There is nothing to clean up: the
memory goes when the last mapping of it goes, also where processes are killed.

Who needs a parcel looks for it among the open files of this user's processes (``/proc/*/fd``), where it is called by
the parcel's key. Who finds none fills one. Two never do so at once: the filler holds a Unix socket at an abstract
address made of the key; whoever finds that address taken connects to it, and is woken when the filler closes it or
dies. A file counts as found once it is sealed against writing, so that nobody maps one that is half full.

    look --found--> map
      | none
    bind --taken--> connect, wait for its end --> look again
      | mine
    look again, fill, seal --> map

Where this cannot be done (not Linux, no ``/proc``, no memory for it) each process gets a plain copy, as also of parcels
too small to be worth it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if sys.platform == "linux":
    import fcntl

SHARED_BYTES = 4 << 20
"""The least size that is shared: a smaller parcel is copied sooner than it is found among all open files."""

ALIGNMENT = 64
"""Of each piece in the file: a cache line, which suits every dtype and vector instruction."""

FILL_TIMEOUT_S = 300.0
"""How long another process may take to fill a parcel: it may have to fetch it from another node first. Then, a copy."""

WRITE_BYTES = 1 << 30
"""The most that is written at once; the kernel takes no more than 2 GiB."""

BACKLOG = 128
"""Processes that wait for one filler without being asked to come again."""


def private_pieces(key: str, sizes: Sequence[int], fetch: Callable[[], Sequence[Any]]) -> list[Any]:
    """The pieces of a parcel, in memory that this process can write to and no other sees.

    Args:
        key: The parcel's own name; no other has it, in whatever cluster.
        sizes: Bytes of each piece.
        fetch: Gives the pieces; called only where they are not on this node yet.

    Returns:
        One buffer of bytes for each piece.
    """
    starts, num_bytes = _layout(sizes)
    if num_bytes >= SHARED_BYTES and sys.platform == "linux":
        mapping = _mapped(f"rayfeed-{key}", num_bytes, starts, fetch)
        if mapping is not None:
            whole = memoryview(mapping)
            return [whole[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return [bytearray(piece) for piece in fetch()]


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each piece begins, and the length of all."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return starts, end


def _mapped(name: str, num_bytes: int, starts: Sequence[int], fetch: Callable[[], Sequence[Any]]) -> mmap.mmap | None:
    """A mapping of the file of this name; None where there can be none."""
    deadline = time.monotonic() + FILL_TIMEOUT_S
    while time.monotonic() < deadline:
        file = _found(name, num_bytes)
        if file is None:
            turn = _turn(name, deadline)
            if turn is None:
                continue
            try:
                file = _found(name, num_bytes)  # it may have been filled between the look and the turn
                if file is None:
                    file = _filled(name, num_bytes, starts, fetch())
            finally:
                _give_up(turn)
        if file is None:
            return None
        try:
            return mmap.mmap(file, num_bytes, access=mmap.ACCESS_COPY)  # which keeps the file open for others to find
        except OSError:
            return None
        finally:
            os.close(file)
    return None


def _turn(name: str, deadline: float) -> socket.socket | None:
    """The right to fill the file, until it is closed; None after whoever had it gave it up."""
    address = f"\0{name}"
    door = socket.socket(socket.AF_UNIX)
    try:
        door.bind(address)
        door.listen(BACKLOG)
    except OSError:
        with door:
            door.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                door.connect(address)
                door.recv(1)
            except OSError:  # it closed the door, or has not opened it yet
                pass
        return None
    return door


def _give_up(turn: socket.socket) -> None:
    """Wake those who wait, one by one: a child that user code forked meanwhile may have the socket too."""
    with turn, contextlib.suppress(OSError):
        turn.shutdown(socket.SHUT_RDWR)  # nobody else may come
        turn.settimeout(0)
        while True:
            turn.accept()[0].close()


def _found(name: str, num_bytes: int) -> int | None:
    """The file, opened anew from a process that has it, this one included; None where none has it whole."""
    target = f"/memfd:{name} (deleted)"
    user = os.geteuid()
    # This process first: it maps a parcel anew for each version of its source.
    for process in (Path("/proc/self"), *Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):  # it ended meanwhile, or may not be looked into
            if process.stat().st_uid != user:
                continue
            for number in os.listdir(process / "fd"):  # noqa: PTH208 - some thousands: no Path for each
                file = _opened(f"{process}/fd/{number}", target, num_bytes)
                if file is not None:
                    return file
    return None


def _opened(link: str, target: str, num_bytes: int) -> int | None:
    """What a process' open file is, if it is the one that is looked for, and complete."""
    with contextlib.suppress(OSError):  # it was closed meanwhile
        if os.readlink(link) != target:  # noqa: PTH115 - as above
            return None
        file = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
        if fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE and os.fstat(file).st_size == num_bytes:
            return file
        os.close(file)
    return None


def _filled(name: str, num_bytes: int, starts: Sequence[int], pieces: Sequence[Any]) -> int | None:
    """A new file with the pieces in it; None where there is no memory for it, or no such files."""
    try:
        file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None
    try:
        os.truncate(file, num_bytes)
        for start, piece in zip(starts, pieces, strict=True):
            _write(file, start, memoryview(piece))
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        os.close(file)
        return None
    return file


def _write(file: int, start: int, data: memoryview) -> None:
    while data.nbytes:
        written = os.pwrite(file, data[:WRITE_BYTES], start)
        data, start = data[written:], start + written
