"""One job, carried out in this process: streams opened, Keras called, everything closed again.

Training is Keras' `fit`, validation its `evaluate`; nothing here loops over batches. The same function serves the
trainer actor and ``trainer="driver"``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from rayfeed.producer.mailbox import Mailbox
from rayfeed.queue.keeping import Keeper
from rayfeed.queue.opening import OpenStreams, StreamSpec, open_streams
from rayfeed.queue.stream import Stream
from rayfeed.trainer.adapter import FeedAdapter
from rayfeed.trainer.callbacks import Closing, Opening
from rayfeed.trainer.class_weight import ClassWeight
from rayfeed.trainer.messages import Job, Outcome
from rayfeed.trainer.slices import Slices

Watch = Callable[[OpenStreams | None], None]
"""Told the job's streams when they are opened, and None before they are closed; lets another thread abort the job."""


def run_job(
    job: Job,
    model: Any,
    callbacks: list[keras.callbacks.Callback],
    *,
    progress: keras.callbacks.Callback | None,
    watch: Watch,
    keeper: Keeper,
    mailbox: Mailbox | None = None,
) -> Outcome:
    """Carry a job out.

    Args:
        job: What to do.
        model: The model, built and compiled.
        callbacks: The user's, in their order.
        progress: Draws or passes on the progress; None for none.
        watch: Learns of the streams.
        keeper: Has the producers of the trainer's calls.
        mailbox: Where orders wait for sources in the caller's process, where that is not this one.

    Raises:
        Exception: What the source, a callback or the model raised.
    """
    specs = [job.stream] + ([job.validation] if job.validation is not None else [])
    with _opened(specs, job, watch, keeper, mailbox) as streams:
        slices = Slices(streams[0], steps=job.steps, first_length=_pass_length(job.stream))
        adapter = FeedAdapter(
            slices,
            model,
            what=job.stream.name,
            class_weight=ClassWeight(job.class_weight) if job.class_weight is not None else None,
            stops_training=job.method == "fit",
        )
        streams[0].start()
        with _own_errors(adapter):
            match job.method:
                case "fit":
                    return _fit(job, model, adapter, streams, callbacks, progress)
                case "evaluate":
                    container = _container(job, model, [Opening(None, adapter), *callbacks], progress, slices)
                    value = model.evaluate(adapter, callbacks=container, verbose=0)
                case "predict":
                    container = _container(job, model, [Opening(None, adapter), *callbacks], progress, slices)
                    value = model.predict(adapter, callbacks=container, verbose=0)
        return Outcome(value, streams[0].stats())


def _fit(
    job: Job,
    model: Any,
    adapter: FeedAdapter,
    streams: list[Stream],
    callbacks: list[keras.callbacks.Callback],
    progress: keras.callbacks.Callback | None,
) -> Outcome:
    slices = adapter.slices
    validation: Any = job.validation_arrays
    testing: FeedAdapter | None = None
    if job.validation is not None:
        spec, stream = job.validation, streams[1]
        steps = job.validation_steps if not spec.info.is_sequence else None
        validation_slices = Slices(stream, steps=steps, first_length=_pass_length(spec))
        testing = validation = FeedAdapter(validation_slices, model, what=spec.name)
        adapter.prefetch_when_near(stream.start, spec.options.max_queue_size + spec.options.workers)
    ours = [Opening(adapter, testing), *callbacks]
    container = _container(job, model, ours, progress, slices, last=[Closing(slices, job.epochs)])
    errors = _own_errors(testing) if testing is not None else contextlib.nullcontext()
    with errors:
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
    # The hook after the very last pass is still to come, unless training stopped before.
    if slices.is_complete and slices.num_begun == job.epochs - job.initial_epoch:
        slices.finish()
    if testing is not None and testing.slices.is_complete and testing.slices.num_begun == job.num_validations:
        testing.slices.finish()
    return Outcome(
        None,
        streams[0].stats(),
        history=history.history,
        epochs=history.epoch,
        params={name: value for name, value in history.params.items() if name != "steps"} | {"steps": slices.length},
    )


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
    return keras.callbacks.CallbackList(
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


def _pass_length(spec: StreamSpec) -> int | None:
    if spec.info.length is None or spec.pass_cap is None:
        return spec.info.length
    return min(spec.info.length, spec.pass_cap)
