"""E5: what a callback on the driver decides, how far training may be ahead of it, and how it fails."""

import threading

import keras
import pytest

import rayfeed
from rayfeed.errors import TrainerBusyError
from rayfeed.trainer.driver_callbacks import hooks_of
from rayfeed.trainer.messages import DriverSlot, Verdict
from rayfeed.trainer.outbox import Outbox
from rayfeed.trainer.relay import BOUNDARIES, LEAD, GivenUp, Relay
from tests.conftest import wait_until
from tests.oracle.sources import Blocks, Numbers, OwnError, Rows
from tests.oracle.test_epochs import identity

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]


class StopAtEpoch(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.stop_training = True


class StopAtStep(keras.callbacks.Callback):
    """Has no hook at an epoch's end."""

    def __init__(self, step):
        super().__init__()
        self.step = step
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)
        if batch == self.step:
            self.model.stop_training = True


def test_a_decision_at_an_epochs_end_holds_for_the_next_epoch(make_model):
    model = make_model()
    with rayfeed.Trainer(model) as trainer:
        for last in (1, 0):
            stop = rayfeed.on_driver(StopAtEpoch(last))
            history = trainer.fit_generator(Rows(), epochs=9, verbose=0, callbacks=[stop], workers=0)
            assert history.epoch == list(range(last + 1))
            assert model.stop_training
        assert trainer.fit_generator(Rows(), epochs=2, verbose=0, workers=0).epoch == [0, 1]
        assert not model.stop_training


def test_a_decision_at_an_epochs_last_step_holds_for_the_next_epoch(make_model):
    stop = StopAtStep(9)
    history = rayfeed.fit_generator(
        make_model(), Rows(), epochs=9, verbose=0, callbacks=[rayfeed.on_driver(stop)], workers=0
    )
    assert history.epoch == [0]
    assert stop.seen == list(range(10))


def test_stop_training_in_a_step_ends_the_epoch_within_the_lead_and_every_hook_of_it_runs():
    stop, model = StopAtStep(3), identity()
    history = rayfeed.fit_generator(
        model, Numbers(1000), epochs=5, verbose=0, callbacks=[rayfeed.on_driver(stop)], workers=0
    )
    assert history.epoch == [0]
    assert len(stop.seen) == int(model.optimizer.iterations.numpy())
    assert 4 <= len(stop.seen) <= 4 + LEAD
    assert model.stop_training


class Reached(keras.callbacks.Callback):
    """Runs in the trainer; touches a file when an epoch begins."""

    def __init__(self, epoch, path):
        super().__init__()
        self.epoch = epoch
        self.path = path

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.path.touch()


class WaitsForTraining(keras.callbacks.Callback):
    """Slow in its first epoch: until training is some epochs ahead."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            wait_until(self.path.exists, "training waits for this callback", seconds=30)
        self.seen.append(epoch)

    def on_train_end(self, logs=None):
        self.seen.append("end")


def test_training_goes_on_beside_a_slow_callback_whose_hooks_have_all_run_when_the_call_returns(make_model, tmp_path):
    path = tmp_path / "reached"
    slow = WaitsForTraining(path)
    rayfeed.fit_generator(
        make_model(), Rows(), epochs=8, verbose=0, callbacks=[Reached(6, path), rayfeed.on_driver(slow)], workers=0
    )
    assert slow.seen == [*range(8), "end"]


class Flags:
    stop_training = stop_evaluating = stop_predicting = False


def relay_and_stand_in(*hooks):
    outbox = Outbox(1)
    relay = Relay(outbox)
    (stand_in,) = relay.stand_ins([], [DriverSlot(0, frozenset(hooks))], Flags())
    stand_in.set_params({"epochs": 1, "steps": 1000, "verbose": 0})
    return outbox, relay, stand_in


def test_training_is_at_most_the_lead_ahead_and_goes_on_when_the_caller_catches_up():
    outbox, relay, stand_in = relay_and_stand_in("on_train_batch_end")
    begun = []

    def train():
        for step in range(3 * LEAD):
            begun.append(step)
            stand_in.on_train_batch_end(step, logs={})

    thread = threading.Thread(target=train)
    thread.start()
    posted = []
    while len(posted) < 3 * LEAD + 1:
        posted += outbox.take(10)
        assert len(begun) <= relay._num_done + LEAD
        relay.accept(Verdict(1, len(posted) - len(posted) // 2, stop_training=False, has_failed=False))
        relay.accept(Verdict(1, len(posted), stop_training=False, has_failed=False))
    thread.join(10)
    assert [call.serial for call in posted] == list(range(1, 3 * LEAD + 2))


def test_a_late_caller_is_waited_for_once_until_it_has_caught_up(monkeypatch):
    monkeypatch.setattr("rayfeed.trainer.relay.VERDICT_WAIT_S", 0.01)
    outbox, relay, stand_in = relay_and_stand_in("on_epoch_end")
    stand_in.on_epoch_end(0, {})
    monkeypatch.setattr("rayfeed.trainer.relay.VERDICT_WAIT_S", 60.0)
    stand_in.on_epoch_end(1, {})  # at once: nobody is asked
    assert len(outbox.take(10)) == 3
    relay.accept(Verdict(1, 3, stop_training=True, has_failed=False))
    thread = threading.Thread(target=stand_in.on_epoch_end, args=(2, {}))
    thread.start()
    assert outbox.take(10)[0].args[0] == 2
    assert thread.is_alive()  # it waits again
    relay.accept(Verdict(1, 4, stop_training=True, has_failed=False))
    thread.join(10)
    assert not thread.is_alive()


def test_verdicts_may_overtake_each_other_and_those_of_another_job_are_not_heeded():
    _, relay, _ = relay_and_stand_in("on_epoch_end")
    relay.accept(Verdict(2, 40, stop_training=True, has_failed=True))
    assert (relay._num_done, relay._model.stop_training) == (0, False)
    relay.check()
    relay.accept(Verdict(1, 1, stop_training=False, has_failed=False))
    relay.accept(Verdict(1, 0, stop_training=False, has_failed=False))
    assert relay._num_done == 1


def test_a_job_that_is_given_up_while_training_waits_ends_at_once():
    _, relay, stand_in = relay_and_stand_in("on_epoch_end")
    raised = []

    def train():
        try:
            stand_in.on_epoch_end(0, {})
        except GivenUp as error:
            raised.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    relay.give_up()
    thread.join(10)
    assert len(raised) == 1


def test_a_stand_in_has_no_batch_hook_but_those_of_its_callback():
    """Keras looks at them to tell whether a step's hooks may be dispatched without waiting for its values."""
    _, _, quiet = relay_and_stand_in("on_epoch_begin")
    assert hooks_of(quiet) == BOUNDARIES | {"on_epoch_begin"}
    assert all(getattr(getattr(quiet, f"on_{kind}_batch_end"), "_is_default", False) for kind in ("train", "test"))
    _, _, steps = relay_and_stand_in("on_train_batch_end")
    assert hooks_of(steps) == BOUNDARIES | {"on_train_batch_end"}
    assert not getattr(steps, "async_safe", False)  # threads would change the order


