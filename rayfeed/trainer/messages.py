"""What crosses between the caller and the trainer, and what is told of the progress meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rayfeed.options import ProducerOptions
from rayfeed.queue.opening import StreamSpec
from rayfeed.source.failure import Failure
from rayfeed.stats import FeedStats
from rayfeed.trainer.checkpoint_files import Label
from rayfeed.trainer.class_weight import NamedWeights, Weights
from rayfeed.trainer.model_host import Leaving
from rayfeed.trainer.randomness import RandomState
from rayfeed.trainer.warned import WarningEvent

Method = Literal["fit", "evaluate", "predict"]


@dataclass(frozen=True)
class Job:
    """One call of fit, evaluate or predict, as the trainer carries it out.

    Attributes:
        method: Which.
        stream: The source.
        producers: What each producer needs.
        steps: Batches of an epoch; None where an epoch is a pass.
        epochs: The final epoch.
        initial_epoch: The first epoch.
        verbose: As Keras'.
        class_weight: Class number -> weight, or output name -> that, or None.
        validation: The validation's source, where it is one.
        validation_arrays: ``(x, y)`` or ``(x, y, w)``, where it is arrays.
        validation_steps: Batches of a validation; None where it is a pass, or all of the arrays.
        validation_freq: As Keras'.
        num_validations: Validations that these epochs make.
    """

    method: Method
    stream: StreamSpec
    producers: ProducerOptions
    steps: int | None
    epochs: int = 1
    initial_epoch: int = 0
    verbose: int = 0
    class_weight: Weights | NamedWeights | None = None
    validation: StreamSpec | None = None
    validation_arrays: tuple[Any, ...] | None = None
    validation_steps: int | None = None
    validation_freq: int | list[int] = 1
    num_validations: int = 0


@dataclass(frozen=True)
class CheckpointPlan:
    """Where and how often a training is saved, and what it goes on from.

    Attributes:
        location: The checkpoints' directory, a path or URL.
        every: Batches from one to the next; None: each epoch's end.
        run: Tells the checkpoints of this call from those of others.
        start: The name of the one to go on from; None: the training begins at its beginning.
        replaces: The call that saved the one that is there; None where there is none.
        attempt: Which of the call's trainers this is for, from 1.
    """

    location: str
    every: int | None
    run: str
    start: str | None
    replaces: str | None
    attempt: int = 1


@dataclass(frozen=True)
class Request:
    """A job sent to a trainer actor.

    Attributes:
        job: What to do.
        random: The caller's random states.
        callbacks: The user's callbacks, packed.
        directory: The caller's working directory, against which callbacks resolve paths.
        number: Counts this caller's jobs in this trainer, from 1.
        on_driver: The callbacks that stay with the caller, in their order.
        each_step: Whether the caller draws each step.
        checkpoints: How the training is saved; None where it is not.
    """

    job: Job
    random: RandomState
    callbacks: bytes
    directory: str
    number: int
    on_driver: list[DriverSlot]
    each_step: bool
    checkpoints: CheckpointPlan | None = None


@dataclass(frozen=True)
class Outcome:
    """What a job gave.

    Attributes:
        value: The return value of Keras' method; None for fit.
        stats: The feed's figures.
        history: `History.history`; fit only.
        epochs: `History.epoch`; fit only.
        params: `History.params`; fit only.
    """

    value: Any
    stats: FeedStats
    history: dict[str, list[Any]] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Left:
    """What a job left behind in the trainer, for the caller's own objects to take on; also of a job that raised.

    Attributes:
        model: The model's state, whose changed values are still to be fetched; None where the job does not change it.
        random: The trainer's random states; None where the job did not begin.
        callbacks: What changed in the user's callbacks, packed; None where none was reached.
        progress: Events the caller has not asked for yet.
    """

    model: Leaving | None
    random: RandomState | None
    callbacks: bytes | None
    progress: list[Event]


@dataclass(frozen=True)
class Done:
    """The job is done."""

    outcome: Outcome
    left: Left


@dataclass(frozen=True)
class Failed:
    """The job raised."""

    failure: Failure
    left: Left


@dataclass(frozen=True)
class ProgressEvent:
    """One hook of a progress bar.

    Attributes:
        hook: The Keras hook's name, such as ``on_epoch_begin``.
        number: The epoch or step it is given; None for hooks without one.
        logs: The values it is given, as Python numbers.
        steps: Batches of the current epoch.
    """

    hook: str
    number: int | None
    logs: dict[str, float]
    steps: int | None


@dataclass(frozen=True)
class SavedEvent:
    """The training was saved.

    Attributes:
        label: What the checkpoint holds.
        node: The trainer's node.
    """

    label: Label
    node: str


@dataclass(frozen=True)
class DriverSlot:
    """A callback that runs in the caller's process, as the trainer knows it.

    Attributes:
        place: Its index among all of the job's callbacks.
        hooks: The Keras hooks that it has.
    """

    place: int
    hooks: frozenset[str]


@dataclass(frozen=True)
class HookCall:
    """A hook for the caller to run.

    Attributes:
        serial: Counts the job's hooks, from 1.
        callback: Which of the job's `DriverSlot`s.
        hook: The Keras hook's name, or ``set_params``.
        args: As Keras gave them, tensors as arrays.
        kwargs: Likewise.
        params: The callback's `params` at this moment.
        has_stopped: The model's `stop_training` at this moment.
    """

    serial: int
    callback: int
    hook: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    params: dict[str, Any]
    has_stopped: bool


@dataclass(frozen=True)
class Verdict:
    """How far the caller is with a job's hooks, and what its callbacks decided.

    Attributes:
        job: The job's number.
        num_done: Hooks that have run, which are run in their order.
        stop_training: Whether one of them set the model's `stop_training`.
        has_failed: Whether one of them raised; the job is to end.
    """

    job: int
    num_done: int
    stop_training: bool
    has_failed: bool


Event = ProgressEvent | HookCall | WarningEvent | SavedEvent
"""What the trainer tells while a job runs."""
