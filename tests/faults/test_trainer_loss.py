"""The trainer's process is killed at named points: the training goes on, and ends as if nothing had been (F3, G3)."""

import re
from pathlib import Path

import keras
import pytest
import ray

import rayfeed
from rayfeed import TrainerOptions
from rayfeed.errors import TrainerDiedError
from tests.conftest import start_script, wait_until
from tests.oracle.conftest import AsPyDataset, assert_same_state, classifier
from tests.oracle.sources import Rows
from tests.sources import Gate, die

EPOCHS = 3
TWO = {"workers": 2, "use_multiprocessing": True, "verbose": 0, "shuffle": False, "epochs": EPOCHS}


class Dies(keras.callbacks.Callback):
    """Ends its process after each of these steps, (epoch, batch) or (epoch, "test", batch), the first time."""

    def __init__(self, at, once):
        super().__init__()
        self.at = at
        self.once = once

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.die_at(self.epoch, batch)

    def on_test_batch_end(self, batch, logs=None):
        self.die_at(self.epoch, "test", batch)

    def die_at(self, *step):
        if step in self.at and self.once("-".join(map(str, step))):
            die()


class Epochs(keras.callbacks.Callback):
    """Takes down the epochs that begin."""

    def __init__(self):
        super().__init__()
        self.begun = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(epoch)


def by_keras():
    """What Keras' own fit makes of the same training."""
    model = classifier()
    history = model.fit(
        AsPyDataset(Rows()), validation_data=AsPyDataset(Rows(seed=5)), shuffle=False, epochs=EPOCHS, verbose=0
    )
    return model, history


@pytest.mark.usefixtures("shared_trainer")
def test_a_trainer_killed_before_the_first_checkpoint_in_validation_and_in_mid_epoch_costs_nothing(tmp_path, once):
    callback = Dies([(0, 1), (1, "test", 1), (2, 5)], once)
    here = Epochs()
    options = {"checkpoint_dir": str(tmp_path / "saved"), "save_every": 4}
    before = [weight.copy() for weight in classifier().get_weights()]
    model = classifier()
    arguments = {"validation_data": Rows(seed=5), "callbacks": [callback, rayfeed.on_driver(here)], **TWO}
    with pytest.warns(UserWarning, match="rayfeed: the trainer") as told, pytest.raises(TrainerDiedError) as caught:
        rayfeed.fit_generator(model, Rows(), trainer=TrainerOptions(max_failures=2, **options), **arguments)
    first, second = (str(warning.message) for warning in told)
    where = r"rayfeed: the trainer \(node [\d.]+, pid \d+\) was lost during fit: "
    assert re.fullmatch(where + r"it begins again, as nothing had been saved yet\. Failure 1 of 2 \(.*\)\.", first)
    goes_on = r"going on from epoch 1, batch 6, saved \d+ s before\. Failure 2 of 2 \(TrainerOptions\.max_failures\)\."
    assert re.fullmatch(where + goes_on, second)
    assert here.begun == [0, 0, 1, 1, 2]
    assert "It was started again 2 times (TrainerOptions.max_failures=2)." in str(caught.value)
    assert f"is in {tmp_path}/saved: TrainerOptions(resume=True) goes on from there." in str(caught.value)
    assert all((one == other).all() for one, other in zip(model.get_weights(), before, strict=True))

    ours = rayfeed.fit_generator(
        model, Rows(), trainer=TrainerOptions(resume=True, **options), **(arguments | {"workers": 3})
    )
    assert here.begun == [0, 0, 1, 1, 2, 2]
    theirs, history = by_keras()
    assert (ours.history, ours.epoch) == (history.history, [0, 1, 2])
    assert_same_state(model, theirs)


class Stays(keras.callbacks.Callback):
    """Stays in a step of the second epoch until the gate is open."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 7):
            Path(self.folder, "there").touch()
            Gate(f"{self.folder}/gate").wait()


def train(model, folder, *, workers, resume=False):
    options = TrainerOptions(checkpoint_dir=f"{folder}/saved", save_every=3, resume=resume)
    arguments = {**TWO, "workers": workers, "validation_data": Rows(seed=5), "callbacks": [Stays(folder)]}
    return rayfeed.fit_generator(model, Rows(), trainer=options, **arguments)


def train_in_cluster(address, folder):
    """What a caller does in a process of its own."""
    ray.init(address, log_to_driver=False)
    train(classifier(), folder, workers=2)


@pytest.mark.usefixtures("shared_trainer")
def test_a_new_process_goes_on_with_another_number_of_workers_where_the_caller_was_killed(tmp_path):
    code = "import sys\nfrom tests.faults.test_trainer_loss import train_in_cluster\ntrain_in_cluster(*sys.argv[1:])"
    there = tmp_path / "there"
    with start_script(code, ray.get_runtime_context().gcs_address, str(tmp_path)) as process:
        try:
            wait_until(lambda: there.exists() or process.poll() is not None, "nothing is trained", seconds=90)
            assert process.poll() is None, process.communicate()[1]
        finally:
            process.kill()
    Gate(f"{tmp_path}/gate").open()
    model = classifier()
    ours = train(model, str(tmp_path), workers=0, resume=True)
    theirs, history = by_keras()
    assert ours.history == history.history
    assert_same_state(model, theirs)
