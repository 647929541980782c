"""A user object taken apart for sending: what pickle wrote, and its large pieces beside it.

A piece is a run of at least `PIECE_BYTES` that can be told apart from the rest, remembered, and not sent again where
the other end has its bytes: a contiguous array's memory, which pickle (protocol 5) hands out of its stream; and what
pickle writes to its stream in one go, such as the bytes of an array that is not contiguous, a long string, or 64 KB of
small objects. Pieces are views of the object's own memory where it has them: they change as it does.

    stream  ....|........|...     what is left, small
                ^cuts    ^
    pieces  [stream's] [stream's] [arrays' ...]

An array's memory is handed to the unpickled object as it is, so that the pieces an object is loaded from must be nobody
else's; of the stream's pieces copies are made.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any

import numpy as np

PIECE_BYTES = 1 << 16
"""The least size of a piece. CPython's pickle writes 64 KiB and more in one go, and joins what is smaller."""


@dataclass(frozen=True)
class Packed:
    """A user object taken apart.

    Attributes:
        stream: What pickle wrote, without the stream's pieces.
        cuts: Where in `stream` each of the first pieces was, ascending; the pieces beyond are those of arrays.
        pieces: Each a uint8 array of shape ``(n,)``, ``n >= PIECE_BYTES``; where an object is loaded from them, any
            buffer of bytes.
    """

    stream: bytes
    cuts: tuple[int, ...]
    pieces: Sequence[Any]

    def copied(self) -> Packed:
        """The same with pieces of its own, which can be written to."""
        return Packed(self.stream, self.cuts, [bytearray(piece) for piece in self.pieces])

    def digest(self) -> bytes:
        """Tells it from every other; looks at all of it."""
        whole = hashlib.sha256(repr((len(self.stream), self.cuts, [len(piece) for piece in self.pieces])).encode())
        for part in (self.stream, *self.pieces):
            whole.update(part)
        return whole.digest()


class PackedWriter:
    """Takes what a pickler gives: the file and the ``buffer_callback`` of one ``dump``."""

    def __init__(self) -> None:
        self._rest: list[Any] = []
        self._length = 0
        self._cuts: list[int] = []
        self._of_stream: list[np.ndarray] = []
        self._of_arrays: list[np.ndarray] = []

    def write(self, data: Any) -> None:
        """The pickler's next bytes. What is large is a piece by itself, and is not copied."""
        num_bytes = memoryview(data).nbytes
        if num_bytes >= PIECE_BYTES:
            self._cuts.append(self._length)
            # A bytearray cannot grow while it is looked at: it is copied, so that its owner can go on with it.
            self._of_stream.append(np.frombuffer(data if isinstance(data, bytes) else bytes(data), np.uint8))
        else:
            self._rest.append(data)
            self._length += num_bytes

    def take(self, buffer: PickleBuffer) -> bool:
        """An array's memory; False, as pickle has it, where it was taken out of the stream."""
        try:
            memory = buffer.raw()
        except BufferError:  # not contiguous: only the stream can take it
            return True
        if memory.nbytes < PIECE_BYTES:
            return True
        self._of_arrays.append(np.frombuffer(memory, np.uint8))
        return False

    def packed(self) -> Packed:
        """What was written."""
        return Packed(b"".join(self._rest), tuple(self._cuts), [*self._of_stream, *self._of_arrays])


def reader_of(packed: Packed) -> tuple[io.BufferedReader, list[Any]]:
    """What an unpickler needs: its file and its ``buffers``."""
    num_cuts = len(packed.cuts)
    return io.BufferedReader(_Stream(packed), PIECE_BYTES), list(packed.pieces[num_cuts:])


class _Stream(io.RawIOBase):
    """The stream with its pieces back in their places."""

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        stream = memoryview(packed.stream)
        self._runs: list[memoryview] = []
        start = 0
        for cut, piece in zip(packed.cuts, packed.pieces, strict=False):
            self._runs += [stream[start:cut], memoryview(piece)]
            start = cut
        self._runs.append(stream[start:])
        self._runs.reverse()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)
        while self._runs and not self._runs[-1].nbytes:
            self._runs.pop()
        if not self._runs:
            return 0
        run = self._runs[-1]
        num_bytes = min(run.nbytes, room.nbytes)
        room[:num_bytes] = run[:num_bytes]
        self._runs[-1] = run[num_bytes:]
        return num_bytes
