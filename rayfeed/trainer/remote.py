"""The caller's side of a trainer: starts it, sends it jobs, draws their progress, brings home what they changed.

`RemoteTrainer` has the model in an actor; `LocalTrainer` is ``trainer="driver"``, everything in the caller's process.
Both leave nothing behind: on every way out producers are ended, and the actor's end is waited for.
"""

from __future__ import annotations

import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import keras
import ray
from ray.exceptions import RayActorError

from rayfeed.errors import InternalError, PlacementError, TrainerDiedError
from rayfeed.options import TrainerOptions
from rayfeed.producer.cluster import ensure_ray
from rayfeed.producer.placement import describe_free, trainer_claim
from rayfeed.queue.keeping import Keeper
from rayfeed.trainer import home
from rayfeed.trainer.actor import TrainerHost
from rayfeed.trainer.carrying import apply_changes, pack_callbacks
from rayfeed.trainer.core import run_job
from rayfeed.trainer.messages import Done, Failed, Job, Outcome, ProgressEvent, Request
from rayfeed.trainer.transport import apply_state, pack_model

ABORT_TIMEOUT_S = 10.0
"""How long a trainer whose job is given up may take to end its producers; then its process is ended, they with it."""

PRODUCERS_TIMEOUT_S = 30.0
"""How long a trainer may take to end its producers, before its own process is ended; mostly a moment, but longer where
their node was lost."""

START_WATCH_S = 1.0
"""How often the start's deadline is looked at."""


