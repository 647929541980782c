"""The trainer's process is killed at named points: the training goes on, and ends as if nothing had been (F3).

A kill in mid-epoch, and of the caller, are in tests/conformance/test_lost_trainers.py; every other way to interrupt a
training is in tests/oracle/test_resumed_training.py.
"""

import re

import keras
import numpy as np
import pytest

import rayfeed
from rayfeed import TrainerOptions
from rayfeed.errors import TrainerDiedError
from tests.dying import Dies
from tests.oracle.conftest import AsPyDataset, assert_same_state, classifier
from tests.oracle.sources import Rows


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
    options = {"checkpoint_dir": str(tmp_path / "saved"), "save_every": 4}
    arguments = {
        "validation_data": Rows(seed=5),
        "callbacks": [Dies([(0, 1), (1, "test", 1)], once), rayfeed.on_driver(here)],
        "workers": 2,
        "use_multiprocessing": True,
        "shuffle": False,
        "epochs": 3,
        "verbose": 0,
    }
    model = classifier()
    before = [weight.copy() for weight in model.get_weights()]
    trainer = TrainerOptions(max_failures=1, **options)
    with pytest.warns(UserWarning, match="the trainer") as told, pytest.raises(TrainerDiedError) as caught:
        rayfeed.fit_generator(model, Rows(), trainer=trainer, **arguments)
    (warning,) = told
    text = r"rayfeed: the trainer \(node [\d.]+, pid \d+\) was lost during fit: it begins again, as nothing had been"
    assert re.match(text, str(warning.message))
    assert warning.filename == __file__
    assert "It was started again 1 time (TrainerOptions.max_failures=1)." in str(caught.value)
    assert f"What was saved of it is in {tmp_path}/saved: TrainerOptions(resume=True)" in str(caught.value)
    assert here.begun == [0, 0, 1]
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)

    trainer = TrainerOptions(resume=True, **options)
    ours = rayfeed.fit_generator(model, Rows(), trainer=trainer, **(arguments | {"workers": 3}))
    assert here.begun == [0, 0, 1, 1, 2]  # on the caller's side nothing is turned back
    theirs = classifier()
    history = theirs.fit(
        AsPyDataset(Rows()), validation_data=AsPyDataset(Rows(seed=5)), shuffle=False, epochs=3, verbose=0
    )
    assert (ours.history, ours.epoch) == (history.history, [0, 1, 2])
    assert_same_state(model, theirs)
