"""Saving a training between two batches, and putting what was saved back (contract F3).

A checkpoint holds all that the next batch depends on: the model's variables and its optimizers', the metrics' running
values, the random states, the state of the callbacks that run in the trainer, `History` among them, and where the
streams stand. `Saving` is the last callback in each hook, so that it sees what all others have done.

    Keras' fit                          saved            put back, when the training goes on
    ----------                          -----            -----------------------------------
    on_train_begin                                       after it: callbacks reset themselves there
      reset_metrics, on_epoch_begin                      after it, in the middle of an epoch: both ran before
        step, on_train_batch_end        after it
      validation, on_epoch_end          after it
    on_train_end

Both hooks run again in the new process, since files and the like have to be opened there; what they change is
overwritten. Keras counts an epoch's steps from 0: in the epoch that is resumed, `EpochCallbacks` counts on.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from rayfeed.errors import OptionError
from rayfeed.trainer.adapter import FeedAdapter
from rayfeed.trainer.callback_state import Snapshot
from rayfeed.trainer.checkpoint_files import CheckpointFiles, Label
from rayfeed.trainer.compilation import Compilation
from rayfeed.trainer.messages import CheckpointPlan, Job
from rayfeed.trainer.randomness import RandomState, random_state, set_random_state
from rayfeed.trainer.resuming import SavedJob, SavedStream, check_same, resumed
from rayfeed.trainer.slices import Slices, Standing
from rayfeed.trainer.transport import Layout, conform, layout, places, read, write


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds besides the values of the model's variables.

    Attributes:
        label: The file's label.
        job: What the job must have the same, and where its streams stand.
        layout: The model's variables.
        compilation: How it was compiled.
        metrics: The running values of its metrics.
        random: The random states.
        callbacks: The class' name of each callback that runs in the trainer. `History` comes last.
        changes: What training has changed in them, packed; what the caller set stays as the caller sets it next time.
    """

    label: Label
    job: SavedJob
    layout: Layout
    compilation: Compilation
    metrics: list[np.ndarray]
    random: RandomState
    callbacks: list[str]
    changes: bytes


class Recorder:
    """One training's checkpoints, in the trainer's process.

    Args:
        plan: Where and how often, and what the training goes on from.
        directory: The caller's working directory.
        job: The job, as its caller asked for it.
        model: The model.
        callbacks: The user's callbacks that run here.
        tell: Learns of each checkpoint when it is there.

    Attributes:
        added: A `History`, where the user's callbacks have none.
        job: What is left of the job.
        saved: What the training goes on from; None where it begins at its beginning.

    Raises:
        CheckpointError: The checkpoint is none, or not whole.
        OptionError: It is of another training, or none can be written.
    """

    def __init__(
        self,
        plan: CheckpointPlan,
        directory: str,
        job: Job,
        model: Any,
        callbacks: list[keras.callbacks.Callback],
        tell: Callable[[Label], None] = lambda _: None,
    ) -> None:
        self.job = job
        self.saved: Saved | None = None
        self._plan = plan
        self._asked = job
        self._model = model
        self._callbacks = list(callbacks)
        self._tell = tell
        self._inputs: Any = None
        self._has_warned = False
        self._files = CheckpointFiles(plan.location, directory)
        self._files.check_writable(plan.run, plan.attempt)
        # Keras would add its own History behind `Saving`, which must see what it has recorded.
        has_own = any(isinstance(one, keras.callbacks.History) for one in callbacks)
        self.added = [] if has_own else [keras.callbacks.History()]
        self._callbacks += self.added
        self._snapshot = Snapshot(self._callbacks, model)
        if plan.start is not None:
            self._files.check(plan.start)
            saved: Saved = pickle.loads(next(self._files.read(plan.start)))
            check_same(saved.job, job, where=self._files.at(plan.start))
            self._check_callbacks(saved, self._files.at(plan.start))
            saved.compilation.check_asked(model, where=self._files.at(plan.start))
            self.saved = saved
            self.job = resumed(job, saved.label, saved.job)

    @property
    def standing(self) -> Standing | None:
        """Where the training's stream goes on; None at its beginning, and where nothing is left to train."""
        return self._standing(self.saved.job.stream if self.saved is not None else None)

    @property
    def validation_standing(self) -> Standing | None:
        """Where the validation's stream goes on, likewise."""
        return self._standing(self.saved.job.validation if self.saved is not None else None)

    def _standing(self, saved: SavedStream | None) -> Standing | None:
        is_over = self.job.initial_epoch >= self.job.epochs
        return saved.standing if saved is not None and not is_over else None

    def take_down(self) -> None:
        """Take the callbacks' attributes down again, as `on_train_begin` left them.

        What differs later from these or from those that came is state; all else are settings.
        """
        self._snapshot.take()

    def _changes(self) -> bytes:
        warning = "This state of a callback is in no checkpoint" if not self._has_warned else None
        self._has_warned = True
        return self._snapshot.changes(warning=warning)

    def tell_inputs(self, inputs: Any) -> None:
        """The inputs that build the model, where data does."""
        self._inputs = inputs

    def begin(self, adapter: FeedAdapter, tell_inputs: Callable[[Any], None]) -> None:
        """Before Keras begins: make the model what it was, so that callbacks find it so.

        Args:
            adapter: Feeds the training.
            tell_inputs: Learns of the inputs that built the model.
        """
        if self.saved is None or self._plan.start is None:
            return
        if self.saved.layout.inputs is not None:
            self._inputs = self.saved.layout.inputs
            tell_inputs(self._inputs)
        conform(self._model, self.saved.layout)
        has_values = self.saved.label.step > 0
        if has_values and len(self._model.metrics_variables) != len(self.saved.metrics):
            # Keras makes most metrics' variables in the first step; they must be there before it.
            self._model._symbolic_build(data_batch=adapter.first_data())  # noqa: SLF001 - nothing public does it
        where = self._files.at(self._plan.start)
        self.saved.compilation.check_built(self._model, where=where, has_values=has_values)
        self.put_back()

    def saving(self, slices: Slices, testing: Slices | None, check_wanted: Callable[[], None]) -> Saving:
        """The callback that saves; `testing` are the validation's slices, where it has a stream."""
        every, epochs = self._plan.every, self.job.epochs
        return Saving(self, every=every, epochs=epochs, slices=slices, testing=testing, check_wanted=check_wanted)

    def put_back(self) -> None:
        """Give model, callbacks and random streams the state that was saved."""
        saved, start = self.saved, self._plan.start
        if saved is None or start is None:
            return
        records = self._files.read(start)
        next(records)
        for record in records:
            write(self._model, pickle.loads(record))
        self._snapshot.put_back(saved.changes)
        if saved.label.step:
            for variable, value in zip(self._model.metrics_variables, saved.metrics, strict=True):
                variable.assign(value)
        set_random_state(saved.random)

    def save(self, epoch: int, step: int, slices: Slices, testing: Slices | None, *, is_stopped: bool) -> None:
        """Save the training as it is now.

        Args:
            epoch: The epoch that it is to go on in.
            step: Batches of that epoch that were trained.
            slices: The training's.
            testing: The validation's, where it has a stream.
            is_stopped: Whether the training is stopped there.
        """
        model = self._model
        if hasattr(model, "jax_state_sync"):  # until then its variables have the values of the epoch's beginning
            model.jax_state_sync()
        label = Label(self._plan.run, epoch, step, is_stopped, time.time(), self._plan.attempt)
        saved = Saved(
            label=label,
            job=SavedJob.of(
                self._asked, slices.standing(step or None), testing.standing(None) if testing is not None else None
            ),
            layout=layout(model, self._inputs),
            compilation=Compilation.of(model),
            metrics=[np.array(keras.ops.convert_to_numpy(one)) for one in model.metrics_variables] if step else [],
            random=random_state(),
            callbacks=_names(self._callbacks),
            changes=self._changes(),
        )
        self._files.write(label, self._records(saved), replaces=self._plan.replaces)
        self._tell(label)

    def _records(self, saved: Saved) -> Iterator[bytes]:
        yield pickle.dumps(saved)
        for part in read(self._model, places(self._model)):
            yield pickle.dumps(part, protocol=5)

    def _check_callbacks(self, saved: Saved, where: str) -> None:
        theirs, ours = saved.callbacks, _names(self._callbacks)
        if theirs != ours:
            raise OptionError(
                f"{where} is of another training: its callbacks in the trainer are {', '.join(theirs)}; this call's "
                f"are {', '.join(ours)}.\n"
                "  Give the callbacks of the training that was saved, in their order, or another checkpoint_dir."
            )


