"""Where a source runs: whether it is sent away, or stays in the caller's process because it cannot be (contract D3).

A generator or other iterator that cannot travel runs in a thread of the caller's process, with a warning. It is a
`SourceError` with ``use_multiprocessing=True``, which asks for other processes, and with ``workers=0`` and a trainer
actor, which asks for the trainer's. A Sequence that cannot travel always is one.
"""

from __future__ import annotations

import inspect
import os
import warnings
from typing import Any

from rayfeed.errors import SourceError
from rayfeed.options import StreamOptions
from rayfeed.source.packed import Packed
from rayfeed.source.shipping import take_apart
from rayfeed.source.stream import SourceInfo


def pack_or_keep(source: Any, *, name: str, info: SourceInfo, options: StreamOptions) -> Packed | None:
    """The source as it travels, or None where it stays at home; of that the caller is warned.

    Args:
        source: The user's object.
        name: The argument it came by.
        info: What it is.
        options: The caller's arguments.

    Raises:
        SourceError: It cannot travel, and cannot stay either; names the member that cannot, and the way out.
    """
    try:
        return take_apart(source, name=name)
    except SourceError as error:
        if options.is_inline:
            hint = 'With trainer="driver" and workers=0 it runs in this process as it is.'
        elif info.is_sequence:
            raise
        elif options.use_multiprocessing:
            hint = "With use_multiprocessing=False it runs as it is, in a thread of this process."
        else:
            warnings.warn(
                f"rayfeed: {error}\n"
                f"  As it is, it runs in a thread of this process (pid {os.getpid()}), one batch at a time, and its "
                "batches are sent from here.",
                UserWarning,
                stacklevel=callers_level(),
            )
            return None
        raise SourceError(f"{error}\n  {hint}") from error.__cause__


def callers_level() -> int:
    """The ``stacklevel`` at which a warning given by this function's caller names the first line outside of rayfeed."""
    level, frame = 0, inspect.currentframe()
    package = __name__.partition(".")[0]
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level
