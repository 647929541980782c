"""Memory that a producer's user code gave back is kept for its next batch.

glibc returns the top of the heap to the kernel when 128 KB of it are free, and takes arrays of more than that from the
kernel one by one; so each batch's arrays lie on pages that were never touched, and the first touch of a page costs more
than all that is written to it. The first limit follows the second, up to 32 MB, once such an array was given back; here
both are set from the start, and the first higher. Other C libraries have no such setting, and are left as they are.
That it works is told by the faults of pages, which tests/unit/producer/test_heap.py counts.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of the settings, in glibc's malloc.h."""

MOST_FROM_HEAP_BYTES = 32 * 1024 * 1024
"""Larger blocks come from the kernel one by one; glibc takes no higher limit."""

KEPT_BYTES = 256 * 1024 * 1024
"""What may stay free at the top of the heap: some batches and what it takes to make them."""


def keep_freed_memory() -> bool:
    """Set both limits for this process; whether its C library has them."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MOST_FROM_HEAP_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
