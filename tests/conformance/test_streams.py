"""C1, C2: a generator is one endless stream; what happens when it is not endless."""

import itertools
import warnings

import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import ONE_STREAM, trained
from tests.conformance.sources import numbered
from tests.sources import batch

each_way = pytest.mark.parametrize("feed", ONE_STREAM.values(), ids=ONE_STREAM)


@line("C1")
@complaint(
    "keras-team/keras#7426",
    there="the queue read eleven batches ahead, and nobody could say which batch a step was given",
    here="what the queue holds ahead does not change which batches an epoch gets",
)
@complaint(
    "keras-team/keras#11878",
    there="a training of one epoch consumed the data of nearly four",
    here="a generator makes steps_per_epoch * epochs batches and not one more",
)
@complaint(
    "keras-team/keras#11487",
    there="every epoch made the generator yield more than its steps",
    here="a generator makes steps_per_epoch * epochs batches and not one more",
)
@each_way
def test_epoch_k_is_the_next_batches_of_one_stream_and_no_batch_is_made_beyond_the_last(feed, echo, log):
    run = trained(echo, numbered(log), 4, epochs=3, max_queue_size=20, **feed)
    assert run.epochs == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert run.history.epoch == [0, 1, 2]
    assert log.numbers() == list(range(12))


@line("C1")
def test_a_generator_without_steps_is_refused(echo, log):
    for call in (rayfeed.fit_generator, rayfeed.evaluate_generator, rayfeed.predict_generator):
        with pytest.raises(ValueError, match=r"steps(_per_epoch)? is required for a generator"):
            call(echo, numbered(log), trainer="driver")
    assert log.lines() == []


@complaint(
    "keras-team/keras#5491",
    there="data for exactly the steps asked for was an error, since the queue asked for more and found none",
    here="a generator that must not be read further is not read further",
)
@complaint(
    "keras-team/keras#7535",
    there="a cursor over a database was read past its last row",
    here="a generator that must not be read further is not read further",
)
@each_way
def test_a_generator_that_raises_when_read_too_far_is_not_read_too_far(feed, echo):
    def rows():
        yield from (batch(number) for number in range(6))
        raise IndexError("no such row")

    assert trained(echo, rows(), 3, epochs=2, **feed).epochs == [[0, 1, 2], [3, 4, 5]]


def ran_out(record):
    return [str(warning.message) for warning in record if "ran out of data" in str(warning.message)]


@line("C2")
@complaint(
    "fchollet/deep-learning-with-python-notebooks#152",
    there="the book's own example stopped at step 63 of 100",
    here="what was made is trained on, the warning says why training stopped, and History comes back",
)
@each_way
def test_a_generator_that_ends_early_is_trained_on_warned_of_once_and_ends_the_training(feed, echo):
    with pytest.warns(UserWarning, match="ran out of data") as record:
        run = trained(echo, (batch(number) for number in range(6)), 10, epochs=3, **feed)
    assert run.epochs == [[0, 1, 2, 3, 4, 5]]
    assert run.history.epoch == [0]
    assert run.history.history["loss"] == [2.5]
    assert len(ran_out(record)) == 1


@line("C2")
@complaint(
    "keras-team/keras#20123",
    there="every second epoch was empty, and no test had looked",
    here="an epoch that would have no batch is not begun",
)
@each_way
def test_a_generator_that_ends_with_an_epoch_begins_no_empty_one(feed, echo):
    with pytest.warns(UserWarning, match="ran out of data") as record:
        run = trained(echo, (batch(number) for number in range(4)), 2, epochs=9, **feed)
    assert run.epochs == [[0, 1], [2, 3]]
    assert len(ran_out(record)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of just the right length: nothing to warn of
        assert trained(echo, (batch(number) for number in range(4)), 2, epochs=2, **feed).epochs == [[0, 1], [2, 3]]


@line("C11")
@complaint(
    "keras-team/keras#5919",
    there="several threads that read one generator met in it: 'generator already executing'",
    here="threads take turns at a generator, without a wrapper and without a lock of the user's",
)
@complaint(
    "keras-team/keras#1638",
    there="generators had to be wrapped in a lock by hand, or were copied to every worker",
    here="threads share one stream, and nothing is made twice",
)
def test_threads_share_one_generator_that_knows_nothing_of_threads(echo, log):
    run = trained(echo, numbered(log), 40, epochs=2, workers=8)
    assert run.epochs == [list(range(40)), list(range(40, 80))]
    assert log.numbers() == list(range(80))


@complaint(
    "keras-team/keras#14332",
    there="predict_generator on an endless generator locked up for 3, 4, 6 and 7 workers, and not for 1, 2 and 5",
    here="every number of workers gives the steps asked for, and ends",
)
@pytest.mark.filterwarnings("ignore:Producers . and . made the same batches")  # on purpose
@pytest.mark.parametrize("workers", [2, 3])
def test_predict_on_an_endless_generator_ends_for_any_number_of_workers(workers, echo):
    def endless():
        rayfeed.get_worker_info()
        for number in itertools.count():
            yield batch(number, size=1)[0]

    predictions = rayfeed.predict_generator(
        echo, endless(), 9, workers=workers, use_multiprocessing=True, trainer="driver"
    )
    turns = [place // workers for place in range(9)]
    assert (predictions[:, 0] / 2).tolist() == turns
