"""E4, E5, F3: callbacks that refer to each other, or share objects, see what they see in Keras' `fit`, also resumed."""

import keras
import pytest

import rayfeed
from tests.oracle.resumed import IN_LINE
from tests.oracle.sources import Rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]


class Tracker:
    """A plain object that callbacks share."""

    def __init__(self, rows):
        self.rows = rows
        self.total = 0.0


class Tracks(keras.callbacks.Callback):
    """Notes the losses of an epoch's steps."""

    def __init__(self, tracker, table):
        super().__init__()
        self.tracker = tracker
        self.table = table
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(logs["loss"])
        self.tracker.total += logs["loss"]

    def on_epoch_end(self, epoch, logs=None):
        self.tracker.rows.append(self.tracker.total)
        self.table[epoch] = len(self.seen)


class Watches(keras.callbacks.Callback):
    """Notes after each epoch what another callback has noted by then."""

    def __init__(self, other, tracker, table, rows):
        super().__init__()
        self.other = other
        self.tracker = tracker
        self.table = table
        self.rows = rows
        self.noted = []

    def on_train_batch_end(self, batch, logs=None):
        self.noted.append((batch, self.tracker.total, len(self.rows)))

    def on_epoch_end(self, epoch, logs=None):
        self.noted.append((list(self.other.seen), list(self.tracker.rows), dict(self.table), list(self.rows)))


def sharing():
    rows, table = [], {}
    tracker = Tracker(rows)
    tracks = Tracks(tracker, table)
    return [tracks, Watches(tracks, tracker, table, rows)]


def assert_one(tracks, watches):
    assert watches.other is tracks
    assert watches.tracker is tracks.tracker
    assert watches.table is tracks.table
    assert watches.rows is tracks.tracker.rows


def test_what_callbacks_see_of_each_other_is_what_they_see_in_keras(rows, as_py_dataset, make_model):
    arguments = {"epochs": 3, "shuffle": False, "verbose": 0}
    theirs, ours = sharing(), sharing()
    table, seen_rows = ours[0].table, ours[0].tracker.rows
    make_model().fit(as_py_dataset(rows()), callbacks=theirs, **arguments)
    rayfeed.fit_generator(make_model(), rows(), callbacks=ours, workers=0, **arguments)
    assert ours[1].noted == theirs[1].noted
    assert len(ours[1].noted) == 33
    assert_one(*ours)
    assert (ours[0].table, ours[0].tracker.rows) == (theirs[0].table, theirs[0].tracker.rows)
    assert ours[0].table is table
    assert ours[0].tracker.rows is seen_rows


@pytest.mark.parametrize(("at", "every"), [((1, 3), 2), ((2, 4), None)], ids=["mid-epoch", "between epochs"])
def test_they_see_each_other_in_a_training_that_goes_on(at, every, parts):
    _, _, resumed = parts.check(Rows, at, every, make_callbacks=sharing)
    whole = sharing()
    parts.fit(Rows, trainer="driver", callbacks=whole, **IN_LINE)
    assert resumed[1].noted == whole[1].noted
    assert_one(*resumed)
