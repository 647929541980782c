"""C3 to C6, C9: which batches of a Sequence an epoch gets, in which order, and how often each is made."""

import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import FEEDS, trained
from tests.conformance.sources import Resized, Samples
from tests.sources import Numbered, Once, die, numbers_of

each_way = pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)


@line("C3")
@complaint(
    "keras-team/keras#13037",
    there="the steps of an epoch were counted once, at the start, whatever the Sequence said later",
    here="the length is read again after every pass, and params['steps'] follows",
)
@each_way
def test_an_epoch_is_a_pass_of_the_length_the_sequence_has_now(feed, echo):
    run = trained(echo, Resized(), epochs=3, shuffle=False, **feed)
    assert run.epochs == [[0, 1, 2], [0, 1, 2, 3, 4], [0, 1]]
    assert run.steps == [3, 5, 2]


@line("C4")
@complaint(
    "keras-team/keras#12082",
    there="a Sequence with steps_per_epoch was asked for batches beyond its end; the advice was not to use both",
    here="passes follow each other, each index within the Sequence",
)
@complaint(
    "keras-team/keras#19037",
    there="Keras 3 had no repeat for a PyDataset: more steps than batches ran out of data",
    here="more steps than batches go on with the next pass",
)
@complaint(
    "keras-team/keras#20032",
    there="with steps_per_epoch and workers every second epoch of Keras 3 was empty",
    here="every epoch has its steps, from where the one before stopped",
)
@complaint(
    "keras-team/keras#8509",
    there="the steps of a Sequence were forced to its length: no epoch could be shorter",
    here="an epoch may be shorter or longer than a pass, and no batch is skipped for it",
)
@each_way
@pytest.mark.parametrize("steps", [3, 6], ids=["fewer", "more"])
def test_with_steps_epochs_are_cut_from_one_stream_of_ordered_passes(feed, steps, echo):
    run = trained(echo, Numbered(4), steps, epochs=4, shuffle=True, **feed)
    stream = [index % 4 for index in range(4 * steps)]
    assert run.epochs == [stream[steps * epoch : steps * (epoch + 1)] for epoch in range(4)]


@line("C5")
@complaint(
    "keras-team/keras#11365",
    there="a seed had no effect with more than one worker",
    here="the seed decides the order, and the number of workers does not",
)
def test_each_pass_has_a_fresh_order_that_follows_from_the_seed_alone(echo):
    runs = [trained(echo, Numbered(12), epochs=3, seed=5, **feed).epochs for feed in FEEDS.values()]
    assert runs[0] == runs[1] == runs[2]
    assert all(sorted(epoch) == list(range(12)) for epoch in runs[0])
    assert len({tuple(epoch) for epoch in [*runs[0], range(12)]}) == 4
    drawn = [trained(echo, Numbered(12), epochs=1, **FEEDS["in line"]).epochs for _ in range(2)]
    assert drawn[0] != drawn[1]


@line("C5")
@complaint(
    "keras-team/keras#22161",
    there="nobody had written down whether fit shuffles a PyDataset",
    here="shuffle=True is the default, and shuffle=False is the source's own order",
)
def test_shuffle_is_the_default_and_can_be_turned_off(echo):
    assert trained(echo, Numbered(20), workers=0).epochs != [list(range(20))]
    assert trained(echo, Numbered(20), workers=0, shuffle=False).epochs == [list(range(20))]


@complaint(
    "keras-team/keras#6891",
    there="the review of the first Sequence saw that it shuffles batches: the same samples always meet",
    here="batches stay whole, and on_epoch_end may group the samples anew for every producer",
)
def test_on_epoch_end_can_do_what_shuffling_batches_cannot(log):
    def pairs():
        return [tuple(sorted(targets.tolist())) for _, targets in feed]

    with rayfeed.Feed(Samples(), 2, use_multiprocessing=True, shuffle=True, seed=1) as feed:
        first, second = pairs(), pairs()
    assert sorted(first) == [(number, number + 1) for number in range(0, 12, 2)]
    assert sorted(first) != sorted(second)
    assert sorted(sum(second, ())) == list(range(12))


@line("C6")
@complaint(
    "tensorflow/tensorflow#47728",
    there="the first batch was made twice, once to learn its shape",
    here="each batch is made once",
)
@complaint(
    "keras-team/keras#7458",
    there="each batch was asked for five times in three epochs",
    here="each batch is made once in each pass",
)
@complaint(
    "webdataset/webdataset#158",
    there="an epoch of 4096 samples held 3723 different ones",
    here="each batch is delivered once in each pass",
)
@pytest.mark.parametrize("shuffle", [False, True])
@each_way
def test_each_batch_is_made_once_and_delivered_once_in_each_pass(feed, shuffle, echo, log):
    run = trained(echo, Numbered(10, log=log), epochs=3, shuffle=shuffle, **feed)
    assert [sorted(epoch) for epoch in run.epochs] == [list(range(10))] * 3
    assert (run.epochs == [list(range(10))] * 3) == (not shuffle)
    assert sorted(log.numbers()) == sorted(list(range(10)) * 3)


@line("C6")
@complaint(
    "uber/petastorm#673",
    there="shuffling and repeating over several workers doubled some rows and dropped others",
    here="the order is the same for any number of workers, and nothing is lost or doubled",
)
@complaint(
    "NVIDIA/NeMo-Retriever#802",
    there="batches in a queue vanished with the process that had put them there",
    here="what a killed producer had made is kept, what it was making is made again, in its place",
)
@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_is_the_same_for_any_number_of_workers_and_though_one_is_killed(workers, echo, tmp_path):
    once = Once(tmp_path)
    dying = Numbered(20, at={7: lambda: die() if once("batch 7") else None})
    expected = trained(echo, Numbered(20), epochs=2, seed=3, workers=0).epochs
    run = trained(echo, dying, epochs=2, seed=3, workers=workers, use_multiprocessing=True)
    assert run.epochs == expected
    assert run.history.feed_stats.lost_producers == 1


@complaint(
    "keras-team/keras#13878",
    there="a batch that took longer than 30 seconds was lost, with nothing but a warning",
    here="a batch is waited for, and comes at its place however late",
)
def test_a_batch_that_is_very_late_comes_at_its_place(gate, log):
    slow = Numbered(6, log=log, at={2: gate.wait})
    with rayfeed.Feed(slow, 3, use_multiprocessing=True) as feed:
        reader = iter(feed)
        assert numbers_of([next(reader), next(reader)]) == [0, 1]
        gate.open()
        assert numbers_of(reader) == [2, 3, 4, 5]


@line("C9")
def test_epochs_is_the_final_epoch_and_no_more_is_made_than_is_left(echo, log):
    run = trained(echo, Numbered(2, log=log), epochs=5, initial_epoch=3, shuffle=False)
    assert sorted(log.numbers()) == [0, 0, 1, 1]
    assert (run.epochs, run.history.epoch) == ([[0, 1], [0, 1]], [3, 4])
    assert run.history.params["epochs"] == 5


@line("C9")
@pytest.mark.parametrize("initial_epoch", [2, 7])
def test_where_no_epoch_is_left_nothing_is_trained_and_nothing_is_made(initial_epoch, echo, log):
    run = trained(echo, Numbered(2, log=log), epochs=2, initial_epoch=initial_epoch, validation_data=Numbered(2))
    assert (run.epochs, run.validations, run.history.epoch, run.history.history) == ([], [], [], {})
    assert log.lines() == []
