"""D3: what cannot travel runs in a thread of the caller's process, wherever the model is."""

import sqlite3
import threading
import time

import keras
import numpy as np
import pytest

import rayfeed
from rayfeed.errors import RemoteTraceback, SourceError
from rayfeed.trainer.session import OneCall
from tests.oracle.sources import Numbers, OwnError, Rows, count
from tests.oracle.test_epochs import identity, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:rayfeed. .*cannot be sent:UserWarning"),
    pytest.mark.usefixtures("shared_trainer"),
]

TRAINERS = pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "trainer actor"])


def started(stop=1 << 30):
    """Counts from 0, and was started."""
    generator = count(-1, stop)
    next(generator)
    return generator


def next_of(generator):
    return int(next(generator)[0][0, 0])


def home_threads():
    return [thread for thread in threading.enumerate() if thread.name == "rayfeed-home"]


def rows_of(database):
    """Batches of eight rows of a table, for ever."""
    while True:
        rows = database.execute("SELECT * FROM rows")
        while chunk := rows.fetchmany(8):
            table = np.array(chunk)
            yield table[:, :10].astype("float32"), table[:, 10].astype("int64")


@TRAINERS
def test_a_generator_on_an_open_database_trains_as_in_keras(trainer, make_model, same_state):
    data = Rows(80)
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute(f"CREATE TABLE rows ({', '.join(f'c{place}' for place in range(11))})")
    table = np.column_stack([data.x.astype(float), data.y]).tolist()
    database.executemany(f"INSERT INTO rows VALUES ({', '.join('?' * 11)})", table)  # noqa: S608 - question marks
    ours, theirs = make_model(), make_model()
    expected = theirs.fit(
        rows_of(database),
        steps_per_epoch=6,
        epochs=3,
        shuffle=False,
        verbose=0,
        validation_data=(data.x, data.y),
        validation_batch_size=8,
    )
    history = rayfeed.fit_generator(
        ours, rows_of(database), 6, 3, verbose=0, validation_data=Rows(80), workers=2, trainer=trainer
    )
    assert history.history == expected.history
    assert history.feed_stats.num_producers == 0
    same_state(ours, theirs)
    database.close()


@TRAINERS
def test_the_callers_generators_stand_behind_the_last_batch_that_was_wanted(trainer):
    training, validation = started(), started()
    numbers, history, _ = run(
        training, 4, epochs=3, validation_data=validation, validation_steps=2, validation_freq=2, trainer=trainer
    )
    assert numbers == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert history.history["val_loss"] == [0.5]
    assert (next_of(training), next_of(validation)) == (12, 2)
    assert home_threads() == []


@TRAINERS
def test_a_validation_generator_at_home_beside_a_sequence_in_producers(trainer):
    validation = started()
    numbers, history, _ = run(
        Numbers(3), epochs=2, shuffle=False, validation_data=validation, validation_steps=2, workers=2, trainer=trainer
    )
    assert numbers == [[0, 1, 2], [0, 1, 2]]
    assert history.history["val_loss"] == [0.5, 2.5]
    assert next_of(validation) == 4


@TRAINERS
def test_it_serves_evaluate_and_predict(trainer):
    source = started()
    with OneCall(identity(), trainer) as one:
        assert one.evaluate_generator(source, 3) == 1.0
        assert one.predict_generator(source, 2)[:, 0].tolist() == [3, 3, 4, 4]
    assert next_of(source) == 5


@TRAINERS
def test_a_generator_that_ends_early_ends_the_training_with_keras_warning(trainer):
    with pytest.warns(UserWarning, match="ran out of data"):
        numbers, history, _ = run(started(6), 4, epochs=5, trainer=trainer)
    assert numbers == [[0, 1, 2, 3], [4, 5]]
    assert history.epoch == [0, 1]


