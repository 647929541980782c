"""E2, E3: which batches a validation gets, and when there is one."""

import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import FEEDS, make_echo, trained
from tests.conformance.sources import numbered
from tests.sources import Log, Numbered, batch

each_way = pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)


@line("E2")
@complaint(
    "keras-team/keras#8842",
    there="the validation queue was rebuilt at each epoch, and the batches that lay in it were lost",
    here="validation k takes the generator's next validation_steps batches, and none is made beyond the last",
)
@complaint(
    "tensorflow/tensorflow#45249",
    there="a validation generator was read further than validation_steps",
    here="validation k takes the generator's next validation_steps batches, and none is made beyond the last",
)
@each_way
def test_a_validation_generator_is_one_stream_of_which_nothing_is_lost(feed, echo, log):
    run = trained(echo, Numbered(4), epochs=3, validation_data=numbered(log), validation_steps=2, **feed)
    assert run.validations == [[0, 1], [2, 3], [4, 5]]
    assert run.history.history["val_loss"] == [0.5, 2.5, 4.5]
    assert log.numbers() == [0, 1, 2, 3, 4, 5]


@line("E2")
@complaint(
    "keras-team/keras#10944",
    there="validation_steps of a Sequence was ignored: every validation went through all of it",
    here="a validation is the first validation_steps batches, and only those are made",
)
@complaint(
    "tensorflow/tensorflow#25254",
    there="each epoch validated on another part of the data",
    here="each validation of a Sequence starts at its first batch, unshuffled",
)
@each_way
@pytest.mark.parametrize("steps", [None, 3], ids=["whole", "cut"])
def test_a_validation_sequence_starts_at_its_first_batch_each_time(feed, steps, echo, log):
    data = Numbered(5, log=log)
    run = trained(echo, Numbered(4), epochs=3, validation_data=data, validation_steps=steps, shuffle=True, **feed)
    expected = list(range(steps or 5))
    assert run.validations == [expected] * 3
    assert sorted(log.numbers()) == sorted(expected * 3)


@line("E2")
def test_arrays_validate_with_and_without_weights(echo):
    (x, y), weights = batch(3), np.array([1, 1, 0, 0], "float32")
    for data, expected in (((x, y), 3.0), ((x, y, weights), 1.5), ([x, y], 3.0)):
        assert trained(echo, Numbered(2), validation_data=data, workers=0).history.history["val_loss"] == [expected]


@line("E2")
def test_a_validation_generator_without_steps_is_refused(echo, tmp_path):
    with pytest.raises(ValueError, match="validation_steps is required for a validation generator"):
        trained(echo, Numbered(2), validation_data=numbered(Log(tmp_path / "log")))


@line("E2")
def test_the_model_is_not_trained_on_validation_data():
    weights = []
    for validation in (None, Numbered(5)):
        model = make_echo()
        model.optimizer.learning_rate = 0.01
        rayfeed.fit_generator(
            model, Numbered(3), epochs=2, verbose=0, shuffle=False, validation_data=validation, trainer="driver"
        )
        weights.append(model.get_weights()[0].tolist())
    assert weights[0] == weights[1] != make_echo().get_weights()[0].tolist()


@line("E3")
@pytest.mark.parametrize(
    ("frequency", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), ([1, 5, 9], [1, 5]), (9, [])], ids=str
)
def test_validation_freq_counts_epochs_from_one(frequency, expected, echo, log):
    run = trained(
        echo,
        Numbered(1),
        epochs=5,
        validation_data=numbered(log),
        validation_steps=1,
        validation_freq=frequency,
        workers=0,
    )
    assert run.validations == [[place] for place in range(len(expected))]
    assert run.history.history.get("val_loss", []) == list(range(len(expected)))
    assert log.numbers() == list(range(len(expected)))


@line("E3")
def test_validation_freq_counts_epochs_also_of_a_training_that_goes_on(echo):
    run = trained(
        echo, Numbered(1), initial_epoch=3, epochs=7, validation_data=Numbered(1), validation_freq=3, workers=0
    )
    assert len(run.validations) == 1  # after epoch 6, not after the third of this call
