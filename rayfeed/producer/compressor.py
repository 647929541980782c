"""Whether a producer compresses a frame, and by which codec: what its batches lose in size against what that costs.

A codec that is asked for by name is used where it makes frames smaller. With "auto" the producer compares how long a
byte takes it, which makes one while the one before is on its way:

    as it is      max(make, 1 / link)
    by a codec    max(make + compress, ratio / link)

All four are measured: making and compressing here, with the frames themselves; the link by the consumer's side, which
tells each producer its share of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rayfeed.frame.compression import CODECS, Codec, compress
from rayfeed.frame.layout import Frame
from rayfeed.options import Compression

WORTH = 0.95
"""What of its bytes or its time a frame may keep for a codec to be worth its while."""

RETRY_FRAMES = 64
"""After so many frames a codec that was not used is tried again: batches may have become others."""

NEWEST = 0.25
"""The share of the newest frame in a mean."""


@dataclass
class _Tried:
    """What a codec does to frames: the means of late.

    Attributes:
        ratio: Compressed bytes of a byte.
        byte_s: Seconds for a byte.
        due: Frames until it is tried again.
    """

    ratio: float
    byte_s: float
    due: int = RETRY_FRAMES


class Compressor:
    """Compresses the frames of one producer; several of its threads may call it at once.

    Args:
        asked: What the caller asked for.
        num_threads: Threads of the producer that make frames.
        clock: Seconds.

    Attributes:
        link: Bytes a second of the way to the consumer that this producer may count on; None while not known.
    """

    def __init__(
        self, asked: Compression, num_threads: int = 1, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.link: float | None = None
        self._asked = asked
        self._num_threads = num_threads
        self._clock = clock
        self._candidates: tuple[Codec, ...] = CODECS if asked == "auto" else (asked,)
        self._tried: dict[Codec, _Tried] = {}
        self._make_byte_s: float | None = None

    def pack(self, frame: Frame, make_s: float) -> Frame:
        """The frame, or a compressed one in its place.

        Args:
            frame: As it was laid out.
            make_s: What it took to make its batches and lay them out.
        """
        if not frame.num_bytes:
            return frame
        self._make_byte_s = _mean(self._make_byte_s, make_s / frame.num_bytes)
        codec = self._choose()
        if codec is None:
            return frame
        began = self._clock()
        compressed = compress(frame, codec)
        self._learn(codec, compressed.num_bytes / frame.num_bytes, (self._clock() - began) / frame.num_bytes)
        return compressed if compressed.num_bytes < WORTH * frame.num_bytes else frame

    def _choose(self) -> Codec | None:
        if self._asked == "auto" and self.link is None:
            return None
        for codec in self._candidates:
            tried = self._tried.get(codec)
            if tried is None:
                return codec
            tried.due -= 1
            if tried.due <= 0:
                return codec
        best = min(self._candidates, key=self._byte_s)
        return best if self._byte_s(best) < WORTH * self._byte_s(None) else None

    def _byte_s(self, codec: Codec | None) -> float:
        """Seconds for a byte of batches by this way; where the caller chose, its bytes alone count."""
        tried = self._tried[codec] if codec is not None else _Tried(1.0, 0.0)
        if self.link is None:
            return tried.ratio
        made = ((self._make_byte_s or 0.0) + tried.byte_s) / self._num_threads
        return max(made, tried.ratio / self.link)

    def _learn(self, codec: Codec, ratio: float, byte_s: float) -> None:
        tried = self._tried.get(codec)
        self._tried[codec] = (
            _Tried(ratio, byte_s) if tried is None else _Tried(_mean(tried.ratio, ratio), _mean(tried.byte_s, byte_s))
        )


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else (1 - NEWEST) * before + NEWEST * newest