@TRAINERS
def test_an_exception_reaches_the_caller_with_its_type_traceback_and_place(trainer):
    def failing():
        yield from count(0, 6)
        raise OwnError(17, detail="bad row")

    source = failing()
    next(source)
    with pytest.raises(OwnError, match="code 17: bad row") as caught:
        run(source, 4, epochs=2, trainer=trainer)
    assert caught.value.code == 17
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in failing" in str(caught.value.__cause__)
    notes = " ".join(caught.value.__notes__)
    assert "a thread of the caller's process (pid" in notes
    assert "generator: batch 5" in notes
    assert home_threads() == []


class FailingCallback(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise OwnError(3, detail="callback")


@TRAINERS
def test_an_exception_elsewhere_leaves_no_thread_and_the_generator_goes_on(trainer):
    source = started()
    with pytest.raises(OwnError, match="code 3: callback"):
        rayfeed.fit_generator(
            identity(), source, 4, 2, verbose=0, callbacks=[FailingCallback()], max_queue_size=2, trainer=trainer
        )
    assert home_threads() == []
    assert next_of(source) in range(1, 6)


def test_each_call_of_a_kept_trainer_goes_on_where_the_one_before_stopped():
    source = started()
    with rayfeed.Trainer(identity()) as trainer:
        for first in (0, 4, 8):
            assert trainer.fit_generator(source, 4, verbose=0).history["loss"] == [first + 1.5]
        with pytest.raises(OwnError, match="code 3"):
            trainer.fit_generator(source, 4, verbose=0, callbacks=[FailingCallback()])
        assert trainer.fit_generator(Numbers(3), verbose=0, workers=0).history["loss"] == [1.0]
        place = next_of(source)
        assert trainer.fit_generator(source, 4, verbose=0).history["loss"] == [place + 2.5]
    assert next_of(source) == place + 5


def test_large_batches_come_through_unchanged_where_a_buffer_is_filled_again():
    def refilling():
        inputs, targets = np.zeros((50_000, 1), "float32"), np.zeros((50_000, 1), "float32")
        for number in range(1 << 30):
            inputs[:] = number
            yield inputs, targets

    source = refilling()
    next(source)
    # Losses are means of all 50,000 numbers of each batch: one that was overwritten would show.
    assert run(source, 8, epochs=2, trainer=None)[0] == [list(range(1, 9)), list(range(9, 17))]


def test_what_a_trainer_without_workers_cannot_be_sent_is_refused_and_the_driver_takes_it():
    with pytest.raises(SourceError, match=r'already started.*(?s:.*)With trainer="driver" and workers=0 it runs'):
        rayfeed.fit_generator(identity(), started(), 4, verbose=0, workers=0)
    assert run(started(), 4, workers=0, trainer="driver")[0] == [[0, 1, 2, 3]]


def test_where_processes_are_asked_for_training_and_validation_sources_are_refused():
    with pytest.raises(SourceError, match="With use_multiprocessing=False it runs as it is, in a thread"):
        rayfeed.fit_generator(identity(), started(), 4, verbose=0, use_multiprocessing=True)
    with pytest.raises(SourceError, match=r"validation_data \(generator\).*(?s:.*)With use_multiprocessing=False"):
        rayfeed.fit_generator(
            identity(), Numbers(2), validation_data=started(), validation_steps=1, verbose=0, use_multiprocessing=True
        )


def test_the_warning_is_given_once_and_names_what_could_not_travel_and_the_callers_line():
    with pytest.warns(UserWarning, match="cannot be sent to another process") as caught:
        rayfeed.fit_generator(identity(), started(), 4, verbose=0, trainer="driver")
    (warning,) = caught
    assert str(warning.message).startswith(
        "rayfeed: generator (generator) cannot be sent to another process: generator"
    )
    assert "it runs in a thread of this process" in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.timeout(180)  # it may start a cluster of its own
def test_ctrl_c_ends_the_call_though_the_generator_at_home_hangs(interruptible, tmp_path):
    told, errors = interruptible.interrupt("generator_at_home_hangs", tmp_path)
    assert told == {"actors left": 0, "steps": 2}, errors
    assert "generator is still making a batch in a thread of this process" in errors
    assert time.time() - (tmp_path / "running").stat().st_mtime < 40
