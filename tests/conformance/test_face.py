"""A: what `import rayfeed` gives, and which Ray a call uses."""

import inspect
import json

import pytest
import ray

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import Seen, trained
from tests.conformance.sources import Regression
from tests.conftest import assert_runs
from tests.sources import Log, Numbered, batch, numbers_of

FIT = {
    "steps_per_epoch": None,
    "epochs": 1,
    "verbose": 1,
    "callbacks": None,
    "validation_data": None,
    "validation_steps": None,
    "class_weight": None,
    "max_queue_size": 10,
    "workers": 1,
    "use_multiprocessing": False,
    "shuffle": True,
    "initial_epoch": 0,
}
"""Of Keras 2's `Model.fit_generator`, after the model and the generator."""

SINGLE = {
    "steps": None,
    "callbacks": None,
    "max_queue_size": 10,
    "workers": 1,
    "use_multiprocessing": False,
    "verbose": 0,
}
"""Of Keras 2's `evaluate_generator` and `predict_generator`, likewise."""


@line("A parameters")
def test_the_functions_have_keras_parameters_in_keras_order_and_the_rest_by_keyword():
    for function, expected in (
        (rayfeed.fit_generator, FIT),
        (rayfeed.evaluate_generator, SINGLE),
        (rayfeed.predict_generator, SINGLE),
    ):
        parameters = list(inspect.signature(function).parameters.values())
        positional = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        assert [one.name for one in positional[:2]] == ["model", "generator"]
        assert {one.name: one.default for one in positional[2:]} == expected
        assert [one.name for one in positional[2:]] == list(expected)
        assert all(one.kind is one.KEYWORD_ONLY for one in parameters[len(positional) :])


@line("A parameters")
@complaint(
    "keras-team/keras#21068",
    there="Keras 3 ignored workers and use_multiprocessing given to fit, with a warning",
    here="each argument has its effect, also when all are given by position",
)
def test_every_argument_by_position_has_its_effect(echo, tmp_path, capfd):
    made, validated, seen = Log(tmp_path / "made"), Log(tmp_path / "validated"), Seen()
    history = rayfeed.fit_generator(
        echo,
        Numbered(6, log=made),
        4,  # steps_per_epoch
        3,  # epochs
        0,  # verbose
        [seen],
        Numbered(5, log=validated),
        2,  # validation_steps
        dict.fromkeys(range(6), 2.0),  # class_weight
        1,  # max_queue_size
        2,  # workers
        True,  # use_multiprocessing
        True,  # shuffle: without effect beside steps_per_epoch
        1,  # initial_epoch
        trainer="driver",
    )
    assert history.epoch == [1, 2]
    assert history.history["loss"] == [2 * 1.5, 2 * (4 + 5 + 0 + 1) / 4]
    assert len(seen.epochs) == 2
    assert history.feed_stats.num_producers == 2
    assert sorted(made.numbers()) == sorted([*range(6), 0, 1])
    assert sorted(validated.numbers()) == [0, 0, 1, 1]
    assert capfd.readouterr().out == ""


@line("A Feed")
def test_a_feed_gives_the_stream_that_training_gets(echo):
    options = {"workers": 2, "use_multiprocessing": True, "shuffle": True, "seed": 8}
    expected = trained(echo, Numbered(9), epochs=2, **options).epochs
    with rayfeed.Feed(Numbered(9), **options) as feed:
        assert [numbers_of(feed), numbers_of(feed)] == expected
        assert feed.stats().batches == 18


@line("A evaluate", "A predict")
def test_evaluate_and_predict_of_a_generator_read_as_many_batches_as_they_are_told(echo, log):
    def generate():
        for number in range(99):
            log.add(number)
            yield batch(number)

    assert rayfeed.evaluate_generator(echo, generate(), 4, trainer="driver") == 1.5
    predictions = rayfeed.predict_generator(echo, generate(), 3, trainer="driver")
    assert predictions[:, 0].tolist() == [0.0] * 4 + [2.0] * 4 + [4.0] * 4
    assert log.numbers() == [0, 1, 2, 3, 0, 1, 2]


LOCAL = """
import json, sys
import rayfeed

class Own(rayfeed.Sequence):
    pass

frameworks = sorted({"tensorflow", "keras", "torch", "jax"} & set(sys.modules))
import keras, ray
from tests.conformance.sources import Regression

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
before = ray.is_initialized()
options = {"workers": 2, "use_multiprocessing": True, "verbose": 2, "epochs": 2}
history = rayfeed.fit_generator(model, Regression(0), **options)
address = ray.get_runtime_context().gcs_address
print(json.dumps([frameworks, before, ray.is_initialized(), address, history.epoch]))
"""


@pytest.mark.timeout(180)  # it starts a cluster of its own
@line("A import", "A local")
@complaint(
    "keras-team/keras#11288",
    there="Python did not exit after a training with processes, and kept the GPU's memory",
    here="the script ends by itself, and its Ray with it",
)
def test_importing_loads_no_framework_a_call_starts_a_local_ray_and_the_script_ends_by_itself():
    output = assert_runs(LOCAL, RAY_ADDRESS="local")
    frameworks, before, after, address, epochs = json.loads(output.splitlines()[-1])
    assert frameworks == []
    assert (before, after, epochs) == (False, True, [0, 1])
    assert address != ray.get_runtime_context().gcs_address


JOINING = """
import ray
import rayfeed
from tests.sources import Numbered

with rayfeed.Feed(Numbered(3)) as feed:
    print(ray.get_runtime_context().gcs_address, len(list(feed)))
"""


@line("A join")
def test_ray_address_and_a_ray_that_is_there_already_are_joined(echo):
    address = ray.get_runtime_context().gcs_address
    assert assert_runs(JOINING, RAY_ADDRESS=address).split() == [address, "3"]
    trained(echo, Numbered(2))
    assert ray.get_runtime_context().gcs_address == address


@line("A Sequence")
def test_the_base_class_says_what_is_missing():
    class Empty(rayfeed.Sequence):
        def __len__(self):
            return 1

    with rayfeed.Feed(Empty()) as feed, pytest.raises(NotImplementedError, match="Empty must define __getitem__"):
        next(iter(feed))
    assert Regression(0).on_epoch_end() is None
