"""From a checkpoint to the job that goes on from it: what must be the same as before, and where its streams begin.

    source     epoch is a pass                     fixed number of steps
    Sequence   begins at a pass and a place in it  likewise; as many batches as are left to train
    generator  -                                   begins at its beginning; what was consumed is made again and dropped

Anything else may be another: the number of workers, the queue, the final epoch, the callbacks' own settings, and which
epochs are validated. So the validation's stream is planned anew, from where it stands: its next pass, or its next
batches, for each validation that is left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rayfeed.errors import OptionError
from rayfeed.queue.opening import StreamSpec
from rayfeed.queue.position import START, SavedState
from rayfeed.trainer.checkpoint_files import Label
from rayfeed.trainer.messages import Job
from rayfeed.trainer.planning import validated_epochs
from rayfeed.trainer.slices import Standing


@dataclass(frozen=True)
class SavedStream:
    """A source, and where its stream stood.

    Attributes:
        type_name: The source's class, or its function's name.
        state: What tells the source from another, and its position.
        standing: Where its slices stood; None where none had begun.
    """

    type_name: str
    state: SavedState
    standing: Standing | None

    @classmethod
    def of(cls, spec: StreamSpec, standing: Standing | None) -> SavedStream:
        """A stream as it is to be saved."""
        state = SavedState(
            is_sequence=spec.info.is_sequence,
            seed=spec.root,
            seeded=spec.options.seed is not None,
            shuffle=spec.options.shuffle,
            length=spec.info.length,
            copies=1 if spec.info.is_sequence else spec.num_lanes,
            position=standing.position if standing is not None else START,
        )
        return cls(spec.info.type_name, state, standing)

    def __str__(self) -> str:
        if not self.state.is_sequence:
            copies = f" in {self.state.copies} copies" if self.state.copies > 1 else ""
            return f"the generator {self.type_name}{copies}"
        order = "shuffled" if self.state.shuffle else "in its order"
        return f"the Sequence {self.type_name} of {self.state.length} batches, {order}"


@dataclass(frozen=True)
class SavedJob:
    """What of a job must be the same for its checkpoints to fit.

    Attributes:
        steps: Batches of an epoch; None where an epoch is a pass.
        initial_epoch: The first epoch.
        stream: The training's source.
        validation: The validation's, where it is one.
        validation_steps: Batches of a validation; None where it is a pass.
    """

    steps: int | None
    initial_epoch: int
    stream: SavedStream
    validation: SavedStream | None
    validation_steps: int | None

    @classmethod
    def of(cls, job: Job, standing: Standing | None = None, validation_standing: Standing | None = None) -> SavedJob:
        """A job as it is to be saved, its streams standing there."""
        return cls(
            steps=job.steps,
            initial_epoch=job.initial_epoch,
            stream=SavedStream.of(job.stream, standing),
            validation=SavedStream.of(job.validation, validation_standing) if job.validation is not None else None,
            validation_steps=job.validation_steps,
        )


def check_same(saved: SavedJob, job: Job, *, where: str) -> None:
    """Raise `OptionError` unless a job can go on from what was saved.

    Args:
        saved: What was saved.
        job: The job, as its caller asked for it.
        where: The checkpoint's file.
    """
    ours = SavedJob.of(job)
    pairs = [("generator", saved.stream, ours.stream)]
    numbers = [
        ("steps_per_epoch", saved.steps, ours.steps),
        ("initial_epoch", saved.initial_epoch, ours.initial_epoch),
    ]
    if saved.validation is not None and ours.validation is not None:
        pairs.append(("validation_data", saved.validation, ours.validation))
        numbers.append(("validation_steps", saved.validation_steps, ours.validation_steps))
    for name, theirs, mine in pairs:
        if str(theirs) != str(mine):
            raise _refusal(where, name, str(theirs), str(mine))
        if (theirs.state.seeded or mine.state.seeded) and theirs.state.seed != mine.state.seed:
            raise _refusal(where, "seed", _seed(theirs.state), _seed(mine.state))
    for name, theirs, mine in numbers:
        if theirs != mine:
            raise _refusal(where, name, str(theirs), str(mine))


def _seed(state: SavedState) -> str:
    return str(state.seed) if state.seeded else "None"


def _refusal(where: str, name: str, theirs: str, mine: str) -> OptionError:
    return OptionError(
        f"{where} is of another training: its {name} is {theirs}; this call's is {mine}.\n"
        "  Give the arguments of the training that was saved, or another checkpoint_dir."
    )


def resumed(job: Job, label: Label, saved: SavedJob) -> Job:
    """The job that is left of one; it trains nothing where no epoch is left, or the training was stopped.

    Args:
        job: The job, as its caller asked for it.
        label: How far the checkpoint is.
        saved: What was saved.
    """
    initial_epoch = max(job.epochs, label.epoch) if label.is_stopped else label.epoch
    num_left = max(job.epochs - initial_epoch, 0)
    if not num_left:  # nothing is read; but some backends look at a batch before they see that
        return replace(job, initial_epoch=initial_epoch)
    stream = _going_on(job.stream, saved.stream)
    if job.steps is not None and stream.info.is_sequence:
        stream = replace(stream, max_batches=num_left * job.steps - label.step)
    num_validations = len(validated_epochs(job.validation_freq, initial_epoch, job.epochs))
    validation = job.validation
    if validation is not None:
        validation = _validating(validation, saved.validation, num_validations, job.validation_steps or 0)
    return replace(
        job, stream=stream, validation=validation, initial_epoch=initial_epoch, num_validations=num_validations
    )


def _going_on(spec: StreamSpec, saved: SavedStream) -> StreamSpec:
    start = saved.state.position if saved.state.is_sequence else START
    return replace(spec, root=saved.state.seed, start=start)


def _validating(spec: StreamSpec, saved: SavedStream | None, num_left: int, steps: int) -> StreamSpec:
    """The validation's stream for as many validations as are left.

    Checkpoints are made between two of them. There the pass of the last one has been read, but not its end, unless the
    next begins with a hook: then it stands at the beginning of the next.
    """
    standing = None
    if saved is not None:
        spec, standing = _going_on(spec, saved), saved.standing
    position = standing.position if standing is not None else START
    if spec.info.is_sequence:
        num_begun = position.pass_index + (standing is not None and not spec.info.has_epoch_begin)
        return replace(spec, max_passes=num_begun + num_left)
    return replace(spec, max_batches=position.consumed + num_left * steps)
