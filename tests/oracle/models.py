"""Models as users write them, in a module that trainers can import."""

import keras
import numpy as np
from keras import layers

OFFSET = 0.25


def shifted_relu(x):
    """Refers to a name of its module."""
    return keras.ops.relu(x) + OFFSET


class Scale(layers.Layer):
    """No get_config; arguments that Keras cannot note down by itself; layers in a list and a dict."""

    def __init__(self, inner, table, **arguments):
        super().__init__(**arguments)
        self.inner = inner
        self.table = table
        self.more = [layers.Dense(2), {"last": layers.Dense(3)}]

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale", regularizer="l2")
        super().build(shape)

    def call(self, x):
        y = self.inner(x) * self.scale + float(self.table.sum())
        return keras.ops.concatenate([self.more[0](y), self.more[1]["last"](y)], axis=-1)


class Wrapped(layers.Layer):
    """Has a get_config, in which there is another layer, and may hold one of its own class."""

    def __init__(self, inner, **arguments):
        super().__init__(**arguments)
        self.inner = inner

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return {**super().get_config(), "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "inner": keras.saving.deserialize_keras_object(config["inner"])})


@keras.saving.register_keras_serializable("tests")
class Tenth(keras.initializers.Initializer):
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, shape, dtype=None, **_):
        return keras.ops.full(shape, 0.1 * self.factor, dtype=dtype)


class AbsoluteError(keras.losses.Loss):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(keras.ops.cast(y_true, y_pred.dtype) - y_pred), axis=-1) * self.factor


class Total(keras.metrics.Metric):
    def __init__(self, factor, name="total"):
        super().__init__(name=name)
        self.sum = self.add_variable((), "zeros", name="sum")
        self.factor = factor

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.sum.assign_add(keras.ops.sum(y_pred) * self.factor)

    def result(self):
        return self.sum


def mean_prediction(y_true, y_pred):
    return keras.ops.mean(y_pred)


class Decay(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, start):
        self.start = start

    def __call__(self, step):
        return self.start / (1.0 + keras.ops.cast(step, "float32"))


def of_custom_parts():
    """A functional model of everything that Keras alone could not send: closures, lambdas, objects of these classes."""
    factor = np.float32(0.5)
    source = keras.Input((10,))
    x = layers.Dense(5, activation=shifted_relu, kernel_initializer=Tenth(3))(source)
    x = Scale(layers.Dense(6, activation=lambda v: v * factor), np.arange(3.0))(x)
    x = Wrapped(Wrapped(layers.Dense(4, activation=lambda v: v + OFFSET)))(x)
    x = layers.Lambda(lambda v: v - factor)(x)
    x = layers.Dropout(0.3)(x)
    model = keras.Model(source, layers.Dense(1, kernel_constraint="non_neg")(x))
    model.compile(
        keras.optimizers.Adam(Decay(0.1)), AbsoluteError(3), metrics=[Total(2), mean_prediction, lambda t, p: p[0, 0]]
    )
    return model


class Coder(keras.Model):
    """Layers in its arguments, a train_step of its own, two optimizers by a compile of its own."""

    def __init__(self, encoder, decoder, **arguments):
        super().__init__(**arguments)
        self.encoder = encoder
        self.decoder = decoder
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.noise = keras.random.SeedGenerator(3)
        self.settings = {"factors": [1.0, 2.0]}

    @property
    def metrics(self):
        return [self.loss_tracker]

    def compile(self, encoder_optimizer, decoder_optimizer, loss_function):
        super().compile()
        self.encoder_optimizer = encoder_optimizer
        self.decoder_optimizer = decoder_optimizer
        self.loss_function = loss_function

    def call(self, x):
        return self.decoder(self.encoder(x))

    def train_step(self, data):
        import tensorflow as tf

        x, _ = data
        with tf.GradientTape(persistent=True) as tape:
            code = self.encoder(x) + keras.random.normal((2,), seed=self.noise) * self.settings["factors"][1]
            loss = self.loss_function(x, self.decoder(code))
        for part, optimizer in ((self.encoder, self.encoder_optimizer), (self.decoder, self.decoder_optimizer)):
            optimizer.apply(tape.gradient(loss, part.trainable_weights), part.trainable_weights)
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}


def coder():
    model = Coder(
        keras.Sequential([keras.Input((10,)), layers.Dense(2)]), keras.Sequential([keras.Input((2,)), layers.Dense(10)])
    )
    model.build((None, 10))
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.01, momentum=0.9), AbsoluteError(2))
    return model


class Subclassed(keras.Model):
    """Weights of its own, layers, dropout; not built until it sees data."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(8, activation="relu")
        self.drop = layers.Dropout(0.2)
        self.last = layers.Dense(2, activation="softmax")
        self.bias = self.add_weight(shape=(8,), initializer="zeros", name="bias")

    def call(self, x, training=False):
        return self.last(self.drop(self.first(x) + self.bias, training=training))


class WithStep(keras.Model):
    """The functional constructor with a train_step of its own, as Keras' guide writes it."""

    def train_step(self, data):
        logs = super().train_step(data)
        return {**logs, "twice": 2 * logs["loss"]}


def with_step():
    source = keras.Input((10,))
    model = WithStep(source, layers.Dense(2, activation="softmax")(source))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def subclassed():
    model = Subclassed()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def unbuilt():
    model = keras.Sequential(
        [
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def half_precision():
    source = keras.Input((10,))
    x = layers.Dense(8, activation="relu", dtype="mixed_float16")(source)
    x = layers.Dropout(0.2, dtype="mixed_float16")(x)
    model = keras.Model(source, layers.Dense(2, activation="softmax")(x))
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def averaging():
    source = keras.Input((10,))
    x = layers.Reshape((5, 2))(source)
    x = layers.Bidirectional(layers.GRU(3, dropout=0.1))(x)
    model = keras.Model(source, layers.Dense(2, activation="softmax")(x))
    optimizer = keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.01, 100), use_ema=True, clipnorm=1.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


MODELS = [of_custom_parts, coder, with_step, subclassed, unbuilt, half_precision, averaging]
