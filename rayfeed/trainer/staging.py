"""The next batch is copied to the device that trains while this one is trained on (double buffering).

Only where that device has memory of its own. A step that gets tensors of the host copies them first, and the device
waits for it: all the longer where a callback reads the loss after each step, as the progress bar does, because then no
step is begun before the one before has ended. So a thread makes the tensors of the batch that comes next, if that has
arrived already; nothing is taken from the stream for it, so that what was delivered stays what was asked for.

JAX is not served by this: there Keras itself begins each transfer one batch ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from rayfeed.queue.stream import Delivered

HOST = "/job:localhost/replica:0/task:0/device:CPU:0"
"""TensorFlow's name for the device whose memory the frames lie in."""


def own_device(model: Any) -> str | None:
    """Where the weights of a TensorFlow model lie, if that is not the host; None as well while it has none."""
    device = next((weight.value.device for weight in model.weights), HOST)
    return device if device != HOST else None


class Staging:
    """Converts one batch ahead. Used by one thread, which may close it twice.

    Args:
        convert: Makes a batch's tensors on the device.
    """

    def __init__(self, convert: Callable[[Delivered], Any]) -> None:
        self._convert = convert
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rayfeed-staging")
        self._staged: tuple[Delivered, Future[Any]] | None = None

    def data(self, item: Delivered, following: Delivered | None) -> Any:
        """A batch's tensors; and begin with those of the one that follows it, if that is known."""
        staged, self._staged = self._staged, None
        data = staged[1].result() if staged is not None and staged[0] == item else self._convert(item)
        if following is not None:
            self._staged = following, self._thread.submit(self._convert, following)
        return data

    def close(self) -> None:
        """Wait for what is being converted and end the thread."""
        self._staged = None
        self._thread.shutdown()