class LocalTrainer:
    """Trains in the caller's process; only the producers are elsewhere.

    Args:
        model: The caller's model, trained in place.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._keeper = Keeper()
        self._finalizer = weakref.finalize(self, self._keeper.close)

    def run(self, job: Job, callbacks: list[keras.callbacks.Callback]) -> Outcome:
        """Carry out one job."""
        progress = keras.callbacks.ProgbarLogger() if job.verbose else None
        return run_job(job, self._model, callbacks, progress=progress, watch=lambda _: None, keeper=self._keeper)

    def close(self) -> None:
        """End the producers and wait until they are gone; may be called twice."""
        self._finalizer()


class RemoteTrainer:
    """A trainer actor and the caller's model, kept alike.

    Args:
        model: The caller's model; it takes on the state of the actor's after each fit.
        options: What the actor needs of the cluster.

    Raises:
        PlacementError: No node could ever hold the actor.
    """

    def __init__(self, model: keras.Model, options: TrainerOptions) -> None:
        ensure_ray()
        self._model = model
        self._options = options
        self._claim = trainer_claim(options)
        self._sent: Any = None  # the configuration of the model that the actor holds
        settings: dict[str, Any] = {
            "max_restarts": 0,
            "max_task_retries": 0,
            "concurrency_groups": {"work": 1, "control": 3, "home": home.NUM_THREADS},
        }
        decorate: Any = ray.remote(**settings, **self._claim.actor_options())
        self._actor: Any = decorate(TrainerHost).remote(keras.backend.backend(), self._claim.num_gpus)
        self._held = self._actor.hold.remote()
        self._opened = self._actor.open.remote()
        self._is_open = False

    def run(self, job: Job, callbacks: list[keras.callbacks.Callback]) -> Outcome:
        """Carry out one job in the actor.

        Raises:
            PlacementError: The actor found no place in time.
            TrainerDiedError: Its process was lost.
            Exception: What the source, a callback or the model raised.
        """
        if self._actor is None:
            raise TrainerDiedError(
                "this trainer's process was ended when an earlier call was given up: open a new one."
            )
        packed = pack_model(self._model)
        # The actor's model serves again only where architecture and compile arguments are what they were.
        is_same = packed.config == self._sent and packed.state.optimizer is not None
        model = packed.state if is_same else packed
        travelling, staying = home.leave_home(job)
        request = Request(travelling, model, pack_callbacks(callbacks, self._model), str(Path.cwd()))
        self._wait_until_open()
        running = None
        thread = home.Home(self._actor, staying)
        try:
            thread.start()
            running = self._actor.run.remote(request)
            answer = self._follow(running, ProgressBar(job))
        except RayActorError as error:
            raise TrainerDiedError(
                f"the trainer's process died during {job.method}: {error}\n"
                "  Its model is lost; the caller's has the state it had before the call. A process that dies without a "
                "Python error was often killed for its memory: raise TrainerOptions.memory, or lower max_queue_size or "
                "max_queue_bytes."
            ) from error
        except BaseException:
            self._abort(running, callbacks)
            raise
        finally:
            thread.close()
        self._sent = packed.config
        self._take_home(answer, callbacks)
        for category, message in answer.left.warnings:
            warnings.warn(message, category, stacklevel=4)
        match answer:
            case Failed(failure):
                raise failure.error()
            case Done(outcome):
                return outcome

    def _take_home(self, answer: Done | Failed, callbacks: list[keras.callbacks.Callback]) -> None:
        """Give the caller's model and callbacks what the job left, whether it ended well or not."""
        left = answer.left
        if left.state is not None:
            apply_state(self._model, left.state)
            self._model.stop_training = left.stop_training
        if left.callbacks:
            params = answer.outcome.params if isinstance(answer, Done) else None
            apply_changes(callbacks, left.callbacks, self._model, params)

    def close(self) -> None:
        """End the actor and wait until it is gone; may be called twice."""
        actor, self._actor = self._actor, None
        if actor is not None and ray.is_initialized():
            if self._is_open:  # its producers first: those of a process that was killed end when Ray finds it dead
                ray.wait([actor.end_producers.remote()], timeout=PRODUCERS_TIMEOUT_S)
            ray.kill(actor)
            ray.wait([self._held], timeout=ABORT_TIMEOUT_S)

    def _wait_until_open(self) -> None:
        if self._is_open:
            return
        started = time.monotonic()
        while not ray.wait([self._opened], timeout=START_WATCH_S)[0]:
            waited_s = time.monotonic() - started
            if waited_s > self._options.start_timeout_s:
                raise PlacementError(
                    f"the trainer found no place in {waited_s:.0f} s: it claims {self._claim}, and the cluster has "
                    f"{describe_free()} free.\n"
                    "  Wait for other jobs to end, lower TrainerOptions.num_cpus or num_gpus, or raise "
                    f"TrainerOptions.start_timeout_s (now {self._options.start_timeout_s:g})."
                )
        try:
            ray.get(self._opened)
        except RayActorError as error:
            raise TrainerDiedError(f"the trainer's process did not start: {error}") from error
        self._is_open = True

    def _follow(self, running: Any, bar: ProgressBar) -> Done | Failed:
        """Draw progress until the job's answer is there."""
        asked = self._actor.progress.remote()
        while True:
            ready, _ = ray.wait([running, asked], num_returns=1)
            if running in ready:
                answer: Any = ray.get(running)
                # A call for progress may still be on its way: its events come before the answer's.
                bar.draw(ray.get(asked))
                if not isinstance(answer, (Done, Failed)):
                    raise InternalError(f"unknown answer {answer!r}")
                bar.draw(answer.left.progress)
                return answer
            bar.draw(ray.get(asked))
            asked = self._actor.progress.remote()

    def _abort(self, running: Any, callbacks: list[keras.callbacks.Callback]) -> None:
        """The caller gives up (Ctrl-C): end the job's producers, take home what was trained, end the actor."""
        if self._actor is None or not ray.is_initialized():
            return
        try:
            self._actor.abort.remote()
            if running is not None and ray.wait([running], timeout=ABORT_TIMEOUT_S)[0]:
                answer: Any = ray.get(running)
                self._take_home(answer, callbacks)
        except RayActorError:
            return  # it died meanwhile: nothing is left to take home
        finally:
            self.close()


class ProgressBar:
    """Draws a job's progress in this process with Keras' own bar.

    Args:
        job: Says how much is drawn.
    """

    def __init__(self, job: Job) -> None:
        self._verbose = job.verbose
        self._epochs = job.epochs
        self._logger = keras.callbacks.ProgbarLogger()
        self._steps: int | None = None

    def draw(self, events: list[ProgressEvent]) -> None:
        """Draw what happened."""
        if not self._verbose:
            return
        for event in events:
            if event.steps is not None and event.steps != self._steps:
                self._steps = event.steps
                self._logger.set_params({"verbose": self._verbose, "epochs": self._epochs, "steps": event.steps})
            hook = getattr(self._logger, event.hook)
            if event.number is None:
                hook(event.logs)
            else:
                hook(event.number, event.logs)
