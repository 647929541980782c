"""The Ray actor that holds the model. It hosts `run_job`, and adds only process matters.

Group "work" runs one job at a time; "control" answers meanwhile: progress, abort. The model stays here between jobs of
one `rayfeed.Trainer`, and so do the producers; each job brings the caller's weights and takes the new ones home.
"""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from rayfeed.producer.messages import Opened
from rayfeed.queue.keeping import Keeper
from rayfeed.source.failure import Failure
from rayfeed.trainer.home import MailboxHost

if TYPE_CHECKING:  # Keras must not be imported before the backend is chosen
    from rayfeed.queue.opening import OpenStreams
    from rayfeed.trainer.callbacks import Tap
    from rayfeed.trainer.messages import Done, Failed, ProgressEvent, Request

PROGRESS_WAIT_S = 1.0
"""How long a call for progress waits for some, before it answers that there is none."""


class TrainerHost(MailboxHost):
    """One trainer process.

    Args:
        backend: Keras' backend, the caller's.
        num_gpus: GPUs this actor claimed; without any, those of its node are hidden from it.
    """

    def __init__(self, backend: str, num_gpus: float) -> None:
        os.environ["KERAS_BACKEND"] = backend
        if not num_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        # TensorFlow reports at length what the machine has not got, and this process' output goes to the caller's
        # terminal; without a GPU even the missing GPU is logged as an error.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if num_gpus else "3")
        self._node = ray.util.get_node_ip_address()
        self._held = threading.Event()
        self._model: Any = None
        self._tap: Tap | None = None
        self._tap_is_there = threading.Event()
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
    def progress(self) -> list[ProgressEvent]:
        """The progress since the last call; waits a moment for some."""
        if not self._tap_is_there.wait(PROGRESS_WAIT_S) or self._tap is None:
            return []
        return self._tap.take(PROGRESS_WAIT_S)

    @ray.method(concurrency_group="control")
    def abort(self) -> None:
        """End the running job's producers; the job then fails. Called when the caller gives up."""
        if self._streams is not None:
            self._streams.abort()
        self._keeper.close()

    @ray.method(concurrency_group="control")
    def end_producers(self) -> None:
        """End the producers that are kept for later jobs. Called once no other will come."""
        self._keeper.close()

    @ray.method(concurrency_group="work")
    def run(self, request: Request) -> Done | Failed:
        """Carry out one job. Exceptions come back as `Failed`, never as Ray's task errors."""
        # Imported here, in the work thread: the process answers `open` before Keras and its backend are loaded.
        from rayfeed.trainer.callbacks import Tap  # noqa: PLC0415
        from rayfeed.trainer.carrying import Snapshot, unpack_callbacks  # noqa: PLC0415
        from rayfeed.trainer.core import run_job  # noqa: PLC0415
        from rayfeed.trainer.messages import Done, Failed, Left  # noqa: PLC0415
        from rayfeed.trainer.transport import PackedModel, apply_state, state_of, unpack_model  # noqa: PLC0415

        self._tap = tap = Tap(each_step=request.job.verbose == 1)
        self._tap_is_there.set()
        snapshot: Snapshot | None = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result: Any
            try:
                if Path(request.directory).is_dir():
                    os.chdir(request.directory)
                if isinstance(request.model, PackedModel):
                    self._model = unpack_model(request.model)
                else:
                    apply_state(self._model, request.model)
                callbacks = unpack_callbacks(request.callbacks, self._model)
                snapshot = Snapshot(callbacks, self._model)
                result = run_job(
                    request.job,
                    self._model,
                    callbacks,
                    progress=tap,
                    watch=self._watch,
                    keeper=self._keeper,
                    mailbox=self.mailbox,
                )
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - the caller's to see
                result = Failure.of(error, f"the trainer (node {self._node}, pid {os.getpid()})")
            began = snapshot is not None
            changes = snapshot.changes() if snapshot is not None else []
        left = Left(
            state=state_of(self._model) if began and request.job.method == "fit" else None,
            stop_training=bool(getattr(self._model, "stop_training", False)),
            callbacks=changes,
            warnings=_told(caught),
            progress=tap.take(0),
        )
        return Failed(result, left) if isinstance(result, Failure) else Done(result, left)

    def _watch(self, streams: OpenStreams | None) -> None:
        self._streams = streams
        if self._keeper.is_closed and streams is not None:  # the abort came first
            streams.abort()


def _told(caught: list[warnings.WarningMessage]) -> list[tuple[type[Warning], str]]:
    """The warnings to give again in the caller's process, each once; not those that are for developers of packages."""
    told: list[tuple[type[Warning], str]] = []
    for warning in caught:
        if issubclass(warning.category, (DeprecationWarning, PendingDeprecationWarning, ImportWarning)):
            continue
        entry = (warning.category, str(warning.message))
        if entry not in told:
            told.append(entry)
    return told