class FailsAt(keras.callbacks.Callback):
    def __init__(self, hook):
        super().__init__()
        self.seen = []
        setattr(self, hook, self.fail)

    def fail(self, number=0, logs=None):
        self.seen.append(number)
        raise OwnError(3, detail="on the driver")


HOOKS = ["on_train_begin", "on_epoch_begin", "on_train_batch_end", "on_test_begin", "on_epoch_end", "on_train_end"]


def test_an_exception_ends_the_training_and_arrives_as_it_was_raised_and_the_trainer_goes_on(make_model):
    model = make_model()
    with rayfeed.Trainer(model) as trainer:
        for hook in HOOKS:
            steps = int(model.optimizer.iterations.numpy()) if model.optimizer.built else 0
            callback = FailsAt(hook)
            epochs = 1 if hook == "on_train_end" else 50
            with pytest.raises(OwnError, match="code 3: on the driver") as caught:
                trainer.fit_generator(
                    Rows(),
                    epochs=epochs,
                    verbose=0,
                    validation_data=Rows(20),
                    callbacks=[rayfeed.on_driver(callback)],
                    workers=0,
                )
            assert caught.traceback[-1].name == "fail"
            assert caught.value.__cause__ is None
            assert len(callback.seen) == 1  # no hook after it
            trained = int(model.optimizer.iterations.numpy()) - steps
            assert trained <= 10
            assert (trained == 0) == (hook == "on_train_begin")
        history = trainer.fit_generator(Rows(), verbose=0, workers=0)
        assert history.epoch == [0]


def test_an_exception_ends_a_training_that_waits_for_a_batch_that_never_comes():
    model = identity()
    with rayfeed.Trainer(model) as trainer:
        with pytest.raises(OwnError, match="on the driver"):
            trainer.fit_generator(
                Blocks(3), shuffle=False, verbose=0, callbacks=[rayfeed.on_driver(FailsAt("on_train_batch_end"))]
            )
        assert int(model.optimizer.iterations.numpy()) == 1
        assert trainer.fit_generator(Numbers(2), verbose=0).epoch == [0]


def test_an_exception_in_evaluate_and_predict_arrives_too(make_model):
    with rayfeed.Trainer(make_model()) as trainer:
        for call, hook in (("evaluate", "on_test_begin"), ("predict", "on_predict_batch_end")):
            with pytest.raises(OwnError, match="on the driver"):
                getattr(trainer, f"{call}_generator")(Rows(), callbacks=[rayfeed.on_driver(FailsAt(hook))], workers=0)


def test_hooks_before_another_failure_have_run_when_it_arrives(make_model):
    seen = []

    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                raise OwnError(9, detail="in the trainer")

    with pytest.raises(OwnError, match="in the trainer"):
        rayfeed.fit_generator(
            make_model(), Rows(), verbose=0, callbacks=[rayfeed.on_driver(Slow()), Fails()], workers=0
        )
    assert seen == [0, 1, 2, 3, 4]


def test_a_callback_that_uses_the_trainer_it_runs_for_is_refused_instead_of_waiting_for_ever(make_model):
    with rayfeed.Trainer(make_model()) as trainer:
        again = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: trainer.evaluate_generator(Rows(), workers=0)
        )
        with pytest.raises(TrainerBusyError, match="evaluate was asked of a trainer that is carrying out another"):
            trainer.fit_generator(Rows(), verbose=0, callbacks=[rayfeed.on_driver(again)], workers=0)
        assert trainer.fit_generator(Rows(), verbose=0, workers=0).epoch == [0]


@pytest.mark.timeout(180)  # it may start a cluster of its own
def test_ctrl_c_in_a_callback_ends_the_call_and_brings_home_what_was_trained(interruptible, tmp_path):
    told, errors = interruptible.interrupt("callback_on_driver_hangs", tmp_path)
    assert told["actors left"] == 0, errors
    assert 0 < told["steps"] < 60
