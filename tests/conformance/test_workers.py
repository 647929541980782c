"""C10, C11: where a source runs, and how many of it there are."""

import itertools
import os
import threading
import warnings

import keras
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import trained
from tests.conformance.sources import Meeting, Slow, constant, copies, noise
from tests.conftest import living_actors
from tests.sources import Log, batch, numbers_of


class Watches(keras.callbacks.Callback):
    """Notes at each step what runs besides the trainer, and where the trainer is."""

    def __init__(self):
        super().__init__()
        self.actors = []
        self.place = None

    def on_train_batch_end(self, batch, logs=None):
        self.actors.append(living_actors())
        self.place = [os.getpid(), threading.get_ident()]


def here():
    return [os.getpid(), threading.get_ident()]


@line("C10")
def test_without_workers_the_source_runs_in_the_trainers_thread_and_nothing_else_runs(echo, log):
    watches, before = Watches(), living_actors()
    trained(echo, Meeting(2, log, 1), epochs=2, workers=0, callbacks=[watches])
    assert {tuple(map(int, line.split())) for line in log.lines()} == {tuple(watches.place)} == {tuple(here())}
    assert watches.actors == [before] * 4


@line("C10")
@complaint(
    "tensorflow/tensorflow#31830",
    there="only workers=0 called a generator as often as there were steps",
    here="in line a generator is advanced by what was used, in training and in validation",
)
def test_without_workers_generators_are_advanced_by_what_was_used_and_no_more(echo):
    training, validation = (map(batch, itertools.count()) for _ in range(2))
    run = trained(echo, training, 3, epochs=2, validation_data=validation, validation_steps=2, workers=0)
    assert (run.epochs, run.validations) == ([[0, 1, 2], [3, 4, 5]], [[0, 1], [2, 3]])
    assert numbers_of([next(training), next(validation)]) == [6, 4]


@line("C11")
def test_threads_are_threads_of_one_process_and_processes_are_processes(echo, tmp_path):
    for workers, processes in ((3, False), (3, True)):
        log = Log(tmp_path / f"{processes}")
        trained(echo, Meeting(40, log, 3), workers=workers, use_multiprocessing=processes)
        places = {tuple(line.split()) for line in log.lines()}
        assert len(places) == 3
        assert len({pid for pid, _ in places}) == (3 if processes else 1)
        assert str(os.getpid()) not in {pid for pid, _ in places}


@line("C11")
@complaint(
    "matterport/Mask_RCNN#1511",
    there="every worker's generator shuffled from the same seed, so all made the same data in the same order",
    here="a copy can ask which one it is, and take its share",
)
@complaint(
    "keras-team/keras#3362",
    there="all processes fed the same batches, which showed only in a bad validation accuracy",
    here="copies that ask make different batches, and with different seeds",
)
def test_copies_in_processes_that_ask_share_the_data_out(echo):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = trained(echo, copies, 6, epochs=2, workers=3, use_multiprocessing=True)
    assert run.epochs == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


@line("C11")
@complaint(
    "keras-team/keras#4142",
    there="with several processes a generator's data came several times",
    here="so it does here where no copy asks which it is, and the caller is warned",
)
@complaint(
    "matterport/Mask_RCNN#514",
    there="users of a library met Keras' warning of duplicate data and did not know what to do about it",
    here="the warning says what to do: ask get_worker_info, or use a Sequence",
)
def test_copies_that_do_not_ask_repeat_the_data_and_the_caller_is_warned_once(echo):
    with (
        pytest.warns(UserWarning, match="made the same batches"),  # which they did
        pytest.warns(
            UserWarning, match=r"may duplicate your data: .*get_worker_info\(\), or use a rayfeed\.Sequence"
        ) as record,
    ):
        run = trained(echo, map(batch, range(99)), 6, epochs=2, workers=2, use_multiprocessing=True)
    assert run.epochs == [[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]
    assert len([warning for warning in record if "duplicate" in str(warning.message)]) == 1


@line("C11")
@complaint(
    "matterport/Mask_RCNN#1511",
    there="every worker's generator shuffled from the same seed, so all made the same data in the same order",
    here="the caller is told which producers made the same batches, and what to do",
)
def test_copies_that_make_the_same_batches_are_told_of_once_and_constant_ones_are_not():
    with (
        rayfeed.Feed(noise, 2, use_multiprocessing=True) as feed,
        pytest.warns(UserWarning, match="Producers 0 and 1 made the same batches: the first 3 of each") as record,
    ):
        assert len(list(feed.take(30))) == 30
    assert len(record) == 1
    assert "Let each copy take its share of the data by rayfeed.get_worker_info()" in str(record[0].message)
    with rayfeed.Feed(constant, 2, use_multiprocessing=True) as feed:  # a warning would be an error here
        assert len(list(feed.take(30))) == 30


@line("C12")
@complaint(
    "intelligent-machine-learning/dlrover#661",
    there="the number of workers could be changed only by starting the job again",
    here="producers come during the training, in which no batch is lost, repeated or out of order",
)
@pytest.mark.parametrize("workers", [(1, 3), "auto"], ids=str)
def test_producers_come_while_the_trainer_waits_and_the_batches_stay_the_same(workers, echo):
    run = trained(echo, Slow(60), epochs=2, workers=workers, shuffle=False)
    assert run.epochs == [list(range(60))] * 2
    assert run.history.feed_stats.num_producers > 1
    with pytest.raises(ValueError, match="is for a Sequence, whose batches any producer can make"):
        trained(echo, lambda: iter([]), 3, workers=workers)


@line("A get_worker_info")
@complaint(
    "pytorch/pytorch#5059",
    there="every worker drew the same numbers from numpy.random",
    here="every copy has a seed of its own, the same again when the call's seed is the same",
)
def test_a_producer_knows_its_number_how_many_there_are_and_its_own_seed(log):
    def asking():
        info = rayfeed.get_worker_info()
        log.add(info.id, info.num_workers, info.seed)
        yield batch(0)

    assert rayfeed.get_worker_info() is None
    for _ in range(2):
        with rayfeed.Feed(asking, 2, use_multiprocessing=True, seed=4) as feed:
            assert len(list(feed)) == 2
    told = [line.split() for line in log.lines()]
    assert sorted(told[:2]) == sorted(told[2:])
    assert {(number, count) for number, count, _ in told} == {("0", "2"), ("1", "2")}
    assert len({seed for _, _, seed in told}) == 2
    with rayfeed.Feed(lambda: iter([batch(5 if rayfeed.get_worker_info() is None else 6)]), workers=0) as feed:
        assert numbers_of(feed) == [5]
