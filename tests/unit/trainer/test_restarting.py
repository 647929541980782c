"""Where a call's next trainer begins, what is said of it, and when it is over: decisions, without a trainer."""

import re
import warnings
from dataclasses import replace

import pytest

from rayfeed.errors import OptionError, TrainerDiedError
from rayfeed.options import ProducerOptions, StreamOptions, TrainerOptions
from rayfeed.queue.opening import specify
from rayfeed.trainer.checkpoint_files import Found, Label
from rayfeed.trainer.messages import CheckpointPlan, Job
from rayfeed.trainer.restarting import Attempts
from tests.sources import Numbered

SAVING = TrainerOptions(checkpoint_dir="saved", save_every=7)


@pytest.fixture
def job():
    stream = specify(Numbered(4), name="generator", options=StreamOptions(workers=1), ships=True)
    return Job("fit", stream, ProducerOptions(), steps=None)


def found(run, epoch=2, step=37, saved_at=90.0, *, is_stopped=False):
    return Found("checkpoint-00000005-run-1.rayfeed", Label(run, epoch, step, is_stopped, saved_at))


def attempts(job, options, own_runs=None, now=100.0):
    return Attempts(job, options, set() if own_runs is None else own_runs, now=lambda: now)


def died():
    error = TrainerDiedError("the trainer's process died during fit")
    error.__cause__ = OSError("gone")
    return error


