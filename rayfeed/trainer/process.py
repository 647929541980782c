"""The trainer's process as its caller has it: asked for, waited for, ended."""

from __future__ import annotations

import time
import warnings
from typing import Any

import keras
import ray
from ray.exceptions import RuntimeEnvSetupError

from rayfeed.errors import TrainerDiedError
from rayfeed.options import TrainerOptions
from rayfeed.producer.cluster import BIRTH_S
from rayfeed.producer.failed_call import is_loss
from rayfeed.producer.placement import Claim, Patience, no_environment, start_timeout_s
from rayfeed.producer.spreading import where_cpus_are
from rayfeed.queue.travel import callers_level
from rayfeed.trainer import home
from rayfeed.trainer.actor import TrainerHost

END_TIMEOUT_S = 10.0
"""How long the end of a killed process is waited for; Ray takes some milliseconds."""

PRODUCERS_TIMEOUT_S = 30.0
"""How long a trainer may take to end its producers, before its own process is ended; mostly a moment, but longer where
their node was lost."""

WATCH_S = 1.0
"""How often the start's deadline is looked at."""

NEVER_RAN = "The actor never ran"
"""What Ray (2.60) says of an actor that was given a place on a node of whose loss it did not know yet: no process of
ours was lost, and the next one gets another place. Nothing but these words tells."""


class TrainerProcess:
    """A trainer actor, which this begins to start, and does not wait for.

    Attributes:
        actor: The handle.
        place: Its node and process, for messages.

    Args:
        claim: What it claims of its node.
        options: What the caller asked for.
    """

    def __init__(self, claim: Claim, options: TrainerOptions) -> None:
        self._claim = claim
        self._options = options
        self._timeout_s = start_timeout_s(options)
        self._start()

    def _start(self) -> None:
        settings: dict[str, Any] = {
            "max_restarts": 0,
            "max_task_retries": 0,
            "concurrency_groups": {"work": 1, "control": 4, "home": home.NUM_THREADS},
        }
        place = where_cpus_are(self._claim, ray.get_runtime_context().get_node_id())
        decorate: Any = ray.remote(**settings, **(self._claim.actor_options() | place))
        asked = self._options.num_cpus
        num_cpus = max(int(asked), 1) if asked else 0
        self.actor: Any = decorate(TrainerHost).remote(keras.backend.backend(), self._claim.num_gpus, num_cpus)
        self.place = "not yet on a node"
        self._held = self.actor.hold.remote()
        self._opened = self.actor.open.remote()
        self._asked = time.monotonic()
        self._is_open = False

    def wait_until_open(self) -> None:
        """Return when it answers.

        Raises:
            PlacementError: It found no place in time, or its runtime environment cannot be had.
            TrainerDiedError: It was lost while it started.
        """
        patience = Patience(self._claim, "TrainerOptions", self._timeout_s)
        asked = time.monotonic()
        while not self._is_open:
            while not ray.wait([self._opened], timeout=WATCH_S)[0]:
                self._check_start(asked, patience)
            try:
                opened: Any = ray.get(self._opened)
            except RuntimeEnvSetupError as error:
                raise no_environment(error, what="the trainer", options="TrainerOptions") from error
            except Exception as error:
                if not is_loss(error):
                    raise
                if NEVER_RAN not in str(error):
                    raise TrainerDiedError(f"the trainer's process did not start: {error}") from error
                self._check_start(asked, patience)
                self._start()
                continue
            self.place = f"node {opened.node}, pid {opened.pid}"
            self._is_open = True

    def _check_start(self, asked: float, patience: Patience) -> None:
        waited_s = time.monotonic() - asked
        if waited_s > self._timeout_s:
            raise patience.at_end("the trainer", waited_s, "it", "num_gpus")
        text = patience.look("the trainer has", waited_s)
        if text is not None:
            warnings.warn(text, stacklevel=callers_level())

    def close(self) -> None:
        """End its producers and then itself; wait until it is gone."""
        if self._is_open:  # its producers first: those of a process that was killed end when Ray finds it dead
            ray.wait([self.actor.end_producers.remote()], timeout=PRODUCERS_TIMEOUT_S)
        else:
            ray.wait([self._opened], timeout=max(self._asked + BIRTH_S - time.monotonic(), 0.0))
        self.kill()

    def kill(self) -> None:
        """End it, or what may be left of it where only the way to it was lost; wait until it is gone."""
        ray.kill(self.actor)
        ray.wait([self._held], timeout=END_TIMEOUT_S)
