"""The process that a trainer has: what it is started with, how it is refused, and what it tells while it runs (F5)."""

import importlib
import os
import re
import warnings

import keras
import pytest

import rayfeed
from rayfeed import ProducerOptions, TrainerOptions
from rayfeed.errors import OptionError, PlacementError, SourceError
from rayfeed.trainer.actor import num_threads
from tests.conftest import NUM_CPUS
from tests.oracle.sources import Rows

pytestmark = pytest.mark.slow

NOWHERE = "https://127.0.0.1:1/code.zip"

shared_trainer = pytest.mark.usefixtures("shared_trainer")


class Environment(keras.callbacks.Callback):
    """Takes down environment variables of its process."""

    def __init__(self, *names):
        super().__init__()
        self.names = names

    def on_train_begin(self, logs=None):
        self.found = [os.environ.get(name) for name in self.names]


class Warns(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        warnings.warn("a word from the trainer", UserWarning, stacklevel=1)


def fit(trainer, *callbacks, epochs=1):
    return trainer.fit_generator(Rows(), epochs=epochs, callbacks=[*callbacks], verbose=0, workers=0)


@shared_trainer
def test_a_trainer_that_claims_no_cpus_has_a_thread_for_each_of_its_machine_that_ray_counts(make_model):
    environment = Environment("OMP_NUM_THREADS")
    with rayfeed.Trainer(make_model()) as trainer:
        fit(trainer, environment)
    assert environment.found == [str(min(len(os.sched_getaffinity(0)), NUM_CPUS))]


@pytest.mark.parametrize(
    ("num_usable", "counted", "found"), [(96, 6.0, 6), (4, 16.0, 4), (8, 8.0, 8), (8, 0.0, 8), (8, 0.5, 1)]
)
def test_a_machine_whose_node_asked_for_a_part_of_it_gives_a_trainer_threads_for_that_part(num_usable, counted, found):
    assert num_threads(num_usable, counted) == found


@pytest.mark.parametrize(("given", "found"), [({}, "2"), ({"OMP_NUM_THREADS": "3"}, "3")])
def test_a_trainer_has_a_thread_for_each_cpu_it_claims_unless_it_is_told_otherwise(given, found, make_model):
    environment = Environment("OMP_NUM_THREADS", "COLOUR")
    options = {"num_cpus": 2, "runtime_env": {"env_vars": {"COLOUR": "red"}}, "env_vars": given}
    with rayfeed.Trainer(make_model(), **options) as trainer:
        fit(trainer, environment)
        assert environment.found == [found, "red"]
        with pytest.raises(UserWarning, match="a word from the trainer"):  # pytest's filter makes it an error
            fit(trainer, Warns())


class Listens(keras.callbacks.Callback):
    """Runs beside the caller: how much the trainer had said before each epoch."""

    def __init__(self, heard):
        super().__init__()
        self.heard = heard
        self.counts = []

    def on_epoch_begin(self, epoch, logs=None):
        self.counts.append(len(self.heard))


@shared_trainer
def test_warnings_of_the_trainer_are_given_once_and_while_it_runs(make_model):
    with warnings.catch_warnings(record=True) as heard, rayfeed.Trainer(make_model()) as trainer:
        warnings.simplefilter("always")
        listens = Listens(heard)
        fit(trainer, Warns(), rayfeed.on_driver(listens), epochs=3)
    assert listens.counts == [0, 1, 1]
    (told,) = heard
    assert told.category is UserWarning
    assert told.filename == __file__


@pytest.mark.parametrize("who", ["trainer", "producers"])
def test_a_runtime_environment_that_ray_does_not_take_is_refused_before_anything_starts(who, make_model):
    options = {"trainer": TrainerOptions, "producers": ProducerOptions}[who](runtime_env={"py_modules": ["./nowhere"]})
    with pytest.raises(OptionError) as caught:
        rayfeed.fit_generator(make_model(), Rows(), verbose=0, **{who: options})
    assert str(caught.value).startswith(f"{type(options).__name__}.runtime_env cannot be used: nowhere is not a valid")


def test_a_runtime_environment_that_cannot_be_had_is_an_error(make_model):
    options = TrainerOptions(runtime_env={"working_dir": NOWHERE})
    with pytest.raises(PlacementError) as caught:
        rayfeed.fit_generator(make_model(), Rows(), verbose=0, workers=0, trainer=options)
    text = str(caught.value)
    assert text.startswith("the trainer cannot start: Ray could not set up its runtime environment: ")
    assert "Connection refused" in text
    assert "See to TrainerOptions.runtime_env" in text


MODULE = """
import keras

class Watching(keras.callbacks.Callback):
    pass

class Twice(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs
"""


@shared_trainer
@pytest.mark.parametrize("what", ["callbacks", "model", "generator"])
def test_a_module_that_the_trainers_node_has_not_is_named(what, tmp_path, monkeypatch, make_model):
    name = f"of_{what}"
    (tmp_path / f"{name}.py").write_text(MODULE + "\ndef generator():\n    yield\n")
    monkeypatch.syspath_prepend(tmp_path)  # after Ray was started: it knows nothing of it
    module = importlib.import_module(name)
    model = make_model()
    arguments = {"generator": Rows(), "callbacks": []}
    if what == "callbacks":
        arguments["callbacks"] = [module.Watching()]
    elif what == "model":
        model = keras.Sequential([keras.Input((10,)), module.Twice(), keras.layers.Dense(2)])
        model.compile(loss="mse")
    else:
        arguments |= {"generator": module.generator, "steps_per_epoch": 1}
    with rayfeed.Trainer(model) as trainer, pytest.raises(SourceError) as caught:
        trainer.fit_generator(verbose=0, workers=0, **arguments)
    text = str(caught.value)
    assert text.startswith(f"{what} cannot be loaded in this process: the module '{name}' that it needs is not on")
    assert 'ray.init(runtime_env={"working_dir": "."})' in text
    (note,) = caught.value.__notes__
    assert re.match(r"rayfeed: raised in the trainer \(node [\d.]+, pid \d+\)", note)
