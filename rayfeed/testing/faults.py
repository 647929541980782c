"""Faults as data (who, at which point, with which batch, how), and a Sequence whose producers meet them.

    plan = [Fault("make", pass_index=1, index=7), Fault("load", pass_index=2, how="exit")]
    rayfeed.fit_generator(model, Faulty(sequence, plan, folder), workers=4, use_multiprocessing=True)

A fault strikes where the work itself comes by, so that none depends on time: a run with the same plan loses its
producers in the same places. Only producers meet faults; a run in line, and the copy on which the hooks run, do not.

    load    the pass' state of the Sequence is unpacked in a producer: the first one, or what `on_epoch_end` left
    make    a batch is asked for

    kill    SIGKILL, as from the kernel when memory is short, or of a machine that is taken away
    exit    the process ends by itself, without an exception
    stop    SIGSTOP: the process is there, and nothing in it runs
    hang    the call does not return
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rayfeed.errors import OptionError
from rayfeed.source.sequence import Sequence
from rayfeed.source.worker_info import get_worker_info

Point = Literal["load", "make"]
How = Literal["kill", "exit", "stop", "hang"]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        point: Where in a producer's work.
        pass_index: In which pass, from 0.
        index: With which batch; "load" has none.
        how: What happens to the producer.
        times: How many producers meet it; each further one finds it gone.
        worker: Which producer meets it, by its number; None for whichever comes by. A replacement has the number of the
            one that it replaces.
    """

    point: Point
    pass_index: int = 0
    index: int = 0
    how: How = "kill"
    times: int = 1
    worker: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("point", self.point, get_args(Point)), ("how", self.how, get_args(How))):
            if value not in known:
                raise OptionError(f"Fault.{name} must be one of {', '.join(known)}, got {value!r}.")


def draw_plan(seed: int, *, passes: int, length: int, number: int) -> list[Fault]:
    """Draw producers' deaths: so many different batches whose first producer is killed.

    Args:
        seed: What is drawn follows from it alone.
        passes: Passes over which they are spread.
        length: Batches of a pass.
        number: Deaths.
    """
    places = random.Random(seed).sample(range(passes * length), number)  # noqa: S311 - no secret
    return [Fault("make", *divmod(place, length)) for place in sorted(places)]


class Faulty(Sequence):
    """A Sequence as it is, but for the faults that its producers meet.

    Args:
        sequence: What makes the batches.
        plan: The faults.
        folder: Where it is noted which have struck; all producers' nodes reach it. Each run wants an empty one.
    """

    def __init__(self, sequence: Any, plan: Iterable[Fault], folder: str | os.PathLike[str]) -> None:
        self._sequence = sequence
        self._plan = list(plan)
        self._folder = Path(folder)
        self._num_passes = 0

    def __len__(self) -> int:
        return len(self._sequence)

    def __getitem__(self, index: int) -> Any:
        self._come_by("make", index)
        return self._sequence[index]

    def on_epoch_begin(self) -> None:
        if hasattr(self._sequence, "on_epoch_begin"):
            self._sequence.on_epoch_begin()

    def on_epoch_end(self) -> None:
        if hasattr(self._sequence, "on_epoch_end"):
            self._sequence.on_epoch_end()
        self._num_passes += 1

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._come_by("load", 0)

    def _come_by(self, point: Point, index: int) -> None:
        info = get_worker_info()
        if info is None:
            return
        here = (point, self._num_passes, index)
        for number, fault in enumerate(self._plan):
            is_here = (fault.point, fault.pass_index, fault.index) == here and fault.worker in (None, info.id)
            if is_here and self._is_left(number, fault):
                _strike(fault.how)

    def _is_left(self, number: int, fault: Fault) -> bool:
        """Whether this process is one of those that meet the fault; noted where every other one sees it."""
        for time in range(fault.times):
            try:
                (self._folder / f"fault-{number}-{time}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False


def _strike(how: How) -> None:
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(1)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            threading.Event().wait()
