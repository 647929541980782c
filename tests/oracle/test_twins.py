"""E7: what is built from a model's blueprint, layout and values trains as the model does. In one process, no Ray.

Each model is one that was once taken down wrongly: weights in other layers, arguments lost, state left behind.
"""

import keras
import numpy as np
import pytest
from keras import layers

from rayfeed.trainer.blueprint import pack_blueprint
from rayfeed.trainer.callback_state import Snapshot
from rayfeed.trainer.carrying import apply_changes, pack_callbacks, unpack_callbacks
from rayfeed.trainer.model_host import Blueprint, ModelHost
from rayfeed.trainer.transport import layout, places, read

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
X, Y = RNG.random((24, 6)).astype("float32"), RNG.random((24, 6)).astype("float32")


def twin_of(model):
    """What the trainer would have."""
    host = ModelHost()
    host.receive(Blueprint.of(pack_blueprint(model), model=model))
    host.receive(layout(model))
    for part in read(model, places(model)):
        host.receive(part)
    return host.model


def trained(model, x=X, y=Y):
    keras.utils.set_random_seed(8)
    losses = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]
    return losses, [weight.tolist() for weight in model.get_weights()]


class Block(layers.Layer):
    """A layer, layers in a list, a layer again, in a dict, set anew: the order of weights is that of setting."""

    def __init__(self):
        super().__init__()
        self.last = None
        self.first = layers.Dense(6, "tanh")
        self.middle = [layers.Dense(6, "relu")]
        self.head = layers.Dense(6)
        self.more = {"norm": layers.LayerNormalization()}
        self.last = layers.Dense(6)

    def build(self, shape):
        for layer in (self.first, self.middle[0], self.head, self.more["norm"], self.last):
            layer.build(shape)

    def call(self, x):
        return self.last(self.more["norm"](self.head(self.middle[0](self.first(x)))))


def of_blocks():
    source = keras.Input((6,))
    model = keras.Model(source, Block()(source))
    model.compile("adam", "mse")
    return model


def adapted():
    normal = layers.Normalization()
    normal.adapt(np.arange(60.0).reshape(10, 6))
    model = keras.Sequential([keras.Input((6,)), normal, layers.Dense(6)])
    model.compile("adam", "mse")
    return model


class Optimizers(keras.Model):
    """Two optimizers in a dict, where Keras does not look."""

    def __init__(self):
        super().__init__()
        self.one = layers.Dense(6)
        self.two = layers.Dense(6)
        self.by_name = {"one": keras.optimizers.Adam(0.01), "two": keras.optimizers.Adam(0.1)}

    def call(self, x):
        return self.one(x) + self.two(x)

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean((self(x) - y) ** 2)
        for name in ("one", "two"):
            weights = getattr(self, name).trainable_weights
            self.by_name[name].apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def of_two_optimizers():
    model = Optimizers()
    model(X[:1])
    model.compile()
    return model


def decaying():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6, bias_initializer="ones"), layers.Dense(6)])
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=5.0)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse")
    return model


class Twisted(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.1, twist=3.0, **arguments):
        super().__init__(learning_rate, **arguments)
        self.twist = twist

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient * self.twist, variable, learning_rate)


def with_its_own_optimizer():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6)])
    model.compile(Twisted(0.01, 5.0, momentum=0.5), "mse")
    return model


class Graph(keras.Model):
    """A functional model that makes itself, from arguments."""

    def __init__(self, activation="relu", units=3):
        source = keras.Input((6,))
        super().__init__(source, layers.Dense(6)(layers.Dense(units, activation)(source)))
        self.factor = 2.0

    def train_step(self, data):
        return {**super().train_step(data), "factor": self.factor}


def of_its_own_graph():
    model = Graph("linear", 5)
    model.factor = 3.0
    model.compile("sgd", "mse")
    return model


class Stack(keras.Sequential):
    def __init__(self):
        super().__init__([keras.Input((6,)), layers.Dense(4, "relu"), layers.Dense(6)])


def of_its_own_stack():
    model = Stack()
    model.compile("sgd", "mse")
    return model


def under_another_policy():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.Dense(6, dtype="float32")])
        model.compile("adam", "mse")
    finally:
        keras.config.set_dtype_policy("float32")
    return model


def compiled_twice():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6)])
    inner.compile(keras.optimizers.Adam(0.5), "mse")
    inner.fit(X, Y, verbose=0)
    model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(6)])
    model.compile("adam", "mse")
    return model


MODELS = [
    of_blocks,
    adapted,
    of_two_optimizers,
    decaying,
    with_its_own_optimizer,
    of_its_own_graph,
    of_its_own_stack,
    under_another_policy,
    compiled_twice,
]


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_twin_trains_as_the_model_and_so_does_the_twin_of_a_trained_one(make):
    keras.utils.set_random_seed(3)
    model = make()
    assert trained(twin_of(model)) == trained(model)
    assert trained(twin_of(model)) == trained(model)


def test_a_vocabulary_that_was_learnt_goes_along():
    words = layers.StringLookup()
    words.adapt(np.array([["x"], ["y"], ["z"]]))
    source = keras.Input((1,), dtype="string")
    model = keras.Model(source, layers.Dense(1)(layers.Flatten()(layers.Embedding(8, 4)(words(source)))))
    model.compile("adam", "mse")
    x, y = np.array([["x"], ["z"], ["q"]], object), np.ones((3, 1), "float32")
    import tensorflow as tf

    x = tf.constant(x)
    assert trained(twin_of(model), x, y) == trained(model, x, y)


class Refers(keras.callbacks.Callback):
    """Holds the optimizer and a layer, as schedules and probes do."""

    def __init__(self, model):
        super().__init__()
        self.optimizer = model.optimizer
        self.layer = model.layers[-1]
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((self.optimizer is self.model.optimizer, self.layer is self.model.layers[-1]))
        self.optimizer.learning_rate = 0.5


def test_a_callback_that_holds_a_part_of_the_model_holds_the_trainers_there_and_the_callers_here():
    model = of_blocks()
    callback = Refers(model)
    twin = twin_of(model)
    (there,) = unpack_callbacks(pack_callbacks([callback], model), twin)
    snapshot = Snapshot([there], twin)
    twin.fit(X, Y, verbose=0, callbacks=[there])
    assert there.seen == [(True, True)]
    assert float(twin.optimizer.learning_rate) == 0.5
    model.fit(X, Y, verbose=0)  # now built at both ends
    there.more = [there.optimizer, there.layer]
    apply_changes([callback], snapshot.changes(warning=None), model, None)
    assert callback.more[0] is model.optimizer
    assert callback.more[1] is model.layers[-1]
    assert callback.seen == [(True, True)]
    assert callback.optimizer is model.optimizer
    assert callback.layer is model.layers[-1]
