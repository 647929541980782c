"""What Keras' JAX and torch backends are checked for; run by `test_backends.py`, once in a process for each backend.

Keras has one backend a process, and loading one takes seconds: so all checks of a backend share a process, a Ray and
as few trainer actors as they can do with.

    KERAS_BACKEND=torch python -m tests.backends.checks [CHECK ...]

Prints a JSON object for each check when it ends: its name, and the traceback of its failure, "" where it passed.
"""

import gc
import json
import sys
import tempfile
import traceback
import weakref
from dataclasses import replace

import keras
import numpy as np
import pytest

import rayfeed
from rayfeed.options import StreamOptions
from rayfeed.queue.keeping import Keeper
from rayfeed.trainer.blueprint import pack_blueprint
from rayfeed.trainer.checkpoint_files import CheckpointFiles
from rayfeed.trainer.conversion import ALIGNMENT
from rayfeed.trainer.core import run_job
from rayfeed.trainer.messages import CheckpointPlan
from rayfeed.trainer.model_host import Blueprint, ModelHost
from rayfeed.trainer.planning import plan_fit
from rayfeed.trainer.randomness import random_state, set_random_state
from rayfeed.trainer.saving import Recorder
from rayfeed.trainer.transport import InputSpec, build, layout, places, read
from tests.oracle.models import Decay, Scale, Wrapped, subclassed, unbuilt
from tests.oracle.sources import Failing, Named, OwnError, Rows, TwoOutputs

BACKEND = keras.backend.backend()
IN_LINE = {"workers": 0, "trainer": "driver"}
NUM_CPUS = 4
"""CPUs that this Ray counts, whatever the machine has."""


class AsPyDataset(keras.utils.PyDataset):
    """A Sequence as Keras' own `fit` takes it: the oracle's side."""

    def __init__(self, sequence):
        super().__init__()
        self.sequence = sequence

    def __len__(self):
        return len(self.sequence)

    def __getitem__(self, index):
        return self.sequence[index]


class Growing(Rows):
    """Of one batch more in each pass, in another order."""

    def __init__(self):
        super().__init__(num_rows=60)
        self.length = 3

    def __len__(self):
        return self.length

    def on_epoch_end(self):
        self.length += 1
        self.x = np.roll(self.x, 7, axis=0)


def classifier(dropout_seed=None):
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2, seed=dropout_seed),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def two_outputs(names=("left", "right"), widths=(2, 3), size=6, activation="softmax", loss=None):
    keras.utils.set_random_seed(3)
    source = keras.Input((size,))
    hidden = keras.layers.Dense(5)(source)
    outputs = [
        keras.layers.Dense(width, activation=activation, name=name)(hidden)
        for name, width in zip(names, widths, strict=True)
    ]
    model = keras.Model(source, outputs)
    model.compile("adam", loss or ["sparse_categorical_crossentropy"] * 2, metrics=[["accuracy"]] * 2)
    return model


def two_inputs():
    keras.utils.set_random_seed(3)
    inputs = {"one": keras.Input((4,), name="one"), "two": keras.Input((6,), name="two")}
    hidden = keras.layers.concatenate([keras.layers.Dense(5)(each) for each in inputs.values()])
    model = keras.Model(
        inputs, [keras.layers.Dense(1, name="left")(hidden), keras.layers.Dense(2, name="right")(hidden)]
    )
    model.compile("adam", ["mse", "mae"])
    return model


def by_keras(model, *data, seed=1, **arguments):
    """Keras' own fit. With the torch backend dropout draws from torch's own state, so that each fit needs its seed."""
    keras.utils.set_random_seed(seed)
    return model.fit(*data, shuffle=False, verbose=0, **arguments)


def by_us(model, *data, seed=1, **arguments):
    keras.utils.set_random_seed(seed)
    return rayfeed.fit_generator(model, *data, shuffle=False, verbose=0, **(IN_LINE | arguments))


def assert_same(ours, theirs):
    """Weights, other state and optimizer are equal to the last bit."""
    assert_same_values(ours.variables, theirs.variables)
    assert_same_values(ours.optimizer.variables, theirs.optimizer.variables)


