"""Feeding must not hang, and no error may be lost: the complaints that users make most."""

import os

import keras
import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import FEEDS, kept, trained
from tests.conformance.sources import fail, fails_at
from tests.sources import Numbered, batch, die

each_way = pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)


@complaint(
    "keras-team/keras#13567",
    there="when the generator raised, training looked frozen and nobody was told why",
    here="the exception reaches the caller with its type and message, and says which batch it was",
)
@complaint(
    "keras-team/keras#19624",
    there="with several workers Keras 3 hung without an error when a worker failed",
    here="the exception reaches the caller with its type and message, and says which batch it was",
)
@complaint(
    "keras-team/keras#3493",
    there="an error in a worker ended the worker and nothing else",
    here="the exception reaches the caller, and what was trained until then is in the model",
)
@line("F1")
@each_way
def test_an_exception_in_a_source_reaches_the_caller(feed, echo):
    before = int(echo.optimizer.iterations.numpy())
    with pytest.raises(KeyError, match="row 17") as caught:
        trained(echo, Numbered(9, at={5: fail}), epochs=2, shuffle=False, **feed)
    assert "batch 5 of pass 0" in " ".join(caught.value.__notes__)
    assert int(echo.optimizer.iterations.numpy()) == before + 5
    single = {"workers": min(feed["workers"], 1)}
    with pytest.raises(KeyError, match="row 17") as caught:
        trained(echo, fails_at(7), 4, epochs=3, **single)
    assert "batch 7" in " ".join(caught.value.__notes__)


@complaint(
    "keras-team/keras#10340",
    there="the second epoch never ended; the main process waited for a lock",
    here="every epoch ends, for any number of workers and any length",
)
@complaint(
    "keras-team/keras#8595",
    there="training froze on the last batch of an epoch",
    here="every epoch ends, also where the queue is shorter than the epoch or longer than several",
)
@complaint(
    "keras-team/keras#12840",
    there="training stayed at step 39999 of 40000",
    here="every step of every epoch is taken",
)
@pytest.mark.parametrize(("workers", "processes"), [(5, False), (3, True)], ids=["threads", "processes"])
def test_every_epoch_takes_every_step_and_ends(workers, processes, echo):
    with kept(echo) as trainer:
        for length, size in ((1, 10), (7, 1), (50, 3)):
            run = trained(
                trainer,
                Numbered(length),
                epochs=3,
                shuffle=False,
                validation_data=Numbered(2),
                max_queue_size=size,
                workers=workers,
                use_multiprocessing=processes,
            )
            assert run.epochs == [list(range(length))] * 3, (length, size)


@complaint(
    "tensorflow/tensorflow#25947",
    there="a Sequence hung in fit_generator if and only if use_multiprocessing was set",
    here="producers are processes of their own, and import no framework that the source does not",
)
@complaint(
    "tensorflow/tensorflow#47955",
    there="TensorFlow warned that multiprocessing could deadlock at any time, and then it did",
    here="producers are processes of their own, and import no framework that the source does not",
)
@complaint(
    "keras-team/keras#11634",
    there="several processes, a Sequence, and the GPU at 0 % for ever, without a message",
    here="producers are processes of their own, and hold no GPU",
)
def test_producers_are_fresh_processes_without_framework_and_gpu(log):
    class Looks(Numbered):
        def __getitem__(self, index):
            import sys

            frameworks = {"tensorflow", "keras", "torch"} & set(sys.modules)
            log.add(os.getppid(), sorted(frameworks), repr(os.environ.get("CUDA_VISIBLE_DEVICES")))
            return super().__getitem__(index)

    with rayfeed.Feed(Looks(6), 2, use_multiprocessing=True) as feed:
        assert len(list(feed)) == 6
    assert {line.split(" ", 1)[1] for line in log.lines()} == {"[] ''"}
    assert str(os.getpid()) not in {line.split()[0] for line in log.lines()}


@complaint(
    "ray-project/ray#63694",
    there="a fetch waited for ever when the process that owned the data had died",
    here="a worker that is killed again and again ends the call with an error that names it, not with a wait",
)
def test_a_batch_that_kills_every_worker_ends_the_call_with_an_error(echo):
    options = rayfeed.ProducerOptions(max_restarts=1)
    with pytest.raises(
        rayfeed.errors.ProducerDiedError, match=r"producer 0 .* died while making batch.*, and it was the last one"
    ):
        trained(echo, Numbered(9, at={3: die}), shuffle=False, use_multiprocessing=True, producers=options)


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise ZeroDivisionError("in a callback")


@complaint(
    "keras-team/tf-keras#566",
    there="processes of the workers stayed behind when the training was over",
    here="whoever fails, source, callback or model, the call ends with that error and leaves no process behind",
)
@each_way
def test_an_error_in_a_callback_or_the_model_ends_the_call_and_its_producers(feed, echo):
    with pytest.raises(ZeroDivisionError, match="in a callback"):
        trained(echo, Numbered(40), callbacks=[Fails()], **feed)

    class Wide(Numbered):
        def __getitem__(self, index):
            return np.ones((4, 7), "float32"), np.ones(4)

    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 2"):
        trained(echo, Wide(40), **feed)


@complaint(
    "keras-team/keras#20032",
    there="an endless PyDataset had an empty epoch after each full one",
    here="each epoch has its next steps, over any number of workers; without steps it is refused by name",
)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_endless_dataset_is_one_stream_over_the_epochs(workers, echo):
    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return batch(index)

    assert trained(echo, Endless(), 3, epochs=2, workers=workers).epochs == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match=r"steps_per_epoch is required for an endless Sequence \(Endless\)"):
        trained(echo, Endless(), epochs=2)
