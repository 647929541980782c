"""What the adapter needs of Keras and TensorFlow. When a new release breaks one of these, the adapter must follow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.trainers.epoch_iterator import EpochIterator

import rayfeed
from rayfeed.trainer.adapter import Steps, _traced_step
from rayfeed.trainer.conversion import ALIGNMENT, Alias, can_alias
from tests.oracle.sources import Odd


class Recorded(DataAdapter):
    """Two epochs of different length, and a log of what Keras asks for."""

    num_before = 0

    def __init__(self, lengths):
        self.lengths = lengths
        self.epoch = -1
        self.log = []

    @property
    def length(self):
        return self.lengths[max(self.epoch, 0)]

    @property
    def num_batches(self):
        return Steps(self)

    def on_epoch_begin(self):
        self.epoch += 1
        self.log.append("begin")

    def get_tf_dataset(self):
        return self

    def __iter__(self):
        self.log.append("iter")
        return RecordedIterator(self)

    def next(self):
        self.log.append("next")
        return (tf.ones((2, 3)), tf.ones((2, 1)))


class RecordedIterator:
    def __init__(self, adapter):
        self.adapter = adapter

    def __iter__(self):
        return self

    def __next__(self):
        return self.adapter.next()


def line():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_keras_takes_an_adapter_and_reads_each_epochs_length_when_it_begins():
    adapter = Recorded([2, 3])
    line().fit(adapter, epochs=2, verbose=0)
    assert adapter.log == ["begin", "iter", "next", "next", "iter", "begin", "iter", "next", "next", "next", "iter"]


def test_the_step_of_a_training_and_of_a_test_can_be_traced_for_any_length():
    model = line()
    for name in ("train", "test"):
        getattr(model, f"make_{name}_function")()
        assert _traced_step(getattr(model, f"{name}_function")) is not None
    model.compile("sgd", "mse", run_eagerly=True)
    model.make_train_function()
    assert _traced_step(model.train_function) is None


def test_keras_asks_the_length_only_in_the_ways_that_steps_answers():
    steps = Steps(Recorded([4]))
    assert steps
    assert steps > 3
    assert not steps <= 3
    assert steps <= 4
    assert list(range(0, steps, 2)) == [0, 2]
    assert EpochIterator(Recorded([4])).num_batches > 0


def test_out_of_range_ends_the_epoch_with_keras_warning():
    class Short(Recorded):
        def next(self):
            if self.log.count("next") == 2:
                raise tf.errors.OutOfRangeError(None, None, "over")
            return super().next()

    seen = []
    with pytest.warns(UserWarning, match="ran out of data"):
        line().fit(
            Short([5]),
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))],
        )
    assert seen == [0, 1]


def aligned(shape, dtype="float32"):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", ["float32", "int8", "int64", "uint8", "uint16", "bool", "complex64"])
def test_a_tensor_shares_the_memory_of_a_read_only_array_and_keeps_it_alive(dtype):
    array = aligned((4, 5), dtype)
    array[:] = np.arange(20).reshape(4, 5) % 2
    array.flags.writeable = False
    assert can_alias(array)
    alias = np.asarray(Alias(array))
    assert np.shares_memory(alias, array)
    tensor = tf.experimental.dlpack.from_dlpack(alias.__dlpack__())
    np.testing.assert_array_equal(tensor.numpy(), array)
    expected = array.copy()
    del alias, array
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_tensorflow_does_not_write_to_shared_memory():
    array = aligned((64, 256))
    array[:] = np.random.default_rng(0).normal(size=array.shape)
    expected = array.copy()

    def work(x):
        x = tf.nn.relu(x)
        x = tf.add(x, 1.0)
        return tf.exp(tf.negative(x))

    for function in (work, tf.function(work), tf.function(work, jit_compile=True)):
        for _ in range(3):
            function(tf.experimental.dlpack.from_dlpack(np.asarray(Alias(array)).__dlpack__()))
            # The tensor is dropped at once: nobody else needs its memory, which is when TensorFlow would reuse it.
            function(tf.identity(tf.experimental.dlpack.from_dlpack(np.asarray(Alias(array)).__dlpack__())))
    np.testing.assert_array_equal(array, expected)


def test_memory_that_would_end_the_process_is_not_shared():
    memory = aligned((4, 17), "float32").reshape(-1)
    assert not can_alias(memory[1:])
    assert not can_alias(memory[:64].reshape(8, 8).T)
    assert not can_alias(aligned((0, 3)))
    assert not can_alias(aligned((4, 4), "float64"))
    assert not can_alias(aligned((4, 4), ">f4"))


def test_arrays_of_any_size_reach_tensorflow_aligned():
    model = keras.Sequential([keras.Input((7,)), keras.layers.ReLU(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = rayfeed.fit_generator(model, Odd(), verbose=0, workers=2, max_queue_size=100, trainer="driver")
    assert history.feed_stats.frames < 40
