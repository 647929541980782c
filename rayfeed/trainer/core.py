"""One job, carried out in this process: streams opened, Keras called, everything closed again.

Training is Keras' `fit`, validation its `evaluate`; nothing here loops over batches. The same function serves the
trainer actor and ``trainer="driver"``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras  # noqa: TC002 - the backend is chosen: this file is only loaded beside a model

from rayfeed.producer.mailbox import Mailbox
from rayfeed.queue.keeping import Keeper
from rayfeed.queue.opening import OpenStreams, StreamSpec, open_streams
from rayfeed.queue.stream import Stream
from rayfeed.trainer.adapter import FeedAdapter
from rayfeed.trainer.callbacks import Closing, EpochCallbacks, Opening
from rayfeed.trainer.class_weight import ClassWeight, outputs_of
from rayfeed.trainer.jax_state import state_kept
from rayfeed.trainer.messages import Job, Outcome
from rayfeed.trainer.planning import validated_epochs
from rayfeed.trainer.saving import Recorder
from rayfeed.trainer.slices import Slices, Standing
from rayfeed.trainer.transport import layers_of

FUNCTIONS = {"fit": "train_function", "evaluate": "test_function", "predict": "predict_function"}
"""Where Keras keeps the function of a step; that of a prediction is made otherwise, and traced as batches come."""

Watch = Callable[[OpenStreams | None], None]
"""Told the job's streams when they are opened, and None before they are closed; lets another thread abort the job."""


def run_job(
    job: Job,
    model: Any,
    callbacks: list[keras.callbacks.Callback],
    *,
    progress: keras.callbacks.Callback | None,
    watch: Watch,
    tell_inputs: Callable[[Any], None],
    keeper: Keeper,
    check_wanted: Callable[[], None] = lambda: None,
    mailbox: Mailbox | None = None,
    recorder: Recorder | None = None,
) -> Outcome:
    """Carry a job out.

    Args:
        job: What to do.
        model: The model, compiled.
        callbacks: The user's, in their order.
        progress: Draws or passes on the progress; None for none.
        watch: Learns of the streams.
        tell_inputs: Learns of the first batch's inputs where the model is not built yet: they build it.
        keeper: Has the producers of the trainer's calls.
        check_wanted: Raises where the caller wants no more of the job.
        mailbox: Where orders wait for sources in the caller's process, where that is not this one.
        recorder: Saves the training, where it is to be saved; has what is left of it, where it goes on.

    Raises:
        Exception: What the source, a callback or the model raised.
    """
    job = recorder.job if recorder is not None else job
    specs = [job.stream] + ([job.validation] if job.validation is not None else [])
    with _opened(specs, job, watch, keeper, mailbox) as streams:
        slices = _slices(streams[0], job.stream, job.steps, recorder.standing if recorder is not None else None)
        adapter = FeedAdapter(
            slices,
            model,
            what=job.stream.name,
            class_weight=ClassWeight(job.class_weight, outputs_of(model)) if job.class_weight is not None else None,
            function=FUNCTIONS[job.method],
        )
        streams[0].start()
        with contextlib.closing(adapter), _own_errors(adapter), state_kept(model):
            slices.catch_up()
            if recorder is not None:
                recorder.begin(adapter, tell_inputs)
            if not all(layer.built for layer in layers_of(model)):  # Keras may call a model built whose layers are not
                inputs = adapter.input_specs()
                tell_inputs(inputs)
                if recorder is not None:
                    recorder.tell_inputs(inputs)
            match job.method:
                case "fit":
                    return _fit(job, model, adapter, streams, callbacks, progress, check_wanted, recorder)
                case "evaluate":
                    opening = Opening(None, adapter, check_wanted)
                    container = _container(job, model, [opening, *callbacks], progress, slices)
                    value = model.evaluate(adapter, callbacks=container, verbose=0)
                case "predict":
                    opening = Opening(None, adapter, check_wanted)
                    container = _container(job, model, [opening, *callbacks], progress, slices)
                    value = model.predict(adapter, callbacks=container, verbose=0)
        return Outcome(value, streams[0].stats())


