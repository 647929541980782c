"""E4, E5: Keras' own callbacks do in the trainer what they do in Keras' own `fit`, and their state comes home."""

import json

import keras
import numpy as np
import pytest

import rayfeed
from tests.oracle.sources import Hooked, OwnError, Rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]


@pytest.fixture
def both(rows, as_py_dataset, make_model, same_state):
    """Train the same with Keras and in the trainer; both must end with the same history, weights and optimizer."""

    def train(callbacks, *, models=None, validation=False, **arguments):
        """`callbacks` is called with a name for the side, for paths; the result is (ours, theirs) of model, list."""
        arguments = {"epochs": 4, "shuffle": False, "verbose": 0} | arguments
        theirs, ours = models or (make_model(), make_model())
        there, here = callbacks("theirs"), callbacks("ours")
        expected = theirs.fit(
            as_py_dataset(rows()),
            validation_data=as_py_dataset(rows(20)) if validation else None,
            callbacks=there,
            **arguments,
        )
        history = rayfeed.fit_generator(
            ours, rows(), validation_data=rows(20) if validation else None, callbacks=here, workers=0, **arguments
        )
        assert history.history == expected.history
        assert history.epoch == expected.epoch
        assert ours.stop_training == theirs.stop_training
        same_state(ours, theirs)
        return (ours, here), (theirs, there)

    return train


def state(callback, *names):
    return {name: getattr(callback, name) for name in names}


def test_early_stopping_restores_the_best_weights_here_too(both):
    (ours, here), (_, there) = both(
        lambda _: [keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=10.0, restore_best_weights=True)],
        validation=True,
        epochs=9,
    )
    names = ("wait", "stopped_epoch", "best", "best_epoch")
    assert state(here[0], *names) == state(there[0], *names)
    assert here[0].stopped_epoch > 0
    for one, other, now in zip(here[0].best_weights, there[0].best_weights, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, now)


def test_model_checkpoint_writes_a_file_per_epoch_into_the_callers_directory(both, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    both(lambda side: [keras.callbacks.ModelCheckpoint(side + "-{epoch:02d}-{val_loss:.3f}.keras")], validation=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    ours = [name.removeprefix("ours") for name in names if name.startswith("ours")]
    assert ours == [name.removeprefix("theirs") for name in names if name.startswith("theirs")]
    assert len(ours) == 4
    for name in ours:
        one, other = (keras.models.load_model(side + name) for side in ("ours", "theirs"))
        for mine, kerass in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, kerass)


def test_model_checkpoint_keeps_the_best_weights_only(both, make_model, tmp_path):
    def callbacks(side):
        return [
            keras.callbacks.ModelCheckpoint(
                str(tmp_path / f"{side}.weights.h5"), "accuracy", save_best_only=True, save_weights_only=True
            )
        ]

    (_, here), (_, there) = both(callbacks)
    assert here[0].best == there[0].best
    saved = []
    for side in ("ours", "theirs"):
        model = make_model()
        model.optimizer.build(model.trainable_variables)
        model.load_weights(tmp_path / f"{side}.weights.h5")
        saved.append(model.get_weights())
    for one, other in zip(*saved, strict=True):
        np.testing.assert_array_equal(one, other)


def test_reduce_lr_on_plateau_lowers_the_learning_rate_alike(both):
    (ours, here), (_, there) = both(
        lambda _: [keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=10.0, factor=0.5, cooldown=1)]
    )
    names = ("wait", "cooldown_counter", "best")
    assert state(here[0], *names) == state(there[0], *names)
    assert float(ours.optimizer.learning_rate.numpy()) < 0.001


def test_a_lambda_schedule_travels(both):
    step = 0.003
    (ours, _), _ = both(
        lambda _: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: step if epoch < 2 else rate / 2)]
    )
    assert float(ours.optimizer.learning_rate.numpy()) == pytest.approx(step / 4)


def test_csv_logger_writes_what_keras_writes(both, tmp_path):
    both(lambda side: [keras.callbacks.CSVLogger(str(tmp_path / side), separator=";")], validation=True)
    assert (tmp_path / "ours").read_text() == (tmp_path / "theirs").read_text()
    assert (tmp_path / "ours").read_text().startswith("epoch;accuracy;loss;val_accuracy;val_loss\n0;")


