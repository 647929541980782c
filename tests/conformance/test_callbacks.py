"""E4, E5, E9: what callbacks are told, where they run, and what comes home of them."""

import os

import keras
import pytest

import rayfeed
from tests.conformance.contract import line
from tests.conformance.echo import FEEDS, Seen, make_echo, trained
from tests.sources import Numbered

HOOKS = [
    *(f"on_{kind}_{end}" for kind in ("train", "test", "predict") for end in ("begin", "end")),
    *(f"on_{kind}_batch_{end}" for kind in ("train", "test", "predict") for end in ("begin", "end")),
    *(f"on_epoch_{end}" for end in ("begin", "end")),
]
"""Every hook that a keras.callbacks.Callback has."""

STEP = ["train_batch_begin {0}", "train_batch_end {0} loss"]
VALIDATION = ["test_begin", "test_batch_begin 0", "test_batch_end 0 loss", "test_end loss"]


class Tells(keras.callbacks.Callback):
    """Notes each hook, its number, and the names in its logs."""

    def __init__(self):
        super().__init__()
        self.told = []
        self.params_seen = []
        self.weights = []

    def tell(self, hook, *arguments, logs=None):
        arguments = list(arguments)
        logs = arguments.pop() if arguments and not isinstance(arguments[-1], int) else logs
        self.told.append(" ".join([hook.removeprefix("on_"), *map(str, arguments), *sorted(logs or {})]))
        self.params_seen.append(dict(self.params))
        self.weights.append(float(self.model.get_weights()[0].sum()))


def _telling(hook):
    return lambda self, *arguments, **logs: self.tell(hook, *arguments, **logs)


for _hook in HOOKS:
    setattr(Tells, _hook, _telling(_hook))


@line("E4")
@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
def test_callbacks_get_keras_hooks_in_keras_order_with_params_and_a_real_model(feed, echo):
    tells = Tells()
    data = Numbered(1)
    rayfeed.fit_generator(
        echo,
        Numbered(2),
        epochs=4,
        initial_epoch=2,
        verbose=0,
        callbacks=[tells],
        validation_data=data,
        trainer="driver",
        **feed,
    )
    epoch = [*(words.format(step) for step in (0, 1) for words in STEP), *VALIDATION]
    expected = ["train_begin"]
    for number in (2, 3):
        expected += [f"epoch_begin {number}", *epoch, f"epoch_end {number} loss val_loss"]
    assert tells.told == [*expected, "train_end loss val_loss"]
    assert {tuple(sorted(params.items())) for params in tells.params_seen} == {
        (("epochs", 4), ("steps", 2), ("verbose", 0))
    }
    assert set(tells.weights) == {2.0}
    assert tells.model is echo


@line("E4")
def test_callbacks_of_evaluate_and_predict_get_theirs(echo):
    tells = Tells()
    for call in (rayfeed.evaluate_generator, rayfeed.predict_generator):
        call(echo, Numbered(1), callbacks=[tells], workers=0, trainer="driver")
    predict = ["predict_begin", "predict_batch_begin 0", "predict_batch_end 0 outputs", "predict_end"]
    assert tells.told == [*VALIDATION, *predict]


class StopsAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = self.model.stop_training or batch == self.step


@line("E4")
@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
def test_stop_training_stops_at_the_next_step_and_with_the_epochs_end_hooks(feed, echo):
    tells = Tells()
    run = trained(echo, Numbered(50), epochs=5, shuffle=False, callbacks=[StopsAt(2), tells], **feed)
    assert run.epochs == [[0, 1, 2]]
    assert tells.told[-2:] == ["epoch_end 0 loss", "train_end loss"]
    assert run.history.epoch == [0]


class Notes(keras.callbacks.Callback):
    """Keeps state of its own, and shares a list with the caller."""

    def __init__(self, shared):
        super().__init__()
        self.shared = shared
        self.pids = set()
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.pids.add(os.getpid())
        self.steps += 1
        self.shared.append(batch)


@line("E5", "E9")
def test_callbacks_run_in_the_trainer_their_state_comes_home_and_paths_are_the_callers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, shared, seen = make_echo(), [], Seen()
    notes = Notes(shared)
    stops = keras.callbacks.EarlyStopping("loss", patience=1)  # the loss never gets better
    callbacks = [
        notes,
        stops,
        seen,
        keras.callbacks.ModelCheckpoint("at-{epoch}.keras"),
        keras.callbacks.CSVLogger("log.csv"),
    ]
    history = rayfeed.fit_generator(
        model, Numbered(3), epochs=9, shuffle=False, verbose=0, callbacks=callbacks, workers=0
    )
    assert (notes.steps, stops.stopped_epoch, history.epoch) == (6, 1, [0, 1])
    assert shared == [0, 1, 2, 0, 1, 2]
    assert notes.shared is shared
    assert notes.pids
    assert os.getpid() not in notes.pids
    assert {callback.model for callback in callbacks} == {model}
    assert len(seen.epochs) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at-1.keras", "at-2.keras", "log.csv"]
    loaded = keras.models.load_model(tmp_path / "at-2.keras")
    assert loaded.get_weights()[0].tolist() == model.get_weights()[0].tolist()