def _fit(
    job: Job,
    model: Any,
    adapter: FeedAdapter,
    streams: list[Stream],
    callbacks: list[keras.callbacks.Callback],
    progress: keras.callbacks.Callback | None,
    check_wanted: Callable[[], None],
    recorder: Recorder | None,
) -> Outcome:
    slices = adapter.slices
    validation: Any = job.validation_arrays
    testing: FeedAdapter | None = None
    if job.validation is not None:
        spec, stream = job.validation, streams[1]
        steps = job.validation_steps if not spec.info.is_sequence else None
        standing = recorder.validation_standing if recorder is not None else None
        testing = validation = FeedAdapter(_slices(stream, spec, steps, standing), model, what=spec.name)
        num_workers = spec.options.num_producers * spec.options.num_threads
        adapter.prefetch_when_near(stream.start, spec.options.max_queue_size + num_workers)
    opening = Opening(adapter, testing, check_wanted)
    last: list[keras.callbacks.Callback] = [Closing(slices, job.epochs)]
    if recorder is not None:
        validated = testing.slices if testing is not None else None
        last += [*recorder.added, recorder.saving(slices, validated, check_wanted)]
    container = _container(job, model, [opening, *callbacks], progress, slices, last=last)
    # Keras' `BackupAndRestore` leaves the epoch it resumed at in the model, where it would hold for later calls too.
    model._initial_epoch = None  # noqa: SLF001 - there is no other way
    with contextlib.ExitStack() as stack:
        if testing is not None:
            stack.enter_context(contextlib.closing(testing))
            stack.enter_context(_own_errors(testing))
            if job.num_validations:  # of a training that is resumed none may be left
                testing.slices.catch_up()
        history = model.fit(
            adapter,
            epochs=job.epochs,
            initial_epoch=job.initial_epoch,
            callbacks=container,
            validation_data=validation,
            validation_steps=job.validation_steps if job.validation_arrays is not None else None,
            validation_freq=job.validation_freq,
            shuffle=False,
            verbose=0,
        )
    first = opening.first_epoch
    if first is not None:
        _finish(slices, job.epochs - first, planned=job.epochs - job.initial_epoch)
        if testing is not None:
            validations, planned = (
                len(validated_epochs(job.validation_freq, begin, job.epochs)) for begin in (first, job.initial_epoch)
            )
            _finish(testing.slices, validations, planned=planned)
    return Outcome(
        None,
        streams[0].stats(),
        history=history.history,
        epochs=history.epoch,
        params={name: value for name, value in history.params.items() if name != "steps"} | {"steps": slices.length},
    )


def _finish(slices: Slices, wanted: int, *, planned: int) -> None:
    """Wait for the hook after the very last pass, which is still to come, unless training stopped before.

    A training that a callback resumed (`BackupAndRestore`) wants fewer slices than its stream was planned for.
    """
    if slices.is_complete and slices.num_begun == wanted:
        if wanted == planned:
            slices.finish()
        else:
            slices.next_length()


def _container(
    job: Job,
    model: Any,
    callbacks: list[keras.callbacks.Callback],
    progress: keras.callbacks.Callback | None,
    slices: Slices,
    last: list[keras.callbacks.Callback] | None = None,
) -> keras.callbacks.CallbackList:
    """Keras' own container, with its own History and params, and our callbacks around the user's."""
    members = [*callbacks, *([progress] if progress is not None else []), *(last or [])]
    return EpochCallbacks(
        slices,
        members,
        add_history=job.method == "fit",
        model=model,
        verbose=job.verbose,
        epochs=job.epochs,
        steps=slices.length,
    )


@contextlib.contextmanager
def _opened(
    specs: list[StreamSpec], job: Job, watch: Watch, keeper: Keeper, mailbox: Mailbox | None
) -> Iterator[list[Stream]]:
    opened = open_streams(specs, job.producers, keeper=keeper, mailbox=mailbox)
    watch(opened)
    try:
        yield opened.streams
    finally:
        watch(None)
        opened.close()


@contextlib.contextmanager
def _own_errors(adapter: FeedAdapter) -> Iterator[None]:
    """Raise what the source raised, with its cause, whatever Keras or ``tf.data`` made of it.

    Keras drops the cause of an error; ``tf.data`` raises one of its own in its place; and TensorFlow's out-of-range
    error, raised by a source, would pass for the end of the data.
    """
    slices = adapter.slices
    try:
        yield
    except Exception as error:
        failed = slices.failure
        if failed is None:
            raise
        if failed.error is error:
            error.__cause__ = failed.cause
            raise
        raise failed.error from failed.cause or error
    if slices.failure is not None:
        raise slices.failure.error from slices.failure.cause


def _slices(stream: Stream, spec: StreamSpec, steps: int | None, standing: Standing | None = None) -> Slices:
    return Slices(
        stream,
        steps=steps,
        first_length=_pass_length(spec),
        announced=spec.info.has_epoch_begin,
        standing=standing,
        skipped=0 if spec.info.is_sequence or standing is None else standing.position.consumed,
    )


def _pass_length(spec: StreamSpec) -> int | None:
    if spec.info.length is None or spec.pass_cap is None:
        return spec.info.length
    return min(spec.info.length, spec.pass_cap)
