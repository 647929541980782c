"""C7: when `on_epoch_end` of a Sequence runs, how often, and who sees what it did."""

import os

import keras
import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import FEEDS, kept, trained
from tests.conformance.sources import SlowHook
from tests.sources import Gate, Log, Numbered, Shuffling, batch, plain_passes

each_way = pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)


def story(log):
    """What `Shuffling` noted: "batch PASS" and "hook PASS", in the order of the processes' writing."""
    return [" ".join(line.split()[:2]) for line in log.lines()]


@line("C7")
@complaint(
    "tensorflow/tensorflow#35911",
    there="fit never called on_epoch_end",
    here="it runs after every pass, the last included",
)
@complaint(
    "tensorflow/tensorflow#45962",
    there="with workers on_epoch_end ran several times for one epoch",
    here="it runs once, on one copy, however many workers there are",
)
@complaint(
    "tensorflow/tensorflow#29624",
    there="with workers=0 on_epoch_end was not called",
    here="it runs after every pass in line too",
)
@complaint(
    "keras-team/keras#8052",
    there="on_epoch_end changed batches of the epoch that was still being made",
    here="it runs after the last batch of its pass was made and before the first of the next",
)
@complaint(
    "keras-team/keras#13038",
    there="on_epoch_end ran at times nobody could foretell, while workers were still in the epoch before",
    here="it runs after the last batch of its pass was made and before the first of the next",
)
@each_way
def test_the_hook_runs_once_between_passes_and_every_producer_sees_its_in_place_shuffle(feed, echo, log, tmp_path):
    run = trained(echo, Shuffling(log, length=8), epochs=3, shuffle=False, **feed)
    assert run.epochs == plain_passes(Shuffling(Log(tmp_path / "plain"), length=8), 3)
    assert story(log) == [*["batch 0"] * 8, "hook 0", *["batch 1"] * 8, "hook 1", *["batch 2"] * 8, "hook 2"]
    assert len({line.split()[2] for line in log.lines() if line.startswith("hook")}) == 1


@line("C7")
@complaint(
    "keras-team/keras#11122",
    there="with steps_per_epoch on_epoch_end came after a pass and not after an epoch, to the user's surprise",
    here="by contract it belongs to the pass: it runs after each whole one, wherever epochs end",
)
@each_way
def test_the_hook_belongs_to_the_pass_and_a_pass_cut_short_has_none(feed, echo, log):
    trained(echo, Shuffling(log, length=4), 3, epochs=3, **feed)  # two passes, and one batch of a third
    hooks = [line for line in story(log) if line.startswith("hook")]
    assert hooks == ["hook 0", "hook 1"]
    assert story(log)[0] == "batch 0"  # no hook before the first pass


class Opens(keras.callbacks.Callback):
    """Opens a gate when an epoch is over, by which time the next one would have been made ahead."""

    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    def on_epoch_end(self, epoch, logs=None):
        self.gate.open()


@line("C7")
@complaint(
    "keras-team/keras#23283",
    there="workers began the next epoch while its hook was still running, and used stale data in silence",
    here="no batch of the next pass is made before the hook has returned",
)
@pytest.mark.parametrize("feed", [FEEDS["threads"], FEEDS["processes"]], ids=["threads", "processes"])
def test_no_batch_is_made_while_the_hook_is_running(feed, echo, log, tmp_path):
    gate = Gate(tmp_path / "half")
    run = trained(echo, SlowHook(log, gate), epochs=2, shuffle=False, callbacks=[Opens(gate)], **feed)
    assert run.epochs == [[0, 1, 2, 3], [110, 111, 112, 113]]
    assert set(log.lines()) == {"batch 0 0", "batch 1 1"}


@complaint(
    "keras-team/keras#7890",
    there="a Sequence without on_epoch_end died of NotImplementedError in a thread",
    here="the hook is optional: any object with the two methods will do",
)
@each_way
def test_the_hook_is_optional(feed, echo):
    class Bare:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return batch(index)

    class Based(rayfeed.Sequence):
        __len__, __getitem__ = Bare.__len__, Bare.__getitem__

    with kept(echo) as trainer:
        for source in (Bare(), Based()):
            run = trained(trainer, source, epochs=2, shuffle=False, **feed)
            assert run.epochs == [[0, 1, 2], [0, 1, 2]], type(source)


@complaint(
    "keras-team/keras#12704",
    there="an exception in on_epoch_end made the process hang",
    here="it reaches the caller with its type, its message and the place",
)
@each_way
def test_an_exception_in_the_hook_reaches_the_caller(feed, echo):
    class Breaks(Numbered):
        def on_epoch_end(self):
            raise LookupError("no more files")

    with pytest.raises(LookupError, match="no more files") as caught:
        trained(echo, Breaks(3), epochs=3, **feed)
    assert "on_epoch_end after pass 0" in " ".join(caught.value.__notes__)


@line("C7")
@complaint(
    "keras-team/keras#13074",
    there="on_epoch_end was not called on validation data after the first epoch, nor at all with workers=0",
    here="it runs after every whole pass of validation data, with any workers",
)
@complaint(
    "determined-ai/determined#1991",
    there="a platform had to call on_epoch_end of validation data by hand, and could not tell when it would be wrong",
    here="it runs after every whole pass of validation data; validation_steps that cut it short run none",
)
@each_way
def test_validation_data_has_its_hook_after_each_whole_pass(feed, echo, log):
    data = Shuffling(log, length=3)
    with kept(echo) as trainer:
        run = trained(trainer, Numbered(2), epochs=3, validation_data=data, **feed)
        assert story(log) == [*["batch 0"] * 3, "hook 0", *["batch 1"] * 3, "hook 1", *["batch 2"] * 3, "hook 2"]
        assert [sorted(number % 1000 for number in numbers) for numbers in run.validations] == [[0, 1, 2]] * 3
        count = len(log.lines())
        trained(trainer, Numbered(2), epochs=2, validation_data=Shuffling(log, length=3), validation_steps=2, **feed)
        assert "hook" not in " ".join(story(log)[count:])


@line("C7")
def test_the_callers_own_object_is_changed_by_no_hook_but_in_line(echo, log):
    """Where a producer runs it, the canonical copy is another; in the caller's process the object is the user's own."""
    for feed, passes in ((FEEDS["processes"], 0), (FEEDS["in line"], 2)):
        source = Shuffling(log, length=4)
        trained(echo, source, epochs=2, **feed)
        assert source.passes == passes
        assert np.array_equal(source.indexes, np.arange(4)) == (passes == 0)
    pids = {int(line.split()[2]) for line in log.lines() if line.startswith("hook")}
    assert pids == {os.getpid()}  # the feed's process, which with trainer="driver" is this one
