"""The job that is left of one, and which jobs a checkpoint is not for."""

import re
from dataclasses import replace

import pytest

from rayfeed.errors import OptionError
from rayfeed.options import ProducerOptions, StreamOptions
from rayfeed.queue.opening import specify
from rayfeed.queue.position import START, Position
from rayfeed.trainer.checkpoint_files import Label
from rayfeed.trainer.messages import Job
from rayfeed.trainer.resuming import SavedJob, check_same, resumed
from rayfeed.trainer.slices import Standing
from tests.sources import Numbered


def numbers():
    yield from ()


class Announced(Numbered):
    def on_epoch_begin(self):
        pass


def made(source, steps=None, validation=None, *, epochs=5, validation_steps=None, validation_freq=1, **options):
    options = StreamOptions(**{"workers": 2, "use_multiprocessing": True} | options)
    total = epochs * steps if steps is not None else None
    stream = specify(
        source, name="generator", options=options, ships=True, max_passes=None if steps else epochs, max_batches=total
    )
    if validation is not None:
        validation = specify(
            validation, name="validation_data", options=options, ships=True, single=True, pass_cap=validation_steps
        )
    return Job(
        "fit",
        stream,
        ProducerOptions(),
        steps=steps,
        epochs=epochs,
        validation=validation,
        validation_steps=validation_steps,
        validation_freq=validation_freq,
    )


def label(epoch, step=0, *, stopped=False):
    return Label("run", epoch, step, stopped, 0.0)


def left(job, place, position, validation=None, *, again=None):
    """What is left of a job, asked for again by a new call."""
    standing = Standing(position, place.step or None, 10)
    validation = Standing(validation, None, 3) if validation is not None else None
    return resumed(again or job, place, SavedJob.of(job, standing, validation))


def test_a_sequence_goes_on_in_its_pass_with_the_orders_of_the_call_that_was_saved():
    job, again = (made(Numbered(10), shuffle=True) for _ in range(2))
    assert job.stream.root != again.stream.root
    rest = left(job, label(2, 4), Position(2, 4), again=again)
    assert (rest.initial_epoch, rest.epochs) == (2, 5)
    assert (rest.stream.root, rest.stream.start, rest.stream.max_passes) == (job.stream.root, Position(2, 4), 5)


def test_of_a_sequence_cut_into_steps_as_many_batches_are_left_as_are_to_be_trained():
    rest = left(made(Numbered(10), 4), label(2, 3), Position(1, 1))
    assert (rest.stream.start, rest.stream.max_batches) == (Position(1, 1), 9)


def test_a_generator_begins_at_its_beginning():
    rest = left(made(numbers, 4), label(2, 3), Position(0, 11))
    assert (rest.stream.start, rest.stream.max_batches) == (START, 20)


def test_validation_goes_on_with_its_own_position_and_root():
    job, again = (made(Numbered(10), validation=Numbered(3)) for _ in range(2))
    rest = left(job, label(2), Position(1, 10), Position(1, 3), again=again)
    assert (rest.validation.root, rest.validation.start) == (job.validation.root, Position(1, 3))
    assert left(job, label(0, 3), Position(0, 3)).validation.start == START


@pytest.mark.parametrize(
    ("source", "place", "position", "freq", "num_passes"),
    [
        (Numbered(3), label(2), Position(1, 3), 1, 5),  # two were, three are left
        (Numbered(3), label(2, 4), Position(1, 3), 2, 3),  # the fourth epoch's is left
        (Numbered(3), label(2, 4), Position(1, 3), [1, 2], 2),  # none
        (Numbered(3), label(2), None, 1, 3),  # validation is new
        (Announced(3), label(2), Position(2), 1, 5),  # there the end of the last pass was read
        (Announced(3), label(2), None, 1, 3),
    ],
)
def test_a_validations_passes_are_those_before_and_one_for_each_that_is_left(source, place, position, freq, num_passes):
    job, again = (made(Numbered(10), validation=source, validation_freq=one) for one in (1, freq))
    if position is None:
        job = replace(job, validation=None)
    assert left(job, place, Position(2, 4), position, again=again).validation.max_passes == num_passes


@pytest.mark.parametrize(
    ("position", "freq", "num_batches"), [(Position(0, 6), 1, 15), (Position(0, 6), 2, 9), (None, 1, 9)]
)
def test_a_validations_batches_are_those_before_and_the_steps_of_each_that_is_left(position, freq, num_batches):
    job, again = (made(Numbered(10), validation=numbers, validation_steps=3, validation_freq=one) for one in (1, freq))
    if position is None:
        job = replace(job, validation=None)
    rest = left(job, label(2), Position(2, 4), position, again=again)
    assert (rest.validation.max_batches, rest.num_validations) == (num_batches, 3 if freq == 1 else 1)


@pytest.mark.parametrize(
    ("place", "epochs", "first"),
    [
        (label(5), 5, 5),
        (label(5), 3, 5),
        (label(5), 8, 5),
        (label(2, stopped=True), 5, 5),
        (label(5, stopped=True), 8, 8),
    ],
)
def test_what_is_over_is_over_unless_more_epochs_are_asked_for(place, epochs, first):
    job = made(Numbered(10))
    rest = left(job, place, Position(4, 10), again=replace(job, epochs=epochs))
    assert rest.initial_epoch == first
    assert (rest.stream.start == START) == (first >= epochs)


def test_any_number_of_workers_goes_on_from_a_sequence_and_as_many_copies_of_a_generator():
    saved = SavedJob.of(made(Numbered(10)))
    for options in ({"workers": 0}, {"workers": 7}, {"workers": (1, 3)}, {"use_multiprocessing": False}):
        check_same(saved, made(Numbered(10), **options), where="there")
    text = (
        "there is of another training: its generator is the generator numbers in 2 copies; this call's is "
        "the generator numbers in 3 copies.\n"
        "  Give the arguments of the training that was saved, or another checkpoint_dir."
    )
    with pytest.raises(OptionError, match=re.escape(text)):
        check_same(SavedJob.of(made(numbers, 4)), made(numbers, 4, workers=3), where="there")


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"steps": 4}, "its steps_per_epoch is None; this call's is 4"),
        ({"seed": 5}, "its seed is None; this call's is 5"),
        ({"validation_steps": 2}, "its validation_steps is None; this call's is 2"),
        ({"validation": Numbered(4)}, "its validation_data is the Sequence Numbered of 3 batches, in its order; this"),
    ],
)
def test_a_checkpoint_of_other_arguments_is_refused_with_both(other, text):
    saved = SavedJob.of(made(Numbered(10), validation=Numbered(3)))
    with pytest.raises(OptionError, match=re.escape(f"there is of another training: {text}")):
        check_same(saved, made(Numbered(10), **{"validation": Numbered(3)} | other), where="there")


def test_a_validation_that_is_new_may_have_any_number_of_steps():
    for one, other in ((None, Numbered(3)), (Numbered(3), None)):
        saved = SavedJob.of(made(Numbered(10), validation=one))
        check_same(saved, made(Numbered(10), validation=other, validation_steps=2), where="there")
