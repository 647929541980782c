"""E6, E7: on the same batches, losses, metrics, weights and optimizer are those of Keras' own fit, bit for bit."""

import keras
import numpy as np
import pytest

import rayfeed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]

FEEDS = {
    "in line": {"workers": 0, "trainer": "driver"},
    "threads": {"workers": 3, "trainer": "driver"},
    "processes": {"workers": 3, "use_multiprocessing": True, "trainer": "driver"},
    "trainer actor": {"workers": 2, "use_multiprocessing": True},
    "trainer actor, in line": {"workers": 0},
}


@pytest.mark.parametrize("feed", FEEDS)
def test_a_sequence_trains_as_in_keras(feed, rows, as_py_dataset, make_model, same_state):
    ours, theirs = make_model(), make_model()
    expected = theirs.fit(
        as_py_dataset(rows()), epochs=3, shuffle=False, verbose=0, validation_data=as_py_dataset(rows(20, seed=1))
    )
    history = rayfeed.fit_generator(
        ours, rows(), epochs=3, shuffle=False, verbose=0, validation_data=rows(20, seed=1), **FEEDS[feed]
    )
    assert history.history == expected.history
    assert history.epoch == expected.epoch
    assert history.params == {"epochs": 3, "steps": 10, "verbose": 0}
    assert ours.history is history
    same_state(ours, theirs)


def test_the_short_way_and_tf_data_give_the_same(rows, as_py_dataset, make_model, same_state):
    ours, theirs = make_model(steps_per_execution=4), make_model(steps_per_execution=4)
    expected = theirs.fit(as_py_dataset(rows()), epochs=2, shuffle=False, verbose=0)
    history = rayfeed.fit_generator(ours, rows(), epochs=2, shuffle=False, verbose=0, workers=2, trainer="driver")
    assert history.history == expected.history
    same_state(ours, theirs)


def test_eager_and_compiled_models_train_as_in_keras(rows, as_py_dataset, make_model, same_state):
    for arguments in ({"run_eagerly": True}, {"jit_compile": True}):
        ours, theirs = make_model(**arguments), make_model(**arguments)
        expected = theirs.fit(as_py_dataset(rows()), epochs=2, shuffle=False, verbose=0)
        history = rayfeed.fit_generator(ours, rows(), epochs=2, shuffle=False, verbose=0, workers=0, trainer="driver")
        assert history.history == expected.history
        same_state(ours, theirs)


def test_sample_weights_count(rows, as_py_dataset, make_model, same_state):
    ours, theirs = make_model(), make_model()
    expected = theirs.fit(
        as_py_dataset(rows(weights=True)),
        epochs=2,
        shuffle=False,
        verbose=0,
        validation_data=as_py_dataset(rows(20, weights=True)),
    )
    history = rayfeed.fit_generator(
        ours,
        rows(weights=True),
        epochs=2,
        shuffle=False,
        verbose=0,
        workers=2,
        trainer="driver",
        validation_data=rows(20, weights=True),
    )
    assert history.history == expected.history
    same_state(ours, theirs)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8", "bool"])
def test_inputs_of_other_dtypes_train_as_in_keras(dtype, rows, as_py_dataset, make_model, same_state):
    ours, theirs = make_model(), make_model()
    expected = theirs.fit(as_py_dataset(rows(dtype=dtype)), epochs=1, shuffle=False, verbose=0)
    history = rayfeed.fit_generator(ours, rows(dtype=dtype), shuffle=False, verbose=0, workers=1, trainer="driver")
    assert history.history == expected.history
    same_state(ours, theirs)