def told(tries, newest):
    """The plan, and the one warning that was given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = tries.plan(newest)
    texts = [str(one.message) for one in caught]
    return plan, texts[0] if texts else None


def test_a_first_trainer_begins_at_the_beginning_and_says_nothing(job):
    plan, text = told(attempts(job, SAVING), None)
    assert (plan.location, plan.every, plan.start, text) == ("saved", 7, None, None)
    assert told(attempts(job, TrainerOptions(max_failures=2)), None) == (None, None)
    assert attempts(replace(job, method="evaluate"), SAVING).location is None


def test_another_goes_on_from_the_calls_own_checkpoint(job):
    tries = attempts(job, replace(SAVING, max_failures=3))
    run = tries.plan(None).run
    tries.lost("node 10.0.0.1, pid 42", died())
    plan, text = told(tries, found(run))
    assert plan == CheckpointPlan("saved", 7, run, "checkpoint-00000005-run-1.rayfeed", run, attempt=2)
    assert text == (
        "rayfeed: the trainer (node 10.0.0.1, pid 42) was lost during fit: going on from epoch 2, batch 37, saved 10 s "
        "before. Failure 1 of 3 (TrainerOptions.max_failures)."
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (replace(SAVING, max_failures=1), "as nothing had been saved yet"),
        (TrainerOptions(max_failures=1), "as without TrainerOptions.checkpoint_dir nothing was saved"),
    ],
)
def test_without_a_checkpoint_it_begins_again(options, why, job):
    tries = attempts(job, options)
    tries.lost("not yet on a node", died())
    plan, text = told(tries, None)
    assert plan is None or plan.start is None
    assert text == (
        f"rayfeed: the trainer (not yet on a node) was lost during fit: it begins again, {why}. Failure 1 of 1 "
        "(TrainerOptions.max_failures)."
    )


def test_what_the_next_trainer_cannot_reach_is_told_with_the_node_that_saved_it(job):
    tries = attempts(job, replace(SAVING, max_failures=2))
    tries.saved(found("own").label, "10.0.0.1")
    for _ in range(2):  # it is still there that it was saved last
        tries.lost("node 10.0.0.2, pid 7", died())
        plan, text = told(tries, None)
        assert plan.start is None
    assert text == (
        "rayfeed: the trainer (node 10.0.0.2, pid 7) was lost during fit: it begins again, as what was saved at epoch "
        "2, batch 37 in saved on node 10.0.0.1 is not to be found where the next trainer is (every node that the "
        "trainer may run on must reach TrainerOptions.checkpoint_dir). Failure 2 of 2 (TrainerOptions.max_failures)."
    )
    assert "going on from epoch 2, batch 37" in told(tries, found(plan.run))[1]


def test_an_earlier_calls_checkpoint_is_not_gone_on_from_after_a_loss(job):
    own_runs = set()
    earlier = attempts(job, SAVING, own_runs).plan(None).run
    tries = attempts(job, replace(SAVING, max_failures=1), own_runs)
    assert tries.plan(found(earlier)).start is None
    tries.lost("node 1, pid 2", died())
    plan, text = told(tries, found(earlier))
    assert plan.start is None
    assert "as nothing had been saved yet" in text


def test_another_trainings_checkpoint_is_refused_unless_it_is_to_be_resumed(job):
    with pytest.raises(OptionError) as caught:
        attempts(job, SAVING).plan(found("other"))
    assert str(caught.value) == (
        "TrainerOptions.checkpoint_dir='saved' holds the checkpoint of another training, at epoch 2, batch 37 "
        "(checkpoint-00000005-run-1.rayfeed), which this one would replace.\n"
        "  Go on from it with TrainerOptions(resume=True), remove it, or give another directory."
    )
    resuming = replace(SAVING, resume=True)
    assert attempts(job, resuming).plan(found("other")).start == "checkpoint-00000005-run-1.rayfeed"
    plan, text = told(attempts(job, resuming), None)
    assert plan.start is None
    assert text == (
        "rayfeed: TrainerOptions(resume=True), and saved holds no checkpoint: the training begins at its beginning."
    )


def test_only_a_trainers_first_training_is_resumed(job):
    own_runs = set()
    options = replace(SAVING, resume=True)
    first = attempts(job, options, own_runs).plan(found("other"))
    attempts(replace(job, method="evaluate"), options, own_runs)
    assert told(attempts(job, options, own_runs), found(first.run))[0].start is None


def test_a_trainer_whose_first_training_failed_before_it_saved_resumes_in_its_next(job):
    own_runs = set()
    options = replace(SAVING, resume=True)
    for _ in range(3):
        plan, text = told(attempts(job, options, own_runs), found("other"))
        assert (plan.start, plan.replaces, text) == ("checkpoint-00000005-run-1.rayfeed", "other", None)


def test_that_nothing_is_there_to_resume_is_told_of_a_trainers_first_training_only(job):
    own_runs = set()
    texts = [told(attempts(job, replace(SAVING, resume=True), own_runs), None)[1] for _ in range(2)]
    assert "holds no checkpoint" in texts[0]
    assert texts[1] is None


def test_a_resumed_training_that_was_stopped_with_epochs_left_is_told_to_train_nothing(job):
    resuming = replace(SAVING, resume=True)
    stopped = found("other", epoch=2, step=0, is_stopped=True)
    _, text = told(attempts(replace(job, epochs=5), resuming), stopped)
    assert text == (
        "rayfeed: TrainerOptions(resume=True), and the training of checkpoint-00000005-run-1.rayfeed in saved was "
        "stopped at epoch 2, batch 0, by a callback (stop_training) or its data's end: nothing is trained (epochs "
        "left: 3 of 5).\n"
        "  To train them, call again after this with another checkpoint_dir, without resume, and with initial_epoch=2: "
        "the model has the weights that were saved."
    )
    assert told(attempts(replace(job, epochs=2), resuming), stopped)[1] is None
    assert told(attempts(replace(job, epochs=5), resuming), found("other", epoch=2, step=0))[1] is None


def test_when_no_failure_is_left_the_error_says_how_often_and_where_the_checkpoints_are(job):
    tries = attempts(job, replace(SAVING, max_failures=2))
    for _ in range(2):
        tries.lost("node 1, pid 2", died())
    with pytest.raises(TrainerDiedError) as caught:
        tries.lost("node 1, pid 2", died())
    assert str(caught.value) == (
        "the trainer's process died during fit\n"
        "  It was started again 2 times (TrainerOptions.max_failures=2).\n"
        "  What was saved of it is in saved: TrainerOptions(resume=True) goes on from there."
    )
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(TrainerDiedError, match=r"^the trainer's process died during fit$"):
        attempts(job, TrainerOptions()).lost("node 1, pid 2", died())


def test_a_source_of_this_process_cannot_be_made_again(job):
    started = (batch for batch in [Numbered(1)[0]])
    next(started)
    with pytest.warns(UserWarning, match="runs in a thread of this process"):
        stream = specify(started, name="generator", options=StreamOptions(), ships=True)
    text = "TrainerOptions.max_failures=1: generator runs in this process, and what a lost trainer had of it cannot be"
    with pytest.raises(OptionError, match=re.escape(text)):
        attempts(replace(job, stream=stream), TrainerOptions(max_failures=1))
    attempts(replace(job, stream=stream), SAVING)
