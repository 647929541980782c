"""C8, C13: producers that last, work made ahead, and how far ahead."""

import os

import keras
import pytest

import rayfeed
from rayfeed.producer.cluster import store_capacity
from tests.conformance.contract import complaint, line
from tests.conformance.echo import trained
from tests.conftest import store_bytes, wait_until
from tests.sources import Log, Numbered, is_settled


def noting_pids(log, length):
    class Noting(Numbered):
        def __getitem__(self, index):
            log.add(os.getpid())
            return super().__getitem__(index)

        def on_epoch_end(self):
            pass

    return Noting(length)


@line("C8")
@complaint(
    "ray-project/ray#46479",
    there="worker pools were built anew at each epoch, which cost seconds each time",
    here="the producers of the first epoch make the last one's batches, and those of every validation",
)
@complaint(
    "keras-team/keras#11461",
    there="the pool was restarted at each epoch, and hung now and then when it was",
    here="no process is started or ended between the first batch and the last",
)
def test_the_same_producers_make_every_epoch_and_every_validation(echo, log):
    trained(
        echo,
        noting_pids(log, 6),
        epochs=4,
        validation_data=noting_pids(log, 6),
        workers=2,
        use_multiprocessing=True,
    )
    assert len(log.lines()) == 2 * 4 * 6
    assert len(set(log.lines())) <= 2


class WaitsForMore(keras.callbacks.Callback):
    """Ends an epoch, or a validation, only when more batches were made than the trainer has asked for."""

    def __init__(self, path, at_epoch_end, at_test_end):
        super().__init__()
        self.path = path
        self.at = {"epoch": at_epoch_end, "test": at_test_end}

    def wait(self, place, epoch):
        log, wanted = Log(self.path), self.at[place]
        if epoch == 0:
            wait_until(lambda: len(log.lines()) >= wanted, lambda: f"only {len(log.lines())} batches were made")

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_test_end(self, logs=None):
        self.wait("test", self.epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.wait("epoch", epoch)


@line("C8")
@pytest.mark.parametrize("validation", [None, Numbered(2)], ids=["epoch's end", "validation"])
def test_the_next_pass_is_made_while_the_trainer_is_busy_with_something_else(validation, echo, log):
    waits = WaitsForMore(log.path, at_epoch_end=8, at_test_end=8)
    run = trained(
        echo,
        Numbered(4, log=log),
        epochs=2,
        shuffle=False,
        validation_data=validation,
        callbacks=[waits],
        workers=2,
        use_multiprocessing=True,
    )
    assert run.epochs == [[0, 1, 2, 3]] * 2


@line("C13")
@complaint(
    "keras-team/keras#13767",
    there="a generator was drained of thousands of batches before the first step",
    here="no more is made ahead than the queue and the workers' hands hold",
)
@complaint(
    "keras-team/keras#13226",
    there="the queue was given one place for each batch of a long Sequence, and the memory ran out",
    here="no more is made ahead than the queue and the workers' hands hold",
)
@complaint(
    "tensorflow/tensorflow#37026",
    there="with processes the memory grew with every step, whatever the queue's size",
    here="after hundreds of batches no more lie ahead than at the start",
)
@pytest.mark.parametrize(("workers", "processes", "size"), [(1, False, 1), (3, False, 10), (2, True, 5)])
def test_the_queue_holds_its_size_and_each_worker_one(workers, processes, size, log):
    with rayfeed.Feed(Numbered(100_000, log=log), workers, processes, size) as feed:
        for read in (0, 300):
            list(feed.take(read))
            wait_until(lambda: is_settled(feed), "producers never rest", seconds=30)
            ahead = len(log.lines()) - read
            most = size + workers
            # Where frames hold several batches, the rest of one that is half read counts as waiting.
            assert (most if read == 0 else most // 2) <= ahead <= most


@line("C13 default")
def test_most_of_the_object_store_stays_free_though_nobody_bounds_the_bytes(log):
    capacity = store_capacity()
    size = capacity // 25 // 16  # samples: of 25 batches that would fill the store
    with rayfeed.Feed(Numbered(1000, size=size, log=log), 1, True, 100) as feed:
        for read in (0, 10):
            list(feed.take(read))
            wait_until(lambda: is_settled(feed), "producers never rest", seconds=30)
            assert read < len(log.lines()) <= read + 6 + 1
            assert store_bytes() < capacity / 3


@line("C13")
@complaint(
    "uber/petastorm#500",
    there="the process pool produced without regard to how much was waiting",
    here="max_queue_bytes bounds what waits, also where max_queue_size would allow more",
)
def test_the_bytes_that_wait_are_bounded(echo, log):
    half = store_capacity() // 2
    with pytest.raises(rayfeed.errors.OptionError, match=r", for each of 2 queues, is more than the object store"):
        trained(echo, Numbered(3), validation_data=Numbered(3), max_queue_bytes=half)
    size = 20_000  # samples: a batch of 20 000 * (2 * 4 + 8) bytes
    bound = 4 * size * 16
    with rayfeed.Feed(Numbered(1000, size=size, log=log), 1, True, 100, max_queue_bytes=bound) as feed:
        wait_until(lambda: is_settled(feed), "producers never rest", seconds=30)
        assert len(log.lines()) == 4 + 1
        list(feed.take(50))
        wait_until(lambda: is_settled(feed), "producers never rest", seconds=30)
        assert 50 < len(log.lines()) <= 50 + 4 + 1
