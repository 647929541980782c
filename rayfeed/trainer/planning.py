"""From the arguments of a public function to a `Job`: every check that can be made before anything is started.

How epochs, steps and passes follow from the arguments (contract C):

    source     steps given   an epoch is                     the stream ends after
    generator  required      the next `steps` batches        steps * epochs batches
    Sequence   no            one pass                        epochs passes
    Sequence   yes           the next `steps` batches        steps * epochs batches
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from rayfeed.errors import OptionError
from rayfeed.options import ProducerOptions, StreamOptions, check_integer
from rayfeed.queue.opening import StreamSpec, specify
from rayfeed.source.stream import SourceInfo, describe
from rayfeed.trainer.class_weight import Outputs, check_class_weight
from rayfeed.trainer.messages import Job, Method
from rayfeed.trainer.progress import can_redraw
from rayfeed.trainer.transport import check_compiled


def plan_fit(
    generator: Any,
    *,
    options: StreamOptions,
    producers: ProducerOptions | None,
    ships: bool,
    steps_per_epoch: int | None,
    epochs: int,
    initial_epoch: int,
    verbose: Any,
    class_weight: Any,
    outputs: Outputs | None,
    validation_data: Any,
    validation_steps: int | None,
    validation_freq: Any,
) -> Job:
    """Check the arguments of `fit_generator` and make its job.

    Raises:
        OptionError: An argument is out of range, or one is missing.
        SourceError: A source is none, is empty, or cannot travel.
    """
    check_integer("epochs", epochs, least=0)
    check_integer("initial_epoch", initial_epoch, least=0)
    check_integer("steps_per_epoch", steps_per_epoch, least=1, or_none=True)
    check_integer("validation_steps", validation_steps, least=1, or_none=True)
    num_epochs = max(epochs - initial_epoch, 0)
    info = describe(generator, name="generator")
    if info.is_endless and steps_per_epoch is None:
        raise OptionError(
            f"steps_per_epoch is required for {_described(info)}: it has no length.\n"
            "  Give the number of batches that make an epoch, or pass a Sequence, whose length says it."
        )
    if info.is_sequence and steps_per_epoch is not None:
        options = replace(options, shuffle=False)  # passes follow each other in order (C4)
    num_validations = len(validated_epochs(validation_freq, initial_epoch, epochs))
    arrays, validation = _plan_validation(
        validation_data if num_validations else None,
        options=replace(options, shuffle=False),
        ships=ships,
        steps=validation_steps,
        num_validations=num_validations,
    )
    stream = specify(
        generator,
        name="generator",
        options=options,
        ships=ships,
        max_passes=num_epochs if steps_per_epoch is None else None,
        max_batches=num_epochs * steps_per_epoch if steps_per_epoch is not None else None,
    )
    return Job(
        method="fit",
        stream=stream,
        producers=check_producers(producers),
        steps=steps_per_epoch,
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=check_verbose(verbose),
        class_weight=check_class_weight(class_weight, outputs),
        validation=validation,
        validation_arrays=arrays,
        validation_steps=validation_steps,
        validation_freq=list(validation_freq) if isinstance(validation_freq, Iterable) else int(validation_freq),
        num_validations=num_validations,
    )


def plan_single(
    method: Method,
    generator: Any,
    *,
    options: StreamOptions,
    producers: ProducerOptions | None,
    ships: bool,
    steps: int | None,
    verbose: Any,
) -> Job:
    """Check the arguments of `evaluate_generator` or `predict_generator` and make its job.

    Raises:
        OptionError: An argument is out of range, or one is missing.
        SourceError: The source is none, is empty, or cannot travel.
    """
    check_integer("steps", steps, least=1, or_none=True)
    info = describe(generator, name="generator")
    if info.is_endless and steps is None:
        raise OptionError(
            f"steps is required for {_described(info)}: it has no length.\n"
            "  Give the number of batches to read, or pass a Sequence, whose length says it."
        )
    stream = specify(
        generator,
        name="generator",
        options=options,
        ships=ships,
        max_passes=1 if steps is None else None,
        max_batches=steps,
    )
    return Job(method, stream, check_producers(producers), steps, verbose=check_verbose(verbose))


def _plan_validation(
    data: Any, *, options: StreamOptions, ships: bool, steps: int | None, num_validations: int
) -> tuple[tuple[Any, ...] | None, StreamSpec | None]:
    """The validation's arrays, or its stream; (None, None) without validation."""
    if data is None:
        return None, None
    if isinstance(data, (tuple, list)):
        if len(data) not in (2, 3):
            raise OptionError(f"validation_data must be (x, y) or (x, y, sample_weight), got {len(data)} members.")
        members = data if data[-1] is not None else data[:-1]
        return tuple(
            None if member is None else keras.tree.map_structure(np.asarray, member) for member in members
        ), None
    info = describe(data, name="validation_data")
    if info.is_endless and steps is None:
        raise OptionError(
            f"validation_steps is required for {_described(info, 'validation ')}: it has no length.\n"
            "  Give the number of batches of each validation, or pass a Sequence, whose length says it."
        )
    if info.is_sequence:
        length = info.length or 0
        if steps is not None and steps > length:
            warnings.warn(
                f"validation_steps={steps} is more than validation_data has ({length} batches): each validation is one "
                "pass.",
                stacklevel=5,
            )
        spec = specify(
            data, name="validation_data", options=options, ships=ships, max_passes=num_validations, pass_cap=steps
        )
        return None, spec
    spec = specify(
        data,
        name="validation_data",
        options=options,
        ships=ships,
        single=True,
        max_batches=num_validations * (steps or 0),
    )
    return None, spec


def _described(info: SourceInfo, role: str = "") -> str:
    return f"an endless {role}Sequence ({info.type_name})" if info.is_sequence else f"a {role}generator"


def validated_epochs(validation_freq: Any, initial_epoch: int, epochs: int) -> list[int]:
    """The epochs, from 0, after which Keras validates.

    Raises:
        OptionError: `validation_freq` is neither a whole number nor a list of epochs.
    """
    if isinstance(validation_freq, Iterable) and not isinstance(validation_freq, str):
        wanted = set(validation_freq)
        return [epoch for epoch in range(initial_epoch, epochs) if epoch + 1 in wanted]
    check_integer("validation_freq", validation_freq, least=1)
    every = int(validation_freq)
    return [epoch for epoch in range(initial_epoch, epochs) if (epoch + 1) % every == 0]


def check_producers(producers: ProducerOptions | None) -> ProducerOptions:
    """The caller's producer options, or the defaults.

    Raises:
        OptionError: It is something else.
    """
    if producers is None:
        return ProducerOptions()
    if not isinstance(producers, ProducerOptions):
        raise OptionError(f"producers must be a rayfeed.ProducerOptions, got {producers!r}.")
    return producers


def check_ready(method: Method, model: Any) -> None:
    """Raise `OptionError` unless a job may be run with the model: a prediction needs no compiled one."""
    if method != "predict":
        check_compiled(model, call=f"{method}_generator")


def check_verbose(verbose: Any) -> int:
    """0, 1 or 2; "auto" is 1 where a bar can move, which is everywhere in Keras, and 2 elsewhere.

    Raises:
        OptionError: It is something else.
    """
    if verbose == "auto":
        return 1 if can_redraw() else 2
    if verbose not in (0, 1, 2):
        raise OptionError(f"verbose must be 0 (silent), 1 (progress bar) or 2 (one line per epoch), got {verbose!r}.")
    return int(verbose)
