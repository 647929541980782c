"""What becomes of a call whose trainer was lost, and where it begins: the caller's decisions and words, without Ray.

lost, failures left     another trainer goes on from the call's newest checkpoint, or begins at the beginning
lost, none left         `TrainerDiedError`, which says where the checkpoints are
the user's exception    never tried again (contract F1): it is no `TrainerDiedError`
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable

from rayfeed.errors import OptionError, TrainerDiedError
from rayfeed.options import TrainerOptions
from rayfeed.queue.travel import callers_level
from rayfeed.trainer.checkpoint_files import Found, Label
from rayfeed.trainer.messages import CheckpointPlan, Job


class Attempts:
    """One call's trainers, one after the other.

    Args:
        job: The call's.
        options: The caller's.
        own_runs: The trainings of this trainer that were saved before; this one is added.
        now: The clock, in seconds since 1970.
    """

    def __init__(
        self, job: Job, options: TrainerOptions, own_runs: set[str], now: Callable[[], float] = time.time
    ) -> None:
        self._job = job
        self._options = options
        self._now = now
        self._others = set(own_runs)
        self._run = uuid.uuid4().hex[:12]
        self._saved: tuple[Label, str] | None = None  # the last checkpoint that was told of, and its trainer's node
        self._lost: tuple[str, float] | None = None  # the last one, and when
        self._num_lost = 0
        self.location = options.checkpoint_dir if job.method == "fit" else None
        if self.location is not None:
            own_runs.add(self._run)
        staying = [spec.name for spec in (job.stream, job.validation) if spec is not None and spec.is_home]
        if options.max_failures and staying:
            raise OptionError(
                f"TrainerOptions.max_failures={options.max_failures}: {staying[0]} runs in this process, and what a "
                "lost trainer had of it cannot be made again.\n"
                "  Pass a function that returns a fresh generator, or a Sequence, or max_failures=0."
            )

    def saved(self, label: Label, node: str) -> None:
        """A trainer told that it saved.

        Args:
            label: What the checkpoint holds.
            node: The trainer's node.
        """
        self._saved = label, node

    def lost(self, where: str, error: TrainerDiedError) -> None:
        """A trainer was lost.

        Args:
            where: Its node and process.
            error: What is known of it.

        Raises:
            TrainerDiedError: No failure is left.
        """
        self._num_lost += 1
        self._lost = where, self._now()
        if self._num_lost > self._options.max_failures:
            raise TrainerDiedError(f"{error}{self._told()}") from error.__cause__

    def _told(self) -> str:
        told = ""
        if self._options.max_failures:
            times = f"{self._num_lost - 1} time{'s' if self._num_lost > 2 else ''}"
            told = f"\n  It was started again {times} (TrainerOptions.max_failures={self._options.max_failures})."
        if self.location is not None:
            told += f"\n  What was saved of it is in {self.location}: TrainerOptions(resume=True) goes on from there."
        return told

    def plan(self, found: Found | None) -> CheckpointPlan | None:
        """Where the next trainer begins, and how it saves; warns where that is not what the caller would expect.

        Args:
            found: The newest checkpoint of the directory.

        Raises:
            OptionError: It is another training's, which this one would replace.
        """
        start = None
        resumes = self._options.resume and self.location is not None
        if found is not None and found.label.run == self._run:
            start = found
        elif found is not None and resumes and found.label.run not in self._others:
            start = found
            self._warn_stopped(found)
        elif found is not None and found.label.run not in self._others:
            raise OptionError(
                f"TrainerOptions.checkpoint_dir={self.location!r} holds the checkpoint of another training, at "
                f"{found.label} ({found.name}), which this one would replace.\n"
                "  Go on from it with TrainerOptions(resume=True), remove it, or give another directory."
            )
        if self._lost is not None:
            where, when = self._lost
            warnings.warn(
                f"rayfeed: the trainer ({where}) was lost during {self._job.method}: {self._going_on(start, when)}. "
                f"Failure {self._num_lost} of {self._options.max_failures} (TrainerOptions.max_failures).",
                stacklevel=callers_level(),
            )
        elif resumes and found is None and not self._others:
            warnings.warn(
                f"rayfeed: TrainerOptions(resume=True), and {self.location} holds no checkpoint: the training begins "
                "at its beginning.",
                stacklevel=callers_level(),
            )
        if self.location is None:
            return None
        name = start.name if start is not None else None
        replaces = found.label.run if found is not None else None
        return CheckpointPlan(
            self.location, self._options.save_every, self._run, name, replaces, attempt=self._num_lost + 1
        )

    def _warn_stopped(self, found: Found) -> None:
        """Warn where nothing will be trained though epochs are left."""
        label, epochs = found.label, self._job.epochs
        if label.is_stopped and label.epoch < epochs:
            warnings.warn(
                f"rayfeed: TrainerOptions(resume=True), and the training of {found.name} in {self.location} was "
                f"stopped at {label}, by a callback (stop_training) or its data's end: nothing is trained "
                f"(epochs left: {epochs - label.epoch} of {epochs}).\n"
                "  To train them, call again after this with another checkpoint_dir, without resume, and with "
                f"initial_epoch={label.epoch}: the model has the weights that were saved.",
                stacklevel=callers_level(),
            )

    def _going_on(self, start: Found | None, lost_at: float) -> str:
        if start is not None:
            ago_s = max(lost_at - start.label.saved_at, 0)
            return f"going on from {start.label}, saved {ago_s:.0f} s before"
        if self._job.method != "fit":
            return "it begins again"
        if self.location is None:
            return "it begins again, as without TrainerOptions.checkpoint_dir nothing was saved"
        if self._saved is not None:
            label, node = self._saved
            return (
                f"it begins again, as what was saved at {label} in {self.location} on node {node} is not to be found "
                "where the next trainer is (every node that the trainer may run on must reach "
                "TrainerOptions.checkpoint_dir)"
            )
        return "it begins again, as nothing had been saved yet"
