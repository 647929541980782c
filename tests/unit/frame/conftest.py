"""A stand-in for Ray's object store: what `ray.put` and `ray.get` do to a frame's buffers."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from rayfeed.frame import Frame


def _ship(frame: Frame, *, skew: int = 0) -> tuple[Frame, int, list[int]]:
    """Pickle a frame and load it on read-only memory laid out as Ray's serialization.pxi does.

    Buffers of at least 2,048 bytes begin at a multiple of 64 bytes, smaller ones at one of 8 that is none of 64.
    `skew` moves all of them. Returns the frame, the size of the in-band part, and of each buffer.
    """
    buffers: list[pickle.PickleBuffer] = []
    in_band = pickle.dumps(frame, protocol=5, buffer_callback=buffers.append)
    sizes = [buffer.raw().nbytes for buffer in buffers]
    store = np.empty(sum(size + 256 for size in sizes) + 64, np.uint8)
    views, position = [], -store.ctypes.data % 64
    for buffer, size in zip(buffers, sizes, strict=True):
        start = position + skew + (0 if size >= 2048 else 8)
        store[start : start + size] = np.frombuffer(buffer.raw(), np.uint8)
        view = store[start : start + size]
        view.flags.writeable = False
        views.append(view)
        position += -(-(size + 128) // 64) * 64
    return pickle.loads(in_band, buffers=views), len(in_band), sizes


@pytest.fixture(scope="session")
def ship() -> Callable[..., tuple[Frame, int, list[int]]]:
    return _ship
