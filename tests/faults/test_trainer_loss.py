"""The trainer's process is killed at named points: the training goes on, and ends as if nothing had been (F3).

Batches are shuffled and drawn from every random stream that a seed reaches, and the model has dropout.

A kill in mid-epoch, and of the caller, are in tests/conformance/test_lost_trainers.py; every other way to interrupt a
training is in tests/oracle/test_resumed_training.py.
"""

import re
import shutil

import keras
import numpy as np
import pytest

import rayfeed
from rayfeed import TrainerOptions
from rayfeed.errors import TrainerDiedError
from tests.dying import Dies
from tests.oracle.conftest import assert_same_state, classifier
from tests.oracle.sources import Drawing, Rows


class Epochs(keras.callbacks.Callback):
    """Takes down the epochs that begin."""

    def __init__(self):
        super().__init__()
        self.begun = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(epoch)


@pytest.mark.usefixtures("shared_trainer")
def test_a_trainer_killed_before_the_first_checkpoint_and_in_validation_costs_nothing(tmp_path, once):
    here = Epochs()
    options = {"checkpoint_dir": f"file://{tmp_path}/saved", "save_every": 4}
    data = {"validation_data": Drawing(seed=5), "seed": 3, "epochs": 3, "verbose": 0}
    arguments = data | {
        "callbacks": [Dies([(0, 1), (1, "test", 1)], once), rayfeed.on_driver(here)],
        "workers": 2,
        "use_multiprocessing": True,
    }
    model = classifier()
    before = [weight.copy() for weight in model.get_weights()]
    trainer = TrainerOptions(max_failures=1, **options)
    with pytest.warns(UserWarning, match="the trainer") as told, pytest.raises(TrainerDiedError) as caught:
        rayfeed.fit_generator(model, Drawing(), trainer=trainer, **arguments)
    (warning,) = told
    text = r"rayfeed: the trainer \(node [\d.]+, pid \d+\) was lost during fit: it begins again, as nothing had been"
    assert re.match(text, str(warning.message))
    assert warning.filename == __file__
    assert "It was started again 1 time (TrainerOptions.max_failures=1)." in str(caught.value)
    assert f"What was saved of it is in file://{tmp_path}/saved: TrainerOptions(resume=True)" in str(caught.value)
    assert here.begun == [0, 0, 1]
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)

    trainer = TrainerOptions(resume=True, **options)
    ours = rayfeed.fit_generator(model, Drawing(), trainer=trainer, **(arguments | {"workers": 3}))
    assert here.begun == [0, 0, 1, 1, 2]  # on the caller's side nothing is turned back
    theirs = classifier()
    history = rayfeed.fit_generator(theirs, Drawing(), trainer="driver", workers=0, **data)
    assert (ours.history, ours.epoch) == (history.history, [0, 1, 2])
    assert_same_state(model, theirs)


class LosesItsDirectory(Dies):
    """Ends its process with the directory gone, as on the disk of a node that is lost."""

    def __init__(self, directory, *arguments):
        super().__init__(*arguments)
        self.directory = directory

    def after(self, *step):
        if step in self.at and self.directory.exists():
            shutil.rmtree(self.directory)
        super().after(*step)


@pytest.mark.usefixtures("shared_trainer")
def test_what_was_saved_where_the_next_trainer_cannot_read_it_is_told(tmp_path, once):
    saved = tmp_path / "saved"
    trainer = TrainerOptions(checkpoint_dir=str(saved), max_failures=1)
    with pytest.warns(UserWarning, match="the trainer") as told:
        rayfeed.fit_generator(
            classifier(),
            Rows(),
            epochs=3,
            workers=0,
            verbose=0,
            # The second epoch's end waits for the caller, who has heard of the first's checkpoint then, if of no later.
            callbacks=[rayfeed.on_driver(Epochs()), LosesItsDirectory(saved, [(2, 9)], once)],
            trainer=trainer,
        )
    text = (
        r"it begins again, as what was saved at epoch [12], batch 0 in .*/saved on node [\d.]+ is not to be found where"
    )
    assert re.search(text, str(told[0].message))