def assert_same_values(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        values = [keras.ops.convert_to_numpy(variable.value) for variable in (one, other)]
        np.testing.assert_array_equal(*values, err_msg=one.path)


def batches_of(sequence, epochs=1):
    for _ in range(epochs):
        for index in range(len(sequence)):
            yield sequence[index]


def check_that_a_sequence_trains_and_validates_as_in_keras():
    ours, theirs = classifier(), classifier()
    held_out = Rows(20, seed=1, weights=True)
    expected = by_keras(theirs, AsPyDataset(Rows()), epochs=3, validation_data=AsPyDataset(held_out))
    feed = {"workers": 2, "use_multiprocessing": True}
    history = by_us(ours, Rows(), epochs=3, validation_data=held_out, **feed)
    assert history.history == expected.history
    assert history.params == {"epochs": 3, "steps": 10, "verbose": 0}
    assert_same(ours, theirs)


def check_that_a_trainer_actor_trains_evaluates_and_predicts_as_keras_and_survives_failures():
    ours, theirs = classifier(), classifier()
    of_keras = {"validation_data": AsPyDataset(Rows(20, seed=1))}
    with rayfeed.Trainer(ours) as trainer:
        for epochs in (2, 3):
            expected = by_keras(theirs, AsPyDataset(Rows()), epochs=epochs, initial_epoch=epochs - 1, **of_keras)
            keras.utils.set_random_seed(1)
            arguments = {"epochs": epochs, "initial_epoch": epochs - 1, "shuffle": False, "verbose": 0}
            history = trainer.fit_generator(Rows(), validation_data=Rows(20, seed=1), **arguments)
            assert history.history == expected.history
            assert_same(ours, theirs)
        assert trainer.evaluate_generator(Rows()) == theirs.evaluate(AsPyDataset(Rows()), verbose=0)
        expected = theirs.predict(AsPyDataset(Rows()), verbose=0)
        np.testing.assert_array_equal(trainer.predict_generator(Rows()), expected)
        with pytest.raises(OwnError, match="code 17"):
            trainer.evaluate_generator(Failing())
        with pytest.raises(ValueError, match=r"incompatible|expects 1 input"):
            trainer.fit_generator(Named(16, listed=True), verbose=0)
        assert_same_values(ours.weights, theirs.weights)


def check_that_a_failure_leaves_the_model_with_what_it_learnt():
    ours, theirs = classifier(), classifier()
    by_keras(theirs, batches_of(Rows()), steps_per_epoch=4)
    for call in (by_us, rayfeed.evaluate_generator, rayfeed.predict_generator):
        for source in (FailingAtOnce(), Failing()):
            fresh = call is by_us and isinstance(source, FailingAtOnce)
            before = classifier() if fresh else theirs
            with pytest.raises(OwnError, match="code 17"):
                call(ours, source, **IN_LINE)
            assert_same_values(ours.weights, before.weights)


class FailingAtOnce(Rows):
    def __getitem__(self, index):
        raise OwnError(17, detail="first row")


def check_that_sample_weights_and_class_weights_count():
    ours, theirs = classifier(), classifier()
    weighted = Rows(weights=True)
    weighted.w *= np.where(weighted.y == 1, 5, 1).astype("float32")
    expected = by_keras(theirs, AsPyDataset(weighted))
    history = by_us(ours, Rows(weights=True), class_weight={0: 1, 1: 5})
    assert history.history == expected.history
    assert_same(ours, theirs)


def check_that_named_inputs_and_several_outputs_train_as_in_keras():
    ours, theirs = two_inputs(), two_inputs()
    source = Named(44, weights=True)
    expected = by_keras(theirs, source.x, source.y, sample_weight=source.w, batch_size=8, epochs=2)
    history = by_us(ours, Named(44, weights=True), epochs=2)
    assert history.history == expected.history
    assert_same(ours, theirs)


def check_that_class_weights_of_one_of_several_outputs_count():
    ours, theirs = two_outputs(), two_outputs()
    weighted = TwoOutputs(targets="list", weights="list")
    weighted.w["left"] = weighted.w["left"] * np.where(weighted.y["left"] == 1, 3, 1).astype("float32")
    targets, weights = list(weighted.y.values()), list(weighted.w.values())
    expected = by_keras(theirs, weighted.x, targets, sample_weight=weights, batch_size=8)
    history = by_us(ours, TwoOutputs(targets="list", weights="list"), class_weight={"left": {0: 1, 1: 3}})
    assert history.history == expected.history
    assert_same(ours, theirs)


def check_that_dtypes_reach_the_model_as_in_keras():
    for dtype in ("float64", "uint32"):
        ours, theirs = classifier(), classifier()
        expected = by_keras(theirs, AsPyDataset(Rows(dtype=dtype)))
        assert by_us(ours, Rows(dtype=dtype)).history == expected.history, dtype
        assert_same(ours, theirs)


def check_that_a_generator_that_ends_early_trains_on_what_it_made():
    def batches():
        yield from batches_of(Rows(40))
        yield from batches_of(Rows(24, seed=1))

    ours, theirs = classifier(), classifier()
    with pytest.warns(UserWarning, match="ran out of data"):
        expected = by_keras(theirs, batches(), steps_per_epoch=5, epochs=2)
    with pytest.warns(UserWarning, match="ran out of data") as caught:
        history = by_us(ours, batches, 5, epochs=4)
    assert len([one for one in caught if "ran out of data" in str(one.message)]) == 1
    assert history.history == expected.history
    assert history.epoch == [0, 1]
    assert_same(ours, theirs)


def check_that_a_generator_is_cut_into_epochs_without_loss():
    made = []

    def batches():
        for number in range(100):
            made.append(number)
            yield Rows(seed=number)[0]

    ours, theirs = classifier(), classifier()
    expected = by_keras(theirs, batches(), steps_per_epoch=3, epochs=4)
    made.clear()
    assert by_us(ours, batches(), 3, epochs=4).history == expected.history
    assert made == list(range(12))
    assert_same(ours, theirs)


def check_that_a_length_that_changes_between_passes_counts():
    ours, theirs = classifier(dropout_seed=3), classifier(dropout_seed=3)
    rows = Growing()
    by_keras(theirs, batches_of(rows), steps_per_epoch=len(rows))
    for _ in range(2):
        rows.on_epoch_end()
        theirs.fit(batches_of(rows), steps_per_epoch=len(rows), verbose=0)
    history = by_us(ours, Growing(), epochs=3)
    assert history.params["steps"] == 5
    assert_same(ours, theirs)


def check_that_the_batches_keras_looks_at_first_are_trained_on():
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(11)
        models.append(unbuilt())
    ours, theirs = models
    expected = by_keras(theirs, AsPyDataset(Rows()), epochs=2, validation_data=AsPyDataset(Rows(20, seed=1)))
    assert by_us(ours, Rows(), epochs=2, validation_data=Rows(20, seed=1)).history == expected.history
    assert_same(ours, theirs)


def check_that_stop_training_stops_at_the_next_step():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 3

    seen = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    by_us(classifier(), Rows(), epochs=2, callbacks=[Stop(), record])
    assert seen == [0, 1, 2, 3]


class Fails(keras.callbacks.Callback):
    """Raises after so many steps."""

    def __init__(self, after):
        super().__init__()
        self.after = after
        self.num_steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.num_steps += 1
        if self.num_steps == self.after:
            raise OwnError(1, detail="interrupted")


def trained_with_checkpoints(model, source, steps, *, fails_after, every, folder):
    """What the trainer's process does, in this one: to start another tells nothing of a backend."""
    keras.utils.set_random_seed(1)
    job = plan_fit(
        source,
        options=StreamOptions(workers=0, shuffle=False),
        producers=None,
        ships=False,
        steps_per_epoch=steps,
        epochs=3,
        initial_epoch=0,
        verbose=0,
        class_weight=None,
        outputs=None,
        validation_data=Rows(20, seed=1),
        validation_steps=None,
        validation_freq=1,
    )
    found = CheckpointFiles(folder, "").newest()
    plan = CheckpointPlan(folder, every, "run", found.name if found is not None else None, None)
    callbacks = [Fails(fails_after)]
    return run_job(
        job,
        model,
        callbacks,
        progress=None,
        watch=lambda _: None,
        tell_inputs=lambda _: None,
        keeper=Keeper(),
        recorder=Recorder(plan, "", job, model, callbacks),
    )


def check_that_a_training_goes_on_from_its_checkpoint():
    for source, steps in ((Rows, None), (lambda: batches_of(Rows(), epochs=3), 10)):
        theirs = classifier()
        expected = by_us(theirs, source(), steps, epochs=3, validation_data=Rows(20, seed=1))
        for fails_after, every in ((17, 4), (23, None)):
            with tempfile.TemporaryDirectory() as folder:
                options = {"every": every, "folder": folder}
                with pytest.raises(OwnError):
                    trained_with_checkpoints(classifier(), source(), steps, fails_after=fails_after, **options)
                for _ in range(2):  # then it is over, and nothing is left to train
                    ours = classifier()
                    outcome = trained_with_checkpoints(ours, source(), steps, fails_after=0, **options)
                    assert outcome.history == expected.history
                    assert_same(ours, theirs)


def of_parts():
    """Layers of the user's classes in attributes, lists and dicts; functions that no other process can import."""
    shift = np.float32(0.5)
    source = keras.Input((10,))
    x = Scale(keras.layers.Dense(6, activation=lambda v: v * shift), np.arange(3.0))(source)
    x = Wrapped(Wrapped(keras.layers.Dense(4)))(x)
    model = keras.Model(source, keras.layers.Dense(2, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(Decay(0.1)), "sparse_categorical_crossentropy")
    return model


class WithStep(keras.Model):
    def train_step(self, *arguments):  # JAX' has the state before the data
        return super().train_step(*arguments)


def with_step():
    source = keras.Input((10,))
    model = WithStep(source, keras.layers.Dense(2, activation="softmax")(source))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def check_that_models_are_built_again_from_what_travels():
    for make in (of_parts, subclassed, with_step):
        keras.utils.set_random_seed(11)
        ours = make()
        if not ours.built:
            build(ours, InputSpec((8, 10), "float32"))
        host = ModelHost()
        host.receive(Blueprint.of(pack_blueprint(ours), model=ours))
        host.receive(replace(layout(ours), inputs=InputSpec((8, 10), "float32")))
        for part in read(ours, places(ours)):
            host.receive(part)
        expected = by_keras(ours, AsPyDataset(Rows()))
        assert by_keras(host.model, AsPyDataset(Rows())).history == expected.history, make.__name__
        assert_same(host.model, ours)


def check_of_torch_that_a_layer_may_change_its_input_in_place():
    import torch

    def make():
        keras.utils.set_random_seed(7)
        in_place = keras.layers.TorchModuleWrapper(torch.nn.ReLU(inplace=True))
        model = keras.Sequential([keras.Input((10,)), in_place, keras.layers.Dense(2, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    ours, theirs = make(), make()
    expected = by_keras(theirs, AsPyDataset(Rows()), epochs=2)
    history = by_us(ours, Rows(), epochs=2, workers=2, use_multiprocessing=True)
    assert history.history == expected.history
    assert_same(ours, theirs)


def check_of_torch_that_random_states_of_gpus_travel_to_as_many_as_there_are_and_are_left_where_there_are_none():
    import torch

    with pytest.MonkeyPatch.context() as patch:
        taken = {}
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.tensor([1]), torch.tensor([2])])
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "set_rng_state", lambda state, device: taken.update({device: state.tolist()}))
        state = random_state()
        set_random_state(state)
    assert [one.tolist() for one in state.cuda] == [[1], [2]]
    assert taken == {0: [1]}
    drawn = []
    for _ in range(2):
        set_random_state(replace(state, cuda=() if torch.cuda.is_available() else state.cuda))
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]
    assert len(random_state().cuda) == torch.cuda.device_count()


def check_of_jax_that_a_batch_taken_ahead_is_trained_on_and_none_is_lost():
    from keras.src.backend.jax import trainer

    class Gpu:
        """What Keras asks of jax before it decides to take batches ahead."""

        def __getattr__(self, name):
            return getattr(jax, name) if name != "default_backend" else lambda: "gpu"

    jax, trainer.jax = trainer.jax, Gpu()
    try:
        check_that_a_generator_is_cut_into_epochs_without_loss()
        check_that_a_generator_that_ends_early_trains_on_what_it_made()
    finally:
        trainer.jax = jax


class Owner:
    """Memory that tells by its end that nobody uses it any more."""

    def __init__(self):
        self.memory = np.zeros((1 << 20) + ALIGNMENT, np.uint8)
        place = self.memory.ctypes.data
        data = (place + -place % ALIGNMENT, True)
        self.__array_interface__ = {"shape": (1 << 18,), "typestr": "<f4", "data": data, "version": 3}


def check_of_jax_that_it_shares_memory_and_keeps_it_for_as_long_as_it_uses_it():
    import jax

    owner = Owner()
    alive, array = weakref.ref(owner), np.asarray(owner)
    on_device = jax.device_put(array)
    assert on_device.unsafe_buffer_pointer() == array.ctypes.data
    del owner, array
    gc.collect()
    assert alive() is not None
    del on_device
    gc.collect()
    assert alive() is None
    owner = Owner()
    alive, array = weakref.ref(owner), np.asarray(owner)
    result = jax.jit(lambda x: sum(x @ x for _ in range(50)))(array)  # as Keras gives it to a step
    del owner, array
    assert float(result) == 0
    gc.collect()
    assert alive() is None


def main():
    names = sys.argv[1:] or [name for name in globals() if name.startswith(("check_that_", f"check_of_{BACKEND}_"))]
    for name in names:
        try:
            globals()[name]()
            failure = ""
        except BaseException:  # noqa: BLE001 - pytest's own failures are no Exceptions
            failure = traceback.format_exc()
        sys.stdout.write(json.dumps({name: failure}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    import ray

    ray.init(
        address="local",
        num_cpus=NUM_CPUS,
        object_store_memory=200_000_000,
        include_dashboard=False,
        logging_level="WARNING",
        log_to_driver=False,
    )
    main()
    ray.shutdown()
