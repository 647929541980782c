"""Kills a feed's producers, as the kernel's out-of-memory killer or a lost machine would."""

from __future__ import annotations

import os
import random
import signal
import threading

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayfeed.producer.messages import Opened
from rayfeed.queue.feed import Feed

KILL_TIMEOUT_S = 30.0
"""How long another node may take to start the process that kills."""


class Killer:
    """A thread that kills one of a feed's producers every so often.

    Args:
        feed: The feed.
        every_s: Seconds between two kills; 0 for none.
        seed: Of who is killed.
    """

    def __init__(self, feed: Feed, every_s: float, seed: int) -> None:
        self.num_kills = 0
        self._feed = feed
        self._every_s = every_s
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="rayfeed-killer", daemon=True)

    def start(self) -> None:
        """Begin to kill."""
        if self._every_s:
            self._thread.start()

    def stop(self) -> None:
        """Kill no more; raises what kept the thread from it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every_s):
                processes = self._feed.processes()
                if len(processes) > 1:  # the last one is left to make what the others lost
                    self.num_kills += kill(self._random.choice(processes))
        except Exception as error:  # noqa: BLE001 - raised again by `stop`, in the thread that can do something
            self._failure = error


def kill(process: Opened) -> bool:
    """End a producer's process where it runs; False where it has ended by itself."""
    if process.node_id == ray.get_runtime_context().get_node_id():
        return _kill(process.pid)
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    call = ray.remote(_kill).options(num_cpus=0, scheduling_strategy=there, max_retries=0).remote(process.pid)
    return ray.get(call, timeout=KILL_TIMEOUT_S)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
