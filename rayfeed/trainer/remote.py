"""The caller's side of a trainer: starts it, sends it jobs, draws their progress, brings home what they changed.

`RemoteTrainer` has the model in an actor; `LocalTrainer` is ``trainer="driver"``, everything in the caller's process.
Both leave nothing behind: on every way out producers are ended, and the actor's end is waited for.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import ray

from rayfeed.errors import InternalError, TrainerBusyError, TrainerDiedError
from rayfeed.options import TrainerOptions
from rayfeed.producer.cluster import ensure_ray
from rayfeed.producer.placement import trainer_claim
from rayfeed.queue.keeping import Keeper
from rayfeed.queue.travel import callers_level
from rayfeed.source.failure import Failure
from rayfeed.trainer import home
from rayfeed.trainer.carrying import apply_changes, pack_callbacks
from rayfeed.trainer.checkpoint_files import Found
from rayfeed.trainer.core import run_job
from rayfeed.trainer.driver_callbacks import DriverHooks, OnDriver, unwrapped
from rayfeed.trainer.lost import Lost, answer_of
from rayfeed.trainer.messages import Done, Event, Failed, HookCall, Job, Outcome, ProgressEvent, Request, SavedEvent
from rayfeed.trainer.model_link import ModelLink
from rayfeed.trainer.planning import check_ready
from rayfeed.trainer.process import TrainerProcess
from rayfeed.trainer.progress import ProgressBar, Tap
from rayfeed.trainer.randomness import random_state, set_random_state
from rayfeed.trainer.restarting import Attempts
from rayfeed.trainer.transport import made_model
from rayfeed.trainer.warned import WarningEvent

ABORT_TELL_S = 10.0
"""How long a trainer whose job is given up may take to end the step or callback that it is in, before that is told."""

ABORT_TIMEOUT_S = 300.0
"""How long it may take; then its process is ended, and what was trained is lost."""


class LocalTrainer:
    """Trains in the caller's process; only the producers are elsewhere.

    Args:
        model: The caller's model, trained in place; or the function that makes one.
    """

    def __init__(self, model: Any) -> None:
        self.model: Any = model if isinstance(model, keras.Model) else made_model(model)
        self._keeper = Keeper()
        self._finalizer = weakref.finalize(self, self._keeper.close)

    def run(self, job: Job, callbacks: list[keras.callbacks.Callback]) -> Outcome:
        """Carry out one job."""
        check_ready(job.method, self.model)
        bar = ProgressBar(job)
        return run_job(
            job,
            self.model,
            unwrapped(callbacks),
            progress=Tap(bar.draw, each_step=bar.each_step) if job.verbose else None,
            watch=lambda _: None,
            tell_inputs=lambda _: None,
            keeper=self._keeper,
        )

    def close(self) -> None:
        """End the producers and wait until they are gone; may be called twice."""
        self._finalizer()


class RemoteTrainer:
    """A trainer actor and the caller's model, kept alike.

    Args:
        model: The caller's model, which takes on the state of the actor's after each fit; or a function that makes it.
        options: What the actor needs of the cluster.

    Raises:
        PlacementError: No node could ever hold the actor.
    """

    def __init__(self, model: Any, options: TrainerOptions) -> None:
        ensure_ray()
        self._link = ModelLink(model)
        self._options = options
        self._claim = trainer_claim(options)
        self._own_runs: set[str] = set()
        self._num_jobs = 0
        self._is_busy = False
        self._ended = ""  # by what, where it was not closed
        self._own(TrainerProcess(self._claim, options))

    def _own(self, process: TrainerProcess) -> None:
        self._process: TrainerProcess | None = process
        self._finalizer = weakref.finalize(self, _end, process)  # a dropped trainer leaves nothing behind

    @property
    def model(self) -> Any:
        """The caller's model; of a function, None until the first job ended."""
        return self._link.model

    def run(self, job: Job, callbacks: list[keras.callbacks.Callback]) -> Outcome:
        """Carry out one job in the actor.

        Raises:
            PlacementError: The actor found no place in time.
            TrainerDiedError: Its process was lost.
            TrainerBusyError: A job of this trainer is running.
            Exception: What the source, a callback or the model raised.
        """
        if self._is_busy:
            raise TrainerBusyError(
                f"{job.method} was asked of a trainer that is carrying out another call: a callback or thread of this "
                "process uses the Trainer that it runs for.\n"
                "  A trainer carries out one call at a time. Wait for the other's end, or use another rayfeed.Trainer."
            )
        self._is_busy = True
        try:
            here = self._link.made() if any(isinstance(one, OnDriver) for one in callbacks) else self.model
            return self._run(job, DriverHooks(callbacks, here))
        finally:
            self._is_busy = False

    def _run(self, job: Job, hooks: DriverHooks) -> Outcome:
        self._living()
        attempts = Attempts(job, self._options, self._own_runs)
        self._link.pack()
        packed_callbacks = pack_callbacks(hooks.others, self.model)
        bar = ProgressBar(job)
        travelling, staying = home.leave_home(job)
        request = Request(
            travelling, random_state(), packed_callbacks, str(Path.cwd()), self._num_jobs, hooks.slots, bar.each_step
        )
        while True:
            try:
                answer = self._attempt(job, request, attempts, bar, hooks, staying)
                break
            except TrainerDiedError as error:
                hooks.finish()  # what a hook in this process raised is the user's, and no failure of the trainer's
                self._replace(attempts, error)
        hooks.finish()
        match answer:
            case Failed(failure):
                raise failure.error()
            case Done(outcome):
                return outcome

    def _attempt(
        self,
        job: Job,
        request: Request,
        attempts: Attempts,
        bar: ProgressBar,
        hooks: DriverHooks,
        staying: dict[str, Any],
    ) -> Done | Failed:
        """Carry out a job in the actor that there is.

        Raises:
            TrainerDiedError: It was lost.
        """
        self._num_jobs += 1
        hooks.begin(self._num_jobs, self._actor.heed.remote)
        self._living().wait_until_open()
        checkpoints = attempts.plan(self._newest_checkpoint(attempts.location, request.directory))
        with _losses_told("before it had the model"):
            self._link.send(self._actor)
        running = None
        thread = home.Home(self._actor, staying)
        try:
            thread.start()
            running = self._actor.run.remote(replace(request, number=self._num_jobs, checkpoints=checkpoints))
            answer = self._follow(running, bar, hooks, attempts)
            self._take_home(job, answer, hooks)
        except Lost as lost:
            raise TrainerDiedError(
                f"the trainer's process died during {job.method}: {lost}\n"
                "  Its model is lost; the caller's has the state it had before the call. A process that dies "
                "without a Python error was often killed for its memory: raise TrainerOptions.memory, or lower "
                "max_queue_size or max_queue_bytes."
            ) from lost.__cause__
        except BaseException:
            self._abort(job, running, hooks)
            raise
        finally:
            thread.close()
        return answer

    def _newest_checkpoint(self, location: str | None, directory: str) -> Found | None:
        """What the actor finds, whose node need not be this one."""
        if location is None:
            return None
        with _losses_told("while it looked for checkpoints"):
            found = answer_of(self._actor.find_checkpoint.remote(location, directory))
        if isinstance(found, Failure):
            raise found.error()
        return found

    def _replace(self, attempts: Attempts, error: TrainerDiedError) -> None:
        """Start another actor in the place of one that was lost.

        Raises:
            TrainerDiedError: No failure is left.
        """
        lost = self._living()
        lost.kill()
        self._finalizer.detach()
        self._link.forget()
        self._process, self._ended = None, "was lost in an earlier call"
        attempts.lost(lost.place, error)
        self._link.pack()
        self._own(TrainerProcess(self._claim, self._options))

    def _take_home(self, job: Job, answer: Done | Failed, hooks: DriverHooks) -> None:
        """Give the caller's model and callbacks what the job left, whether it ended well or not."""
        left = answer.left
        if left.model is not None:
            if (
                job.method == "fit" or self.model is not None
            ):  # a function's model is made here when it has been trained
                self._link.fetch(self._actor, left.model)
            if job.method == "fit":
                self._link.made().stop_training = left.model.stop_training or hooks.wants_stop
        if left.random is not None:
            set_random_state(left.random)
        if left.callbacks is not None:
            params = answer.outcome.params if isinstance(answer, Done) else None
            apply_changes(hooks.others, left.callbacks, self.model, params)

    def close(self) -> None:
        """End the actor and wait until it is gone; may be called twice."""
        self._process = None
        self._finalizer()

    def _living(self) -> TrainerProcess:
        if self._process is None:
            raise TrainerDiedError(
                f"this trainer's process {self._ended}, and its producers ended with it: open a new rayfeed.Trainer."
            )
        return self._process

    @property
    def _actor(self) -> Any:
        return self._living().actor

    def _follow(self, running: Any, bar: ProgressBar, hooks: DriverHooks, attempts: Attempts) -> Done | Failed:
        """Draw progress and run the caller's callbacks until the job's answer is there."""
        asked = self._actor.progress.remote(self._num_jobs)
        while True:
            ready, _ = ray.wait([running, asked], num_returns=1)
            if running in ready:
                answer = answer_of(running)
                # A call for progress may still be on its way: its events come before the answer's.
                _pass_on(answer_of(asked), bar, hooks, attempts)
                if not isinstance(answer, (Done, Failed)):
                    raise InternalError(f"unknown answer {answer!r}")
                _pass_on(answer.left.progress, bar, hooks, attempts)
                return answer
            _pass_on(answer_of(asked), bar, hooks, attempts)
            hooks.check()
            asked = self._actor.progress.remote(self._num_jobs)

    def _abort(self, job: Job, running: Any, hooks: DriverHooks) -> None:
        """The caller gives up (Ctrl-C): end the job's producers, take home what was trained, end the actor."""
        if self._process is None or not ray.is_initialized():
            return
        try:
            self._actor.abort.remote()
            if running is not None and self._ends(running):
                self._take_home(job, answer_of(running), hooks)
        except Lost:
            pass  # it died meanwhile: nothing is left to take home
        finally:
            self.close()
            self._ended = "was ended when an earlier call was given up"

    def _ends(self, running: Any) -> bool:
        """Whether a job that was given up ends in time; its producers have ended, a step or callback may run on."""
        if ray.wait([running], timeout=ABORT_TELL_S)[0]:
            return True
        told = f"what the trainer ({self._living().place}) is in, a step or a callback,"
        warnings.warn(
            f"rayfeed: the call was given up, and waits for {told} to end, at most {ABORT_TIMEOUT_S:.0f} s: then the "
            "model gets what was trained. Another Ctrl-C ends the trainer at once, and what it trained is lost.",
            stacklevel=callers_level(),
        )
        if ray.wait([running], timeout=ABORT_TIMEOUT_S - ABORT_TELL_S)[0]:
            return True
        warnings.warn(
            f"rayfeed: {told} did not end in {ABORT_TIMEOUT_S:.0f} s: its process is ended, what it trained in this "
            "call is lost, and the model has the state it had before the call.",
            stacklevel=callers_level(),
        )
        return False


def _end(process: TrainerProcess) -> None:
    if ray.is_initialized():
        process.close()


@contextmanager
def _losses_told(when: str) -> Iterator[None]:
    try:
        yield
    except Lost as lost:
        raise TrainerDiedError(
            f"the trainer's process died {when}: {lost}\n"
            "  A process that dies without a Python error was often killed for its memory: raise "
            "TrainerOptions.memory."
        ) from lost.__cause__


def _pass_on(events: list[Event], bar: ProgressBar, hooks: DriverHooks, attempts: Attempts) -> None:
    """Draw, run, say and keep what the trainer told, in its order."""
    for event in events:
        match event:
            case ProgressEvent():
                bar.draw(event)
            case HookCall():
                hooks.run(event)
            case WarningEvent():
                event.give()
            case SavedEvent(label, node):
                attempts.saved(label, node)
    hooks.report()
