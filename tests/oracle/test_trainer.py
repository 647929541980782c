"""F1, F4, F5 and A, where the trainer is concerned: errors, refusals, endings."""

import gc
import os
import re
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from ray.exceptions import RayActorError

import rayfeed
from rayfeed.errors import FeedClosedError, PlacementError, RemoteTraceback, TrainerDiedError
from tests.conftest import wait_until
from tests.oracle.sources import Failing, FailingLater, Numbers, OutOfRange, OwnError, Rows
from tests.oracle.test_epochs import identity

pytestmark = pytest.mark.slow

shared_trainer = pytest.mark.usefixtures("shared_trainer")


class FailingCallback(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise OwnError(3, detail="callback")


@shared_trainer
@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_in_the_source_reaches_the_caller_as_it_was_raised(workers, make_model):
    with pytest.raises(OwnError, match="code 17: bad row") as caught:
        rayfeed.fit_generator(
            make_model(), Failing(), epochs=2, shuffle=False, verbose=0, workers=workers, use_multiprocessing=True
        )
    assert caught.value.code == 17
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "__getitem__" in str(caught.value.__cause__)
    notes = " ".join(caught.value.__notes__)
    assert "batch 4 of pass 0" in notes
    assert ("producer" in notes) == (workers > 0)


@pytest.mark.parametrize("where", ["batch", "hook"])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_at_an_epochs_edge_keeps_its_traceback(where, workers):
    with pytest.raises(OwnError, match="code 5") as caught:
        rayfeed.fit_generator(
            identity(), FailingLater(3, where), epochs=3, shuffle=False, verbose=0, workers=workers, trainer="driver"
        )
    if workers:
        assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert ("on_epoch_end after pass 0" if where == "hook" else "batch 0 of pass 1") in " ".join(caught.value.__notes__)


def test_a_source_that_raises_tensorflows_end_of_data_is_an_error_and_not_an_end():
    with pytest.raises(Exception, match="the user's own") as caught:
        rayfeed.fit_generator(
            identity(), OutOfRange(3), epochs=3, shuffle=False, verbose=0, workers=0, trainer="driver"
        )
    assert type(caught.value).__name__ == "OutOfRangeError"


def test_what_was_trained_before_an_exception_comes_home(make_model):
    model = make_model()
    before = model.get_weights()
    with pytest.raises(OwnError):
        rayfeed.fit_generator(model, Failing(), epochs=2, shuffle=False, verbose=0, workers=0)
    assert int(model.optimizer.iterations.numpy()) == 4
    assert any((one != other).any() for one, other in zip(model.get_weights(), before, strict=True))


class Quits(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        sys.exit("enough")


@shared_trainer
def test_sys_exit_in_a_callback_is_an_error_and_ends_no_process(make_model):
    with rayfeed.Trainer(make_model()) as trainer:
        with pytest.raises(RuntimeError, match=r"SystemExit\('enough'\)"):
            trainer.fit_generator(Rows(), verbose=0, callbacks=[Quits()], workers=0)
        assert trainer.fit_generator(Rows(), verbose=0, workers=0).epoch == [0]


def test_an_exception_in_the_source_is_not_hidden_by_tf_data(make_model):
    with pytest.raises(OwnError, match="code 17: bad row"):
        rayfeed.fit_generator(
            make_model(steps_per_execution=2), Failing(), shuffle=False, verbose=0, workers=1, trainer="driver"
        )


def test_an_exception_in_a_validation_source_reaches_the_caller(make_model):
    with pytest.raises(OwnError, match="code 17: bad row"):
        rayfeed.fit_generator(make_model(), Rows(), validation_data=Failing(), verbose=0, workers=1, trainer="driver")


@shared_trainer
def test_an_exception_in_a_callback_or_the_model_reaches_the_caller_and_the_trainer_lives_on(make_model):
    model = make_model()
    with rayfeed.Trainer(model) as trainer:
        with pytest.raises(OwnError, match="code 3: callback") as caught:
            trainer.fit_generator(Rows(), verbose=0, callbacks=[FailingCallback()], workers=0)
        assert "the trainer (node" in " ".join(caught.value.__notes__)
        with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 10"):
            trainer.fit_generator(Numbers(2), verbose=0, workers=0)
        assert trainer.fit_generator(Rows(), verbose=0, workers=0).epoch == [0]
    with pytest.raises(FeedClosedError, match="this trainer is closed"):
        trainer.fit_generator(Rows(), verbose=0)


class OwnPid(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.pid = os.getpid()


class Suicide(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_trainer_that_dies_is_an_error_that_says_so_and_leaves_nothing(make_model):
    model = make_model()
    before = model.get_weights()
    with pytest.raises(TrainerDiedError, match=r"the trainer's process died during fit") as caught:
        rayfeed.fit_generator(
            model, Rows(), epochs=3, verbose=0, callbacks=[Suicide()], workers=2, use_multiprocessing=True
        )
    assert "TrainerOptions.memory" in str(caught.value)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("where", ["trainer", "caller"])
def test_a_rays_error_of_the_users_own_is_not_taken_for_a_lost_trainer(where, log):
    caller = os.getpid()

    def uses_an_actor():
        here = "caller" if os.getpid() == caller else "trainer"
        log.add(here)
        if here == where:
            raise RayActorError(error_msg="the user's own actor is dead")
        return identity()

    once = rayfeed.TrainerOptions(max_failures=1)
    with pytest.raises(RayActorError, match="the user's own actor is dead"):
        rayfeed.fit_generator(uses_an_actor, Numbers(2), verbose=0, workers=0, trainer=once)
    assert log.lines().count("trainer") == 1


def test_a_trainer_or_producer_that_no_node_can_hold_is_refused_with_the_numbers(make_model):
    with pytest.raises(PlacementError, match=r"(?s)the trainer claims 1000 CPU.*more than any node.*: \d+ CPU"):
        rayfeed.fit_generator(make_model(), Rows(), trainer=rayfeed.TrainerOptions(num_cpus=1000))
    with pytest.raises(PlacementError, match=r"the trainer claims .*3 GPU, more than any node.*0 GPU"):
        rayfeed.fit_generator(make_model(), Rows(), trainer=rayfeed.TrainerOptions(num_gpus=3))
    with pytest.raises(PlacementError, match=r"(?s)a producer claims 500 CPU.*lower ProducerOptions"):
        rayfeed.fit_generator(
            make_model(), Rows(), verbose=0, trainer="driver", producers=rayfeed.ProducerOptions(num_cpus=500)
        )


REFUSALS = [
    ({"model": "nothing"}, "model must be a keras.Model, or a function without arguments .* got builtins.str"),
    ({"model": keras.Sequential([keras.layers.Dense(1)])}, "must be compiled before fit_generator"),
    ({"model": keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])}, "must be compiled before fit_generator"),
    ({"generator": [1, 2]}, "generator must be a Sequence"),
    ({"generator": Numbers(0)}, r"generator \(Numbers\) is empty"),
    ({"epochs": 1.5}, "epochs must be a whole number, got 1.5"),
    ({"initial_epoch": -1}, "initial_epoch must be at least 0, got -1"),
    ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1, got 0"),
    ({"validation_steps": 0}, "validation_steps must be at least 1, got 0"),
    ({"validation_data": (1,)}, r"validation_data must be \(x, y\) or \(x, y, sample_weight\), got 1 members"),
    ({"validation_data": 3}, "validation_data must be a Sequence"),
    ({"validation_data": Numbers(2), "validation_freq": 0}, "validation_freq must be at least 1, got 0"),
    ({"verbose": 3}, r"verbose must be 0 \(silent\), 1 \(progress bar\) or 2 \(one line per epoch\), got 3"),
    ({"class_weight": [1, 2]}, "class_weight must be a dict of class number -> weight"),
    ({"max_queue_size": 0}, "max_queue_size must be at least 1, got 0"),
    ({"workers": -1}, "workers must be at least 0, got -1"),
    ({"use_multiprocessing": 1}, "use_multiprocessing must be True or False, got 1"),
    ({"shuffle": "batch"}, "shuffle must be True or False, got 'batch'"),
    ({"producers": 4}, "producers must be a rayfeed.ProducerOptions, got 4"),
    ({"trainer": "gpu"}, "trainer must be a rayfeed.TrainerOptions, \"driver\" or None, got 'gpu'"),
]


@pytest.mark.parametrize(
    ("wrong", "text"), REFUSALS, ids=[f"{list(wrong)[-1]}-{i}" for i, (wrong, _) in enumerate(REFUSALS)]
)
def test_a_wrong_argument_is_refused_before_anything_starts(wrong, text, make_model):
    arguments = {"model": None, "generator": Numbers(2)} | wrong
    arguments["model"] = arguments["model"] or make_model()
    with pytest.raises(ValueError, match=text):
        rayfeed.fit_generator(**arguments)


@pytest.mark.timeout(180)  # it may start a cluster of its own
def test_ctrl_c_ends_the_call_its_trainer_and_its_producers_and_brings_home_what_was_trained(interruptible, tmp_path):
    told, errors = interruptible.interrupt("producers_hang", tmp_path)
    assert told == {"actors left": 0, "steps": 1}, errors


@pytest.mark.timeout(240)
def test_after_ctrl_c_a_long_step_is_waited_for_and_what_was_saved_is_where_training_was(interruptible, tmp_path):
    told, errors = interruptible.interrupt("step_outlasts_the_callers_patience", tmp_path)
    steps, warned = (tmp_path / "running-interrupted").read_text().split(": ", 1)
    assert steps == "5"  # the step that was waited for came home
    assert re.fullmatch(
        r"rayfeed: the call was given up, and waits for what the trainer \(node [\d.]+, pid \d+\) is in, a step or a "
        r"callback, to end, at most 300 s: then the model gets what was trained\. Another Ctrl-C ends the trainer at "
        r"once, and what it trained is lost\.",
        warned,
    )
    assert told == {"actors left": 0, "steps": 20}, errors  # resumed after step 3, not after a first epoch cut short


@pytest.mark.timeout(180)  # it may start a cluster of its own
def test_after_ctrl_c_in_mid_epoch_no_validation_is_waited_for(interruptible, tmp_path):
    told, errors = interruptible.interrupt("validation_follows", tmp_path)
    assert told == {"actors left": 0, "steps": 5}, errors
    assert not (tmp_path / "running-tested").exists()


def test_a_trainer_that_was_dropped_unclosed_leaves_no_process(make_model):
    pid = OwnPid()
    trainer = rayfeed.Trainer(make_model())
    trainer.fit_generator(Rows(), verbose=0, callbacks=[pid], workers=0)
    del trainer
    gc.collect()
    wait_until(lambda: not Path(f"/proc/{pid.pid}").exists(), "the trainer's process lives on", seconds=30)


def test_a_kept_trainer_says_why_its_process_is_gone(make_model):
    with rayfeed.Trainer(make_model()) as trainer:
        with pytest.raises(TrainerDiedError, match="died during fit"):
            trainer.fit_generator(Rows(), verbose=0, callbacks=[Suicide()], workers=0)
        with pytest.raises(
            TrainerDiedError,
            match="this trainer's process was lost in an earlier call, and its producers ended with it: open a new "
            r"rayfeed\.Trainer\.",
        ):
            trainer.evaluate_generator(Rows(), workers=0)