def _names(callbacks: list[keras.callbacks.Callback]) -> list[str]:
    return [type(one).__name__ for one in callbacks]


class Saving(keras.callbacks.Callback):
    """Last of all in each hook: saves the training when it is time, and puts what was saved back when it goes on.

    Args:
        recorder: The training's.
        every: Batches from one checkpoint to the next; None: each epoch's end.
        epochs: The final epoch.
        slices: The training's.
        testing: The validation's, where it has a stream.
        check_wanted: Raises where the caller wants no more of the job.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        every: int | None,
        epochs: int,
        slices: Slices,
        testing: Slices | None,
        check_wanted: Callable[[], None],
    ) -> None:
        super().__init__()
        self._recorder = recorder
        self._every = every
        self._epochs = epochs
        self._slices = slices
        self._testing = testing
        self._check_wanted = check_wanted
        self._resumed = recorder.saved.label if recorder.saved is not None else None
        self._epoch = 0
        self._step = 0  # batches of the epoch that were trained
        self._num_unsaved = 0
        if every is not None:  # else Keras may run other callbacks' steps in threads, where the backend allows it
            self.on_train_batch_end = self._on_train_batch_end

    def on_train_begin(self, logs: Any = None) -> None:
        model: Any = self.model
        self._recorder.take_down()
        if self._resumed is not None:
            model._initial_epoch = None  # noqa: SLF001 - of a `BackupAndRestore`, which has a checkpoint of its own
            self._recorder.put_back()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._step = epoch, 0
        resumed, self._resumed = self._resumed, None
        if resumed is not None and resumed.step:
            self._step = resumed.step
            self._recorder.put_back()

    def _on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._trained(batch + 1)
        model: Any = self.model
        is_due = self._every is not None and self._num_unsaved >= self._every
        # At an epoch's last batch its end is near, which saves the validation too.
        if is_due and self._step < self._slices.length and not model.stop_training:
            self._save(self._epoch, self._step, is_stopped=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._trained(min(self._slices.length, self._slices.num_taken))
        model: Any = self.model
        is_stopped = bool(model.stop_training)
        # Who gives the job up, in another thread, says so before it stops the training; so this is asked after that.
        self._check_wanted()
        is_last = epoch + 1 == self._epochs or is_stopped
        if self._every is None or self._num_unsaved >= self._every or is_last:
            self._save(epoch + 1, 0, is_stopped=is_stopped)

    def _trained(self, step: int) -> None:
        self._num_unsaved += max(step - self._step, 0)
        self._step = step

    def _save(self, epoch: int, step: int, *, is_stopped: bool) -> None:
        self._num_unsaved = 0
        self._recorder.save(epoch, step, self._slices, self._testing, is_stopped=is_stopped)
