"""The Ray actor that holds the model. It hosts `run_job`, and adds only process matters.

Group "work" runs one job at a time; "control" answers meanwhile: progress, abort. The model stays here between jobs of
one `rayfeed.Trainer`, and so do the producers; each job brings the caller's weights and takes the new ones home.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from rayfeed.producer.messages import Opened
from rayfeed.producer.nodes import own_cpus
from rayfeed.queue.keeping import Keeper
from rayfeed.source.failure import Failure
from rayfeed.trainer.home import MailboxHost
from rayfeed.trainer.outbox import Outbox

if TYPE_CHECKING:  # Keras must not be imported before the backend is chosen
    from rayfeed.queue.opening import OpenStreams
    from rayfeed.trainer.checkpoint_files import Found
    from rayfeed.trainer.messages import Done, Event, Failed, Request, Verdict
    from rayfeed.trainer.model_host import Blueprint, ModelHost
    from rayfeed.trainer.relay import Relay
    from rayfeed.trainer.transport import Layout, Values

PROGRESS_WAIT_S = 1.0
"""How long a call for progress waits for some, before it answers that there is none."""


def num_threads(num_usable: int, counted: float) -> int:
    """OpenMP threads of a trainer that claims no CPUs.

    Args:
        num_usable: CPUs on which the process may run: in a container those of the whole machine.
        counted: CPUs that Ray counts for the node; 0 where it was told that nothing is to run there.
    """
    return min(num_usable, max(int(counted), 1)) if counted else num_usable


class TrainerHost(MailboxHost):
    """One trainer process.

    Args:
        backend: Keras' backend, the caller's.
        num_gpus: GPUs this actor claimed; without any, those of its node are hidden from it.
        num_cpus: Whole CPUs that its caller asked for; 0 for as many as its node has.
    """

    def __init__(self, backend: str, num_gpus: float, num_cpus: int) -> None:
        os.environ["KERAS_BACKEND"] = backend
        if not num_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        # TensorFlow reports at length what the machine has not got, and this process' output goes to the caller's
        # terminal; without a GPU even the missing GPU is logged as an error.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if num_gpus else "3")
        # Ray sets 1 where it is not told; a framework would then train on one core. What a process was started with is
        # the user's: Ray sets its own later.
        if b"OMP_NUM_THREADS=" not in Path("/proc/self/environ").read_bytes():
            os.environ["OMP_NUM_THREADS"] = str(num_cpus or num_threads(len(os.sched_getaffinity(0)), own_cpus()))
        self._unseen_gpus = num_gpus
        self._node = ray.util.get_node_ip_address()
        self._held = threading.Event()
        self._models: ModelHost | None = None
        self._lock = threading.Lock()
        self._outbox = Outbox(0)
        self._relay: Relay | None = None
        self._streams: OpenStreams | None = None
        self._keeper = Keeper()

    def __repr__(self) -> str:
        return "rayfeed.Trainer"

    @ray.method(concurrency_group="control")
    def open(self) -> Opened:
        """Tell that the process is up."""
        return Opened(self._node, ray.get_runtime_context().get_node_id(), os.getpid())

    @ray.method(concurrency_group="control")
    def hold(self) -> None:
        """Answer never; the call fails when this process is gone."""
        self._held.wait()

    @ray.method(concurrency_group="control")
    def progress(self, number: int) -> list[Event]:
        """The events of a job since the last call; waits a moment for some, also where the job is still to begin."""
        return self._outbox_of(number).take(PROGRESS_WAIT_S)

    @ray.method(concurrency_group="control")
    def heed(self, verdict: Verdict) -> None:
        """Let the running job know how far the caller is with its hooks."""
        if self._relay is not None:
            self._relay.accept(verdict)
        if verdict.has_failed and self._outbox.number == verdict.job and self._streams is not None:
            self._streams.interrupt()  # training may be waiting for a batch

    @ray.method(concurrency_group="control")
    def abort(self) -> None:
        """End the running job's producers; the job then fails. Called when the caller gives up."""
        if self._relay is not None:
            self._relay.give_up()
        if self._streams is not None:
            self._streams.abort()
        self._keeper.close()

    @ray.method(concurrency_group="control")
    def end_producers(self) -> None:
        """End the producers that are kept for later jobs. Called once no other will come."""
        self._keeper.close()

    @ray.method(concurrency_group="work")
    def receive(self, message: Blueprint | Layout | Values) -> Failure | None:
        """Take on a part of the caller's model. Called before `run`, in the order of `ModelHost`."""
        try:
            self._host().receive(message)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - as in run
            return Failure.of(error, f"the trainer (node {self._node}, pid {os.getpid()}), building the model")
        return None

    @ray.method(concurrency_group="work")
    def give_values(self, number: int) -> Values | None:
        """A part of the values that the last job changed, in order; None after the last. Called after `run`."""
        return self._host().give(number)

    @ray.method(concurrency_group="work")
    def find_checkpoint(self, location: str, directory: str) -> Found | Failure | None:
        """The newest checkpoint; None where there is none. Called before `run`."""
        # Imported here, in the work thread: as in `run`.
        from rayfeed.trainer.checkpoint_files import CheckpointFiles  # noqa: PLC0415

        try:
            return CheckpointFiles(location, directory).newest()
        except Exception as error:  # noqa: BLE001 - the caller's to see
            return Failure.of(error, f"the trainer (node {self._node}, pid {os.getpid()}), looking for a checkpoint")

    @ray.method(concurrency_group="work")
    def run(self, request: Request) -> Done | Failed:
        """Carry out one job. Exceptions come back as `Failed`, never as Ray's task errors."""
        # Imported here, in the work thread: the process answers `open` before Keras and its backend are loaded.
        from rayfeed.trainer.callback_state import Snapshot  # noqa: PLC0415
        from rayfeed.trainer.carrying import unpack_callbacks  # noqa: PLC0415
        from rayfeed.trainer.core import run_job  # noqa: PLC0415
        from rayfeed.trainer.devices import warn_without_gpu  # noqa: PLC0415
        from rayfeed.trainer.messages import Done, Failed, Left, SavedEvent  # noqa: PLC0415
        from rayfeed.trainer.planning import check_ready  # noqa: PLC0415
        from rayfeed.trainer.progress import Tap  # noqa: PLC0415
        from rayfeed.trainer.randomness import random_state, set_random_state  # noqa: PLC0415
        from rayfeed.trainer.relay import Relay  # noqa: PLC0415
        from rayfeed.trainer.saving import Recorder  # noqa: PLC0415
        from rayfeed.trainer.warned import telling_warnings  # noqa: PLC0415

        outbox = self._outbox_of(request.number)
        tap = Tap(outbox.put, each_step=request.each_step)
        self._relay = relay = Relay(outbox)
        snapshot: Snapshot | None = None
        models = self._host()
        model = models.model
        with telling_warnings(outbox.put):
            result: Any
            try:
                if Path(request.directory).is_dir():
                    os.chdir(request.directory)
                warn_without_gpu(self._unseen_gpus, f"node {self._node}, pid {os.getpid()}")
                self._unseen_gpus = 0.0  # what was told once need not be told of the next job
                check_ready(request.job.method, model)
                callbacks = unpack_callbacks(request.callbacks, model)
                set_random_state(request.random)
                models.begin()
                snapshot = Snapshot(callbacks, model)
                members = relay.stand_ins(callbacks, request.on_driver, model)
                recorder: Recorder | None = None
                if request.checkpoints is not None:
                    recorder = Recorder(
                        request.checkpoints,
                        request.directory,
                        request.job,
                        model,
                        callbacks,
                        tell=lambda label: outbox.put(SavedEvent(label, self._node)),
                    )
                result = run_job(
                    request.job,
                    model,
                    members,
                    progress=tap,
                    watch=self._watch,
                    tell_inputs=models.tell_inputs,
                    keeper=self._keeper,
                    check_wanted=relay.check,
                    mailbox=self.mailbox,
                    recorder=recorder,
                )
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - the caller's to see
                result = Failure.of(error, f"the trainer (node {self._node}, pid {os.getpid()})")
            began = snapshot is not None
            stays = "This state of a callback stays in the trainer"
            changes = snapshot.changes(warning=stays) if snapshot is not None else None
        left = Left(
            model=models.leave() if began else None,
            random=random_state() if began else None,
            callbacks=changes,
            progress=outbox.close(),
        )
        return Failed(result, left) if isinstance(result, Failure) else Done(result, left)

    def _host(self) -> ModelHost:
        # Imported here, in the work thread: as in `run`.
        from rayfeed.trainer.model_host import ModelHost  # noqa: PLC0415

        if self._models is None:
            self._models = ModelHost()
        return self._models

    def _outbox_of(self, number: int) -> Outbox:
        with self._lock:
            if self._outbox.number < number:
                self._outbox = Outbox(number)
            return self._outbox

    def _watch(self, streams: OpenStreams | None) -> None:
        self._streams = streams
        if self._keeper.is_closed and streams is not None:  # the abort came first
            streams.abort()
