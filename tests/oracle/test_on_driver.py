"""E5: `on_driver` callbacks run in the caller's process, with every hook as Keras gives it."""

import os
import threading

import keras
import numpy as np
import pytest

import rayfeed
from rayfeed.errors import OptionError, SourceError
from rayfeed.trainer.driver_callbacks import DriverHooks, hooks_of
from tests.oracle.test_callbacks import Log

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]


def test_hooks_their_order_arguments_and_params_are_those_of_keras(rows, as_py_dataset, make_model):
    ours, theirs, model = Log(), Log(), make_model()
    arguments = {"epochs": 3, "initial_epoch": 1, "shuffle": False, "verbose": 2}
    make_model().fit(as_py_dataset(rows()), validation_data=as_py_dataset(rows(20)), callbacks=[theirs], **arguments)
    rayfeed.fit_generator(
        model, rows(), validation_data=rows(20), callbacks=[rayfeed.on_driver(ours)], workers=0, **arguments
    )
    assert len(ours.calls) > 50
    assert ours.calls == theirs.calls
    assert ours.model is model


def test_hooks_of_evaluate_and_predict_are_those_of_keras_with_arrays_for_tensors(rows, as_py_dataset, make_model):
    ours, theirs, model = Log(), Log(), make_model()
    model.evaluate(as_py_dataset(rows()), verbose=0, callbacks=[theirs])
    model.predict(as_py_dataset(rows()), verbose=0, callbacks=[theirs])
    with rayfeed.Trainer(model) as trainer:
        trainer.evaluate_generator(rows(), callbacks=[rayfeed.on_driver(ours)], workers=0)
        trainer.predict_generator(rows(), callbacks=[rayfeed.on_driver(ours)], workers=0)
    for one, other in zip(ours.calls, theirs.calls, strict=True):
        assert one[:2] == other[:2]
        assert one[3:] == other[3:]
        assert list(one[2]) == list(other[2])
        for name, value in one[2].items():
            np.testing.assert_array_equal(value, np.asarray(other[2][name]))
            assert not keras.ops.is_tensor(value)


class Where(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.places = set()
        self.lock = threading.RLock()
        self.lock.acquire()

    def on_train_begin(self, logs=None):
        self.places.add((os.getpid(), threading.get_ident()))

    on_train_end = on_train_begin

    def on_epoch_end(self, epoch, logs=None):
        self.places.add((os.getpid(), threading.get_ident()))


def test_it_runs_in_the_calling_thread_and_nothing_of_it_is_pickled(rows, make_model):
    where = Where()  # its lock is held: it cannot be pickled
    rayfeed.fit_generator(make_model(), rows(), verbose=0, callbacks=[rayfeed.on_driver(where)], workers=0)
    assert where.places == {(os.getpid(), threading.get_ident())}


def test_a_list_that_a_closure_captured_is_filled_on_the_driver_and_stays_empty_in_the_trainer(rows, make_model):
    here, there = [], []
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: there.append(logs["loss"])),
        rayfeed.on_driver(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: here.append(logs["loss"]))),
    ]
    history = rayfeed.fit_generator(make_model(), rows(), epochs=2, verbose=0, callbacks=callbacks, workers=0)
    assert here == history.history["loss"]
    assert there == []


def test_an_open_file_is_written_while_training_runs(rows, make_model, tmp_path):
    with (tmp_path / "log").open("w") as file:
        write = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, file=file))
        rayfeed.fit_generator(
            make_model(), rows(), epochs=2, verbose=0, callbacks=[rayfeed.on_driver(write)], workers=0
        )
    assert (tmp_path / "log").read_text() == "0\n1\n"


def test_several_keep_their_order_and_callbacks_between_them_run_in_the_trainer(rows, make_model):
    order = []

    def named(name):
        return rayfeed.on_driver(
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: order.append((name, "begin", epoch)),
                on_epoch_end=lambda epoch, logs: order.append((name, "end", epoch)),
            )
        )

    between = Log()
    rayfeed.fit_generator(
        make_model(), rows(), epochs=2, verbose=0, callbacks=[named("a"), between, named("b")], workers=0
    )
    assert order == [(name, end, epoch) for epoch in range(2) for end in ("begin", "end") for name in ("a", "b")]
    assert between.calls[-1][0] == "on_train_end"


class Older(keras.callbacks.Callback):
    """Keras 2's name of a batch hook."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_batch_end(self, batch, logs=None):
        self.seen.append(batch)


def test_a_batch_hook_by_its_older_name_is_called(rows, make_model):
    older = Older()
    rayfeed.fit_generator(make_model(), rows(), verbose=0, callbacks=[rayfeed.on_driver(older)], workers=0)
    assert older.seen == list(range(10))
    assert hooks_of(older) == {"on_train_batch_end"}


def test_a_callback_without_batch_hooks_gets_no_message_for_a_step(rows, make_model, monkeypatch):
    calls, run = [], DriverHooks.run

    def counted(self, call):
        calls.append(call.hook)
        run(self, call)

    monkeypatch.setattr(DriverHooks, "run", counted)
    quiet = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)
    rayfeed.fit_generator(make_model(), rows(), epochs=2, verbose=0, callbacks=[rayfeed.on_driver(quiet)], workers=0)
    assert calls == ["set_params", "on_epoch_end", "on_epoch_end"]


def test_without_a_remote_trainer_it_is_the_callback_itself_in_its_place(rows, make_model):
    order, model = [], make_model()

    class Named(keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_epoch_end(self, epoch, logs=None):
            order.append((self.name, self.model is model, model.optimizer.iterations.numpy() > 0))

    callbacks = [Named("a"), rayfeed.on_driver(Named("b")), Named("c")]
    rayfeed.fit_generator(model, rows(), verbose=0, callbacks=callbacks, workers=0, trainer="driver")
    assert order == [("a", True, True), ("b", True, True), ("c", True, True)]


@pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "actor"])
def test_a_training_without_epochs_has_its_begin_and_end(trainer, rows, make_model):
    log = Log()
    rayfeed.fit_generator(make_model(), rows(), epochs=0, callbacks=[rayfeed.on_driver(log)], trainer=trainer)
    assert [call[0] for call in log.calls] == ["on_train_begin", "on_train_end"]


def test_keras_own_fit_takes_it_for_the_callback(rows, as_py_dataset, make_model):
    ours, theirs = Log(), Log()
    make_model().fit(as_py_dataset(rows()), verbose=0, callbacks=[rayfeed.on_driver(ours)])
    make_model().fit(as_py_dataset(rows()), verbose=0, callbacks=[theirs])
    assert ours.calls == theirs.calls


def test_marking_twice_is_marking_once():
    once = rayfeed.on_driver(keras.callbacks.Callback())
    assert rayfeed.on_driver(once) is once


def test_what_is_no_callback_is_refused():
    with pytest.raises(OptionError, match=r"on_driver takes a keras\.callbacks\.Callback object, got 'early'"):
        rayfeed.on_driver("early")


def test_inside_another_callback_it_is_refused_with_what_to_do(rows, make_model):
    outer = keras.callbacks.Callback()
    outer.inner = rayfeed.on_driver(keras.callbacks.Callback())
    with pytest.raises(SourceError, match=r"callbacks\[0\]\.inner is a OnDriver .*must itself be a member of"):
        rayfeed.fit_generator(make_model(), rows(), callbacks=[outer])