def test_batches_large_enough_to_share_memory_with_tensors_train_as_in_keras(as_py_dataset, same_state):
    class Large:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            rng = np.random.default_rng(index)
            return rng.normal(size=(64, 4096)).astype("float32"), rng.normal(size=(64, 1)).astype("float32")

    def make():
        keras.utils.set_random_seed(1)
        # relu first: an operation TensorFlow may do in place, which must not touch the frame's memory.
        model = keras.Sequential([keras.Input((4096,)), keras.layers.ReLU(), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(1e-4), "mse")
        return model

    ours, theirs = make(), make()
    expected = theirs.fit(as_py_dataset(Large()), epochs=2, shuffle=False, verbose=0)
    history = rayfeed.fit_generator(
        ours, Large(), epochs=2, shuffle=False, verbose=0, workers=2, use_multiprocessing=True, trainer="driver"
    )
    assert history.history == expected.history
    same_state(ours, theirs)


def normalized():
    return [
        keras.layers.Reshape((5, 2, 1)),
        keras.layers.Conv2D(6, 2, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Conv2D(6, 2, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
    ]


def recurrent():
    return [keras.layers.Reshape((5, 2)), keras.layers.LSTM(6, dropout=0.2, recurrent_dropout=0.2)]


def noisy():
    return [keras.layers.Dense(6), keras.layers.GaussianNoise(0.5), keras.layers.LayerNormalization()]


@pytest.mark.parametrize(
    ("trainer", "hidden"),
    [("driver", normalized), ("driver", recurrent), ("driver", noisy), (None, normalized)],
    ids=["driver, normalized", "driver, recurrent", "driver, noisy", "actor, normalized"],
)
def test_layers_that_tensorflow_fuses_where_it_knows_the_batch_size_train_as_in_keras(
    trainer, hidden, rows, as_py_dataset, same_state
):
    def make():
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((10,)), *hidden(), keras.layers.Dense(2, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    ours, theirs = make(), make()
    arguments = {"epochs": 3, "shuffle": False, "verbose": 0}
    expected = theirs.fit(as_py_dataset(rows()), validation_data=as_py_dataset(rows(20)), **arguments)
    history = rayfeed.fit_generator(ours, rows(), validation_data=rows(20), workers=0, trainer=trainer, **arguments)
    assert history.history == expected.history
    same_state(ours, theirs)
    scores = rayfeed.evaluate_generator(ours, rows(), workers=0, trainer="driver")
    assert scores == theirs.evaluate(as_py_dataset(rows()), verbose=0)


def test_named_inputs_and_outputs_train_as_in_keras(same_state):
    def make(names):
        keras.utils.set_random_seed(3)
        one, two = keras.Input((4,), name="one"), keras.Input((6,), name="two")
        hidden = keras.layers.concatenate([keras.layers.Dense(5)(one), keras.layers.Dense(5)(two)])
        left = keras.layers.Dense(1, name="left")(hidden)
        right = keras.layers.Dense(1, name="right")(hidden)
        outputs = {"left": left, "right": right} if names else left
        model = keras.Model([one, two], outputs)
        model.compile("adam", {"left": "mse", "right": "mae"} if names else "mse")
        return model

    def batches(names):
        rng = np.random.default_rng(0)
        for _ in range(12):
            x = {"one": rng.normal(size=(8, 4)).astype("f4"), "two": rng.normal(size=(8, 6)).astype("f4")}
            y = {"left": rng.normal(size=(8, 1)).astype("f4"), "right": rng.normal(size=(8, 1)).astype("f4")}
            yield x, y if names else {"left": y["left"]}

    ours, theirs = make(True), make(True)
    expected = theirs.fit(batches(True), steps_per_epoch=6, epochs=2, verbose=0, shuffle=False)
    history = rayfeed.fit_generator(ours, batches(True), 6, epochs=2, verbose=0, trainer="driver")
    assert history.history == expected.history
    same_state(ours, theirs)

    # One output under its name, as in the documentation of fit_generator; Keras 3 takes only the array.
    ours, theirs = make(False), make(False)
    expected = theirs.fit(
        ((x, y["left"]) for x, y in batches(False)), steps_per_epoch=6, epochs=2, verbose=0, shuffle=False
    )
    history = rayfeed.fit_generator(ours, batches(False), 6, epochs=2, verbose=0, trainer="driver")
    assert history.history == expected.history
    same_state(ours, theirs)


def test_two_calls_continue_like_one_keras_run(rows, as_py_dataset, make_model, same_state):
    ours, theirs = make_model(), make_model()
    theirs.fit(as_py_dataset(rows()), epochs=2, shuffle=False, verbose=0)
    expected = theirs.fit(as_py_dataset(rows()), epochs=4, initial_epoch=2, shuffle=False, verbose=0)
    with rayfeed.Trainer(ours) as trainer:
        trainer.fit_generator(rows(), epochs=2, shuffle=False, verbose=0)
        history = trainer.fit_generator(rows(), epochs=4, initial_epoch=2, shuffle=False, verbose=0)
        assert history.history == expected.history
        assert history.epoch == [2, 3]
        same_state(ours, theirs)
        # What the caller changes between calls counts.
        for model in (ours, theirs):
            model.layers[0].kernel.assign(np.ones((10, 8)))
            model.optimizer.learning_rate = 0.5
        expected = theirs.fit(as_py_dataset(rows()), shuffle=False, verbose=0)
        history = trainer.fit_generator(rows(), shuffle=False, verbose=0)
    assert history.history == expected.history
    same_state(ours, theirs)
    theirs.evaluate(rows().x, rows().y, verbose=0)
    assert ours.evaluate(rows().x, rows().y, verbose=0) == theirs.evaluate(rows().x, rows().y, verbose=0)


def test_evaluate_and_predict_equal_keras(rows, as_py_dataset, make_model):
    model = make_model()
    with rayfeed.Trainer(model) as trainer:
        scores = trainer.evaluate_generator(rows(), workers=2, use_multiprocessing=True)
        predictions = trainer.predict_generator(rows(), workers=2, use_multiprocessing=True)
    assert scores == model.evaluate(as_py_dataset(rows()), verbose=0)
    np.testing.assert_array_equal(predictions, model.predict(as_py_dataset(rows()), verbose=0))
    bare = [batch[0] for batch in (rows()[index] for index in range(len(rows())))]
    here = rayfeed.predict_generator(model, iter(bare), len(bare), workers=0, trainer="driver")
    np.testing.assert_array_equal(here, predictions)


def test_predict_gives_each_output_in_the_source_order():
    source = keras.Input((3,))
    model = keras.Model(source, [source * 2, source + 1])
    x = np.arange(60, dtype="float32").reshape(20, 3)

    def batches():
        for start in range(0, 20, 6):
            yield x[start : start + 6]

    double, more = rayfeed.predict_generator(model, batches, 4, trainer="driver")
    np.testing.assert_array_equal(double, x * 2)
    np.testing.assert_array_equal(more, x + 1)


def test_a_distribution_strategy_trains_and_validates_as_in_keras(rows, as_py_dataset, make_model, same_state):
    import tensorflow as tf

    def make():
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            return make_model()

    ours, theirs = make(), make()
    expected = theirs.fit(
        as_py_dataset(rows()), epochs=3, shuffle=False, verbose=0, validation_data=as_py_dataset(rows(20))
    )
    history = rayfeed.fit_generator(
        ours, rows(), epochs=3, shuffle=False, verbose=0, validation_data=rows(20), workers=1, trainer="driver"
    )
    assert history.history == expected.history
    same_state(ours, theirs)


def test_a_recompiled_model_is_trained_as_it_is_compiled_now(rows, make_model):
    model = make_model()
    with rayfeed.Trainer(model) as trainer:
        trainer.fit_generator(rows(), verbose=0, workers=0)
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        before = model.get_weights()
        history = trainer.fit_generator(rows(), verbose=0, workers=0)
    assert list(history.history) == ["loss"]
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_axes_may_differ_between_batches(as_py_dataset, same_state):
    class Ragged:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            rng = np.random.default_rng(index)
            return rng.normal(size=(3, 2 + index, 5)).astype("float32"), rng.normal(size=(3, 1)).astype("float32")

    def make(**arguments):
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((None, 5)), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)])
        model.compile("sgd", "mse", **arguments)
        return model

    for arguments in ({}, {"steps_per_execution": 2}):
        ours, theirs = make(**arguments), make(**arguments)
        expected = theirs.fit(as_py_dataset(Ragged()), epochs=2, shuffle=False, verbose=0)
        history = rayfeed.fit_generator(ours, Ragged(), epochs=2, shuffle=False, verbose=0, workers=1, trainer="driver")
        assert history.history == expected.history
        same_state(ours, theirs)


def test_targets_in_a_list_of_one_and_weights_of_none_are_taken(rows, as_py_dataset, make_model, same_state):
    class Listed(type(rows())):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return [x, [y], None]

    for arguments in ({}, {"steps_per_execution": 2}):
        ours, theirs = make_model(**arguments), make_model(**arguments)
        expected = theirs.fit(as_py_dataset(rows()), shuffle=False, verbose=0)
        history = rayfeed.fit_generator(ours, Listed(), shuffle=False, verbose=0, workers=0, trainer="driver")
        assert history.history == expected.history
        same_state(ours, theirs)