def scalars(folder):
    """Tag, step and value of every scalar in the event files below a folder."""
    import tensorflow as tf

    found = []
    for file in sorted(folder.rglob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            found += [
                (file.parent.name, value.tag, event.step, tf.make_ndarray(value.tensor).item())
                for value in event.summary.value
                if value.metadata.plugin_data.plugin_name == "scalars"
            ]
    return sorted(found)


def test_tensorboard_writes_its_events_and_warns_of_nothing(both, tmp_path):
    """A warning would be an error here, as the project's tests have it."""
    pytest.importorskip("tensorboard")
    both(lambda side: [keras.callbacks.TensorBoard(str(tmp_path / side), histogram_freq=1)], validation=True)
    ours, theirs = scalars(tmp_path / "ours"), scalars(tmp_path / "theirs")
    assert [one for one in ours if "vs_" not in one[1]] == [one for one in theirs if "vs_" not in one[1]]
    assert [one[:3] for one in ours] == [one[:3] for one in theirs]
    assert ("train", "epoch_loss") in {one[:2] for one in ours}
    assert ("validation", "epoch_accuracy") in {one[:2] for one in ours}


def test_tensorboard_serves_a_kept_trainer_twice(rows, make_model, tmp_path):
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(str(tmp_path), update_freq=1)
    with rayfeed.Trainer(make_model()) as trainer:
        for _ in range(2):
            trainer.fit_generator(rows(), epochs=2, verbose=0, callbacks=[board], workers=0)
    steps = [one[2] for one in scalars(tmp_path) if one[1] == "epoch_loss"]
    assert steps == [0, 0, 1, 1]


class Poisoned(Rows):
    """One batch's loss is no number."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x, y, np.full(len(y), np.nan if index == 3 else 1.0, "float32")


def test_terminate_on_nan_stops_at_the_step(as_py_dataset, make_model):
    def run(train, source, **arguments):
        model, callback = make_model(), keras.callbacks.TerminateOnNaN()
        history = train(model, source, epochs=3, shuffle=False, verbose=0, callbacks=[callback], **arguments)
        return history.epoch, int(model.optimizer.iterations.numpy()), model.stop_training

    expected = run(keras.Model.fit, as_py_dataset(Poisoned()))
    assert run(rayfeed.fit_generator, Poisoned(), workers=0) == expected == ([0], 4, True)


def test_swap_ema_weights_ends_with_the_average(both, make_model):
    def model():
        return make_model(optimizer=keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))

    both(lambda _: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)], models=(model(), model()), validation=True)


class Interrupts(keras.callbacks.Callback):
    """Ends the first run after some epochs, as a power cut would."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise RuntimeError("power cut")


@pytest.mark.parametrize(
    ("trainer", "validation"), [("driver", True), (None, False)], ids=["driver, with validation", "actor, alone"]
)
def test_backup_and_restore_resumes_at_the_epoch_where_keras_resumes(
    trainer, validation, rows, as_py_dataset, make_model, same_state, tmp_path
):
    def backup(side):
        return keras.callbacks.BackupAndRestore(str(tmp_path / side))

    theirs = ours = None
    for extra in ([Interrupts()], []):
        theirs, ours = make_model(), make_model()
        runs = [
            lambda model=theirs, extra=extra: model.fit(
                as_py_dataset(rows()),
                epochs=5,
                shuffle=False,
                verbose=0,
                callbacks=[backup("theirs"), *extra],
                validation_data=as_py_dataset(rows(20)) if validation else None,
                validation_freq=2,
            ),
            lambda model=ours, extra=extra: rayfeed.fit_generator(
                model,
                rows(),
                epochs=5,
                shuffle=False,
                verbose=0,
                callbacks=[backup("ours"), *extra],
                validation_data=rows(20) if validation else None,
                validation_freq=2,
                workers=2,
                trainer=trainer,
            ),
        ]
        if extra:
            for run in runs:
                with pytest.raises(RuntimeError, match="power cut"):
                    run()
            metadata = [
                json.loads((tmp_path / side / "training_metadata.json").read_text()) for side in ("theirs", "ours")
            ]
            assert metadata == [{"epoch": 3, "batch": 0}] * 2
        else:
            expected, history = (run() for run in runs)
            assert history.epoch == expected.epoch == [3, 4]
            assert history.history == expected.history
    same_state(ours, theirs)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_training_ends_each_of_its_passes_once(workers, rows, make_model, tmp_path):
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(RuntimeError, match="power cut"):
        rayfeed.fit_generator(
            make_model(), rows(), epochs=5, verbose=0, callbacks=[backup, Interrupts()], workers=0, trainer="driver"
        )
    path = tmp_path / "ends"
    history = rayfeed.fit_generator(
        make_model(), Hooked(rows(), path), epochs=5, verbose=0, callbacks=[backup], workers=workers, trainer="driver"
    )
    assert history.epoch == [3, 4]
    ends = path.read_text().count("end")
    assert ends == 2 if workers == 0 else ends >= 2  # producers work ahead


def test_a_resumed_call_leaves_no_first_epoch_for_the_next_one(rows, make_model, tmp_path):
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with rayfeed.Trainer(make_model()) as trainer:
        with pytest.raises(RuntimeError, match="power cut"):
            trainer.fit_generator(rows(), epochs=5, verbose=0, callbacks=[backup, Interrupts()], workers=0)
        assert trainer.fit_generator(rows(), epochs=5, verbose=0, callbacks=[backup], workers=0).epoch == [3, 4]
        assert trainer.fit_generator(rows(), epochs=2, verbose=0, workers=0).epoch == [0, 1]


def test_a_backup_of_a_training_that_was_done_trains_nothing(rows, as_py_dataset, make_model, tmp_path):
    epochs = []
    for train, source, side in (
        (keras.Model.fit, as_py_dataset(rows()), "theirs"),
        (rayfeed.fit_generator, rows(), "ours"),
    ):
        for _ in range(2):
            backup = keras.callbacks.BackupAndRestore(str(tmp_path / side), delete_checkpoint=False)
            epochs.append(train(make_model(), source, epochs=2, verbose=0, callbacks=[backup]).epoch)
    assert epochs == [[0, 1], []] * 2


class Watching(keras.callbacks.CSVLogger):
    """A user's class on one of Keras', with state of its own that cannot travel."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.mine = (self.path / "open").open("w")

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        raise OwnError(4, detail="with files open")


def test_state_that_stays_in_the_trainer_is_warned_of_where_it_is_the_users(rows, make_model, tmp_path):
    """Not the logger's own file and writer, which are open as well: Keras makes them anew in each run."""
    callback = Watching(str(tmp_path / "log.csv"))
    callback.path = tmp_path
    with (
        pytest.warns(UserWarning, match=r"stays in the trainer: Watching\.mine") as warned,
        pytest.raises(OwnError, match="with files open"),
    ):
        rayfeed.fit_generator(make_model(), rows(), verbose=0, callbacks=[callback], workers=0)
    assert len(warned) == 1


def test_a_callback_that_compares_does_so_in_the_same_direction_in_a_second_call(rows, make_model):
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1)
    with rayfeed.Trainer(make_model()) as trainer:
        for _ in range(2):
            history = trainer.fit_generator(rows(), epochs=4, verbose=0, callbacks=[stop], workers=0)
            assert history.epoch == [0, 1]
            assert stop.monitor_op is keras.ops.less


def test_a_lambda_callback_travels_and_what_it_captured_stays(rows, make_model, tmp_path):
    captured = []

    def note(epoch, logs):
        captured.append(epoch)
        (tmp_path / "seen").write_text(str(captured))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=note)
    rayfeed.fit_generator(make_model(), rows(), epochs=2, verbose=0, callbacks=[callback], workers=0)
    assert (tmp_path / "seen").read_text() == "[0, 1]"
    assert captured == []
    assert callback.on_epoch_end is note
