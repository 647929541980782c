"""F3, G3: a training that goes on from a checkpoint ends, to the last bit, as one that was never interrupted.

Interrupted by an exception of a callback, which leaves the checkpoints as a kill does and the process to the next test;
real kills are in tests/faults/test_trainer_loss.py.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import rayfeed
from rayfeed.errors import CheckpointError, OptionError
from rayfeed.trainer.checkpoint_files import CheckpointFiles, Label
from tests.oracle.resumed import IN_LINE, PROCESSES, THREADS, Steps
from tests.oracle.sources import Announced, Noisy, Rows, generated, noise
from tests.sources import Once

pytestmark = pytest.mark.usefixtures("shared_trainer")


@pytest.mark.parametrize(("at", "every"), [((0, 3), 2), ((2, 4), None)], ids=str)
def test_a_shuffled_sequence_goes_on_in_mid_epoch_and_between_epochs(at, every, parts):
    parts.check(Rows, at, every)


@pytest.mark.parametrize(("source", "at", "every"), [(Noisy, (2, 2), 3), (Announced, (1, 1), None)], ids=str)
def test_nothing_is_lost_where_passes_change_in_order_and_length(source, at, every, parts):
    whole, second, _ = parts.check(source, at, every, after=PROCESSES)
    assert second.steps[-1] == whole.steps[-1] == 7


def test_epochs_that_are_no_passes_go_on_too(parts):
    parts.check(Noisy, (1, 2), 3, steps_per_epoch=4, before=THREADS)


def test_a_generator_is_run_again_up_to_where_it_was(parts):
    parts.check(lambda: noise, (1, 3), 3, steps_per_epoch=5, after={"workers": 1})


@pytest.mark.parametrize(
    ("validation", "at", "every"),
    [
        (Noisy, (1, "test", 1), 4),
        (lambda: generated(Rows(num_rows=40, seed=5)), (2, 0), None),
    ],
    ids=["sequence", "generator"],
)
def test_validation_goes_on_where_it_was(validation, at, every, parts):
    parts.check(Rows, at, every, validation_data=validation, validation_steps=3)


def built_by_data():
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.layers.Dropout(0.2), keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_a_model_that_data_builds_goes_on(parts):
    parts.make_model = built_by_data
    parts.check(Rows, (1, 8), 4)


def test_executions_of_several_steps_go_on(parts, make_model):
    parts.make_model = lambda: make_model(steps_per_execution=3)
    _, second, _ = parts.check(Rows, (1, 8), 4)
    assert [step[1] for step in second.seen] == [2, 5, 8, 11] * 3


def callbacks_with_state():
    """Both act in the fourth epoch: the loss is no better than infinitely so."""
    options = {"monitor": "loss", "min_delta": np.inf}
    return [
        keras.callbacks.ReduceLROnPlateau(patience=2, cooldown=1, factor=0.5, **options),
        keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True, **options),
    ]


def test_callbacks_go_on_with_what_they_counted(parts):
    _, second, (_, stop) = parts.check(Rows, (2, 3), 4, make_callbacks=callbacks_with_state, epochs=9)
    assert stop.stopped_epoch == 3
    assert (stop.wait, stop.best_epoch) == (3, 0)
    assert second.seen[-1][0] == 3


def test_what_a_caller_sets_otherwise_holds_from_there_on(parts):
    parts.fit(Rows, at=(1, 0), trainer=parts.options(), callbacks=callbacks_with_state(), epochs=9, **IN_LINE)
    reduce, stop = callbacks_with_state()
    stop.patience = 5
    _, history, _ = parts.fit(Rows, trainer=parts.options(resume=True), callbacks=[reduce, stop], epochs=9, **IN_LINE)
    assert len(history["loss"]) == 6
    assert stop.stopped_epoch == 5


def test_a_training_that_is_over_is_not_trained_again_but_for_more_epochs(parts):
    whole, history, model = parts.fit(Rows, trainer="driver", **IN_LINE)
    parts.fit(Rows, epochs=2, trainer=parts.options(), **IN_LINE)
    for epochs in (3, 3):
        steps, resumed, ours = parts.fit(Rows, epochs=epochs, trainer=parts.options(resume=True), **IN_LINE)
        assert resumed == history
        assert steps.seen == whole.seen
        parts.same_state(ours, model)


class EndsOnce(Rows):
    """Raises the error by which TensorFlow tells itself that data ended, the first time."""

    def __init__(self, once, at):
        super().__init__()
        self.once = once
        self.at = at

    def __getitem__(self, index):
        if index == self.at and self.once("ends"):
            raise tf.errors.OutOfRangeError(None, None, "the user's own")
        return super().__getitem__(index)


@pytest.mark.parametrize("validates", [False, True], ids=["training", "validation"])
def test_an_error_that_keras_takes_for_the_datas_end_is_saved_as_no_end(validates, parts, tmp_path):
    source, validation = ((lambda: EndsOnce(Once(tmp_path), 6)), Rows)[:: -1 if validates else 1]
    options = {"validation_data": validation, "shuffle": False, "epochs": 2, **IN_LINE}
    with pytest.warns(UserWarning, match="ran out of data"), pytest.raises(tf.errors.OutOfRangeError):
        parts.fit(source, trainer=parts.options(save_every=4), **options)
    steps, resumed, model = parts.fit(source, trainer=parts.options(save_every=4, resume=True), **options)
    whole, history, theirs = parts.fit(source, trainer="driver", **options)
    assert (steps.seen, resumed) == (whole.seen, history)
    parts.same_state(model, theirs)


def test_a_training_that_was_stopped_stays_so(parts):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    parts.fit(Rows, trainer=parts.options(), callbacks=[Stop()], **IN_LINE)
    with pytest.warns(UserWarning, match="was stopped at epoch 2, batch 0, .*: nothing is trained"):
        steps, history, _ = parts.fit(Rows, trainer=parts.options(resume=True), callbacks=[Stop()], **IN_LINE)
    assert len(history["loss"]) == 2
    assert len(steps.seen) == 20


def test_a_kept_trainer_resumes_its_first_training_and_replaces_its_own_checkpoints(parts, make_model):
    parts.fit(Rows, at=(1, 3), trainer=parts.options(save_every=2), **IN_LINE)
    steps, later = Steps(), Steps()
    options = {"seed": 3, "verbose": 0, "epochs": 2, "workers": 0}
    with rayfeed.Trainer(make_model(), checkpoint_dir=parts.directory, save_every=2, resume=True) as trainer:
        trainer.fit_generator(Rows(), callbacks=[steps], **options)
        trainer.evaluate_generator(Rows(), workers=0)
        trainer.fit_generator(Rows(), callbacks=[later], **options)
    assert [seen[:2] for seen in steps.seen] == [seen[:2] for seen in later.seen]
    assert len(list(Path(parts.directory).iterdir())) == 1


REFUSALS = [
    (
        {"source": Noisy},
        "generator is the Sequence Rows of 10 batches, shuffled; this call's is the Sequence Noisy of 5",
    ),
    ({"shuffle": False}, "generator is .* 10 batches, shuffled; this call's is .* 10 batches, in its order"),
    (
        {"source": lambda: noise, "steps_per_epoch": 5},
        "generator is the Sequence .*; this call's is the generator noise",
    ),
    ({"seed": 4}, "seed is 3; this call's is 4"),
    ({"seed": None}, "seed is 3; this call's is None"),
    ({"initial_epoch": 1}, "initial_epoch is 0; this call's is 1"),
    ({"compiled": {"optimizer": "sgd"}}, "list of optimizers is Adam; this call's is SGD"),
    ({"compiled": {"metrics": None}}, "list of metrics is accuracy; this call's is empty"),
    (
        {"compiled": {"optimizer": keras.optimizers.Adam(amsgrad=True)}},
        "optimizer's list of variables is iteration, .*, velocity; this call's is .*, velocity, velocity_hat",
    ),
]


def test_a_checkpoint_of_another_training_is_refused_and_not_replaced(parts, make_model):
    parts.fit(Rows, at=(0, 5), trainer=parts.options(save_every=2), **IN_LINE)
    (name,) = Path(parts.directory).iterdir()
    for wrong, text in REFUSALS:
        options = {"source": Rows, **IN_LINE, **wrong}
        options["model"] = make_model(**options.pop("compiled", {}))
        with pytest.raises(OptionError, match=f"{name} is of another training: its {text}"):
            parts.fit(trainer=parts.options(resume=True), **options)
    with pytest.raises(
        OptionError, match="its callbacks in the trainer are Steps, History; this call's are Steps, Steps,"
    ):
        parts.fit(Rows, trainer=parts.options(resume=True), callbacks=[Steps()], **IN_LINE)
    with pytest.raises(
        OptionError,
        match=rf"(?s)holds the checkpoint of another training, at epoch 0, batch 4 \({name.name}\).*resume=True",
    ):
        parts.fit(Rows, trainer=parts.options(), **IN_LINE)
    name.write_bytes(name.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=f"{name} was cut or changed"):
        parts.fit(Rows, trainer=parts.options(resume=True), **IN_LINE)


def test_of_two_trainings_that_save_to_one_directory_one_ends_and_says_so(parts):
    class Other(keras.callbacks.Callback):
        """What another training would do."""

        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                files = CheckpointFiles(parts.directory, "/")
                files.write(Label("other", 0, 2, False, 0.0), [b"x"], replaces=files.newest().label.run)

    with pytest.raises(CheckpointError, match=r"got the checkpoint of another training, at epoch 0, batch 2 .*batch 8"):
        parts.fit(Rows, trainer=parts.options(save_every=4), callbacks=[Other()], **IN_LINE)


def test_nothing_to_resume_is_told(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts.directory = "relative"
    with pytest.warns(
        UserWarning, match=r"resume=True\), and relative holds no checkpoint: the training begins at its"
    ):
        parts.fit(Rows, epochs=1, trainer=parts.options(resume=True), **IN_LINE)
    assert len(list((tmp_path / "relative").iterdir())) == 1
