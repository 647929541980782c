"""A model that lies on a device of its own gets its batches copied there ahead, and trains as in Keras' own fit.

TensorFlow's second logical processor stands for the device: it must be asked for before TensorFlow begins, so this is a
process of its own. Keras puts weights on the first processor or on a GPU, never there, so the script says where.
"""

import json

import pytest

from tests.conftest import assert_runs

pytestmark = pytest.mark.slow

SCRIPT = """
import json, threading, types
import tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import rayfeed
import rayfeed.trainer.adapter as adapter
from rayfeed.trainer.staging import own_device
from tests.oracle.sources import Rows

class Eager(keras.Model):
    '''Remembers where its inputs lay.'''

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.devices = set()

    def call(self, x):
        if tf.executing_eagerly():
            self.devices.add(x.device)
        return self.dense(x)

class AsPyDataset(keras.utils.PyDataset):
    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

def model(eagerly):
    keras.utils.set_random_seed(7)
    made = Eager()
    made(tf.zeros((1, 10)))
    made.compile("sgd", "mse", run_eagerly=eagerly)
    return made

with tf.device("CPU:1"):
    there = tf.Variable([1.0])
weight = types.SimpleNamespace(value=there)
found = {"own": [own_device(model(False)), own_device(Eager()), own_device(types.SimpleNamespace(weights=[weight]))]}
adapter.own_device = lambda model: there.device

threads = set()
copied = tf.identity
def watched(tensor):
    threads.add(threading.current_thread().name.partition("_")[0])
    return copied(tensor)

for name, eagerly, options in [
    ("eager", True, {"workers": 2}),
    ("compiled", False, {"workers": 2, "use_multiprocessing": True}),
    ("in line", True, {"workers": 0}),
]:
    ours, theirs = model(eagerly), model(eagerly)
    expected = theirs.fit(AsPyDataset(Rows()), epochs=3, shuffle=False, verbose=0,
                          validation_data=AsPyDataset(Rows(20, seed=1)))
    ours.devices.clear()
    threads.clear()
    tf.identity = watched
    history = rayfeed.fit_generator(ours, Rows(), epochs=3, shuffle=False, verbose=0, trainer="driver",
                                    validation_data=Rows(20, seed=1), **options)
    tf.identity = copied
    found[name] = {
        "equal": history.history == expected.history,
        "devices": sorted(ours.devices),
        "threads": sorted(threads),
        "left": [thread.name for thread in threading.enumerate() if "staging" in thread.name],
    }
print(json.dumps(found))
"""


def test_batches_are_copied_ahead_to_where_the_model_lies():
    found = json.loads(assert_runs(SCRIPT, RAY_ADDRESS="local").splitlines()[-1])
    there = "/job:localhost/replica:0/task:0/device:CPU:1"
    assert found["own"] == [None, None, there]
    for name in ("eager", "compiled", "in line"):
        assert found[name]["equal"]
        assert found[name]["left"] == []
    assert found["eager"]["devices"] == found["in line"]["devices"] == [there]
    assert "rayfeed-staging" in found["eager"]["threads"]
    assert "rayfeed-staging" in found["compiled"]["threads"]
    assert found["in line"]["threads"] == ["MainThread"]
