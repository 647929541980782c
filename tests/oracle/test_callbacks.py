"""E4, E5: hooks, their order and arguments as in Keras; state that comes home."""

import keras
import pytest

import rayfeed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]


class Log(keras.callbacks.Callback):
    """Every hook with its arguments, and what the callback sees of the run."""

    def __init__(self):
        super().__init__()
        self.calls = []


def _hook(name, has_number):
    def with_number(self, number, logs=None):
        self.calls.append((name, number, dict(logs or {}), dict(self.params), self.model is not None))

    def without(self, logs=None):
        self.calls.append((name, None, dict(logs or {}), dict(self.params), self.model is not None))

    return with_number if has_number else without


for _kind in ("train", "test", "predict"):
    for _end in ("begin", "end"):
        setattr(Log, f"on_{_kind}_{_end}", _hook(f"on_{_kind}_{_end}", False))
        setattr(Log, f"on_{_kind}_batch_{_end}", _hook(f"on_{_kind}_batch_{_end}", True))
for _end in ("begin", "end"):
    setattr(Log, f"on_epoch_{_end}", _hook(f"on_epoch_{_end}", True))


@pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "actor"])
def test_hooks_their_order_and_arguments_are_those_of_keras(trainer, rows, as_py_dataset, make_model):
    ours, theirs = Log(), Log()
    arguments = {"epochs": 3, "initial_epoch": 1, "shuffle": False, "verbose": 2}
    make_model().fit(as_py_dataset(rows()), validation_data=as_py_dataset(rows(20)), callbacks=[theirs], **arguments)
    rayfeed.fit_generator(
        make_model(), rows(), validation_data=rows(20), callbacks=[ours], workers=0, trainer=trainer, **arguments
    )
    assert ours.calls == theirs.calls


def test_hooks_of_evaluate_and_predict_are_those_of_keras(rows, as_py_dataset, make_model):
    ours, theirs, model = Log(), Log(), make_model()
    model.evaluate(as_py_dataset(rows()), verbose=0, callbacks=[theirs])
    model.predict(as_py_dataset(rows()), verbose=0, callbacks=[theirs])
    rayfeed.evaluate_generator(model, rows(), callbacks=[ours], workers=0, trainer="driver")
    rayfeed.predict_generator(model, rows(), callbacks=[ours], workers=0, trainer="driver")
    theirs_without_outputs = [(name, number, set(logs), seen) for name, number, logs, _, seen in theirs.calls]
    assert [(name, number, set(logs), seen) for name, number, logs, _, seen in ours.calls] == theirs_without_outputs
    assert [call[3] for call in ours.calls] == [call[3] for call in theirs.calls]


class StopAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)
        if batch == self.step:
            self.model.stop_training = True


@pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "actor"])
def test_stop_training_stops_at_the_next_step_and_leaves_nothing(trainer, rows, make_model):
    stop, model = StopAt(3), make_model()
    history = rayfeed.fit_generator(
        model, rows(), epochs=5, verbose=0, callbacks=stop, workers=2, use_multiprocessing=True, trainer=trainer
    )
    assert stop.seen == [0, 1, 2, 3]
    assert history.epoch == [0]
    assert model.stop_training


def test_keras_own_callbacks_work_and_their_state_comes_home(rows, as_py_dataset, make_model, same_state):
    def callbacks():
        return [
            keras.callbacks.EarlyStopping("loss", patience=1, min_delta=10.0, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=10.0, factor=0.5),
        ]

    ours, theirs, here, there = make_model(), make_model(), callbacks(), callbacks()
    expected = theirs.fit(as_py_dataset(rows()), epochs=6, shuffle=False, verbose=0, callbacks=there)
    history = rayfeed.fit_generator(ours, rows(), epochs=6, shuffle=False, verbose=0, callbacks=here)
    assert history.history == expected.history
    assert (here[0].stopped_epoch, here[0].best, here[0].wait) == (there[0].stopped_epoch, there[0].best, there[0].wait)
    assert ours.stop_training
    same_state(ours, theirs)


def test_the_callers_own_history_object_is_filled_and_returned(rows, make_model):
    mine = keras.callbacks.History()
    history = rayfeed.fit_generator(make_model(), rows(), epochs=2, verbose=0, callbacks=[mine], trainer="driver")
    assert history is mine
    assert mine.epoch == [0, 1]
    assert mine.feed_stats.batches == 20


def test_what_is_no_callback_is_refused(rows, make_model):
    with pytest.raises(ValueError, match=r"callbacks must be keras\.callbacks\.Callback objects, got 'early'"):
        rayfeed.fit_generator(make_model(), rows(), callbacks=["early"])


def test_a_callback_that_cannot_travel_is_named_with_its_attribute(rows, make_model, tmp_path):
    callback = StopAt(0)
    text = r"callbacks .*callbacks\[0\]\.file is a TextIOWrapper"
    with (tmp_path / "log").open("w") as callback.file, pytest.raises(ValueError, match=text):
        rayfeed.fit_generator(make_model(), rows(), callbacks=[callback])


class KeepsModel(keras.callbacks.Callback):
    """Refers to the model otherwise than Keras tells it to, and to a list that the caller holds as well."""

    def __init__(self, model, seen):
        super().__init__()
        self.mine = model
        self.seen = seen

    def on_epoch_end(self, epoch, logs=None):
        assert self.mine is self.model
        self.seen.append(float(self.mine.layers[0].kernel.numpy().sum()))


def test_a_callback_that_refers_to_the_model_sees_the_one_that_is_trained(rows, make_model):
    model, seen = make_model(), []
    callback = KeepsModel(model, seen)
    rayfeed.fit_generator(model, rows(), epochs=2, verbose=0, callbacks=[callback], workers=0)
    assert callback.mine is model
    assert callback.model is model
    assert callback.seen is seen
    assert len(set(seen)) == 2
    assert seen[-1] == float(model.layers[0].kernel.numpy().sum())


def test_a_csv_logger_serves_twice(rows, make_model, tmp_path):
    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"), append=True)
    with rayfeed.Trainer(make_model()) as trainer:
        for _ in range(2):
            trainer.fit_generator(rows(), verbose=0, callbacks=[logger], workers=0)
    assert (tmp_path / "log.csv").read_text().startswith("epoch,accuracy,loss")


def test_relative_paths_are_the_callers(rows, make_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = keras.callbacks.ModelCheckpoint("checkpoint.keras")
    rayfeed.fit_generator(make_model(), rows(), verbose=0, callbacks=[checkpoint], workers=0)
    assert (tmp_path / "checkpoint.keras").is_file()
