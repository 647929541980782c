"""E1: class weights scale the training loss, for any source, and multiply sample weights."""

import keras
import numpy as np
import pytest

import rayfeed

pytestmark = pytest.mark.slow

WEIGHTS = {0: 0.25, 1: 3.0}


class Weighted:
    """A source whose sample weights are worked out by hand, sample by sample."""

    def __init__(self, source, one_hot=False):
        self.source = source
        self.one_hot = one_hot

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        x, y, *rest = self.source[index]
        weights = np.array([WEIGHTS[int(label)] for label in y], "float32")
        if rest:
            weights *= rest[0]
        return x, np.eye(2, dtype="float32")[y] if self.one_hot else y, weights


class OneHot(Weighted):
    def __getitem__(self, index):
        x, y, _ = super().__getitem__(index)
        return x, y


@pytest.mark.parametrize("weights", [False, True], ids=["alone", "beside sample weights"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_loss_is_the_one_weighted_by_hand(weights, workers, rows, make_model, as_py_dataset, same_state):
    ours, theirs = make_model(), make_model()
    expected = theirs.fit(as_py_dataset(Weighted(rows(weights=weights))), epochs=2, shuffle=False, verbose=0)
    arguments = {"epochs": 2, "shuffle": False, "verbose": 0, "workers": workers, "trainer": "driver"}
    history = rayfeed.fit_generator(ours, rows(weights=weights), class_weight=WEIGHTS, **arguments)
    assert history.history == expected.history
    same_state(ours, theirs)


def test_one_hot_targets_and_generators_are_weighted_alike(rows, make_model, as_py_dataset, same_state):
    loss = {"loss": "categorical_crossentropy"}
    ours, theirs = make_model(**loss), make_model(**loss)
    expected = theirs.fit(as_py_dataset(Weighted(rows(), one_hot=True)), shuffle=False, verbose=0)
    source = OneHot(rows(), one_hot=True)
    batches = (source[index] for index in range(len(source)))
    history = rayfeed.fit_generator(
        ours, batches, len(source), verbose=0, class_weight=WEIGHTS, workers=0, trainer="driver"
    )
    assert history.history == expected.history
    same_state(ours, theirs)


def test_validation_is_not_weighted_by_class(rows, make_model):
    arguments = {"shuffle": False, "verbose": 0, "workers": 0, "trainer": "driver", "validation_data": rows(24)}
    zero_rate = {"optimizer": keras.optimizers.SGD(0.0), "dropout": 0.0}
    plain = rayfeed.fit_generator(make_model(**zero_rate), rows(), **arguments)
    zero_rate["optimizer"] = keras.optimizers.SGD(0.0)
    weighted = rayfeed.fit_generator(make_model(**zero_rate), rows(), class_weight=WEIGHTS, **arguments)
    assert weighted.history["val_loss"] == plain.history["val_loss"]
    assert weighted.history["loss"] != plain.history["loss"]


def test_a_class_without_a_weight_is_named(rows, make_model):
    with pytest.raises(ValueError, match="class_weight has no weight for class 1, which the targets hold"):
        rayfeed.fit_generator(make_model(), rows(), verbose=0, class_weight={0: 1.0}, workers=0, trainer="driver")


def test_float_labels_are_rounded_as_in_keras():
    from rayfeed.trainer.class_weight import ClassWeight

    weights = ClassWeight({0: 1.0, 1: 5.0})
    assert weights.sample_weight(np.array([[0.9], [0.1]]), None).tolist() == [5.0, 1.0]
    with pytest.raises(ValueError, match="no weight for class -1"):
        weights.sample_weight(np.array([np.nan]), None)
