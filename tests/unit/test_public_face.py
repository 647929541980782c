"""What `import rayfeed` gives, what it costs, and what it says of itself.

Functions that need Keras are read from their source, so that no framework is loaded for it.
"""

import ast
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rayfeed
from rayfeed import errors
from rayfeed.source.failure import RemoteError

ROOT = Path(rayfeed.__file__).parent

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
"""Of Keras 2's `Model.fit_generator`, after `generator`."""

SINGLE = {
    "steps": None,
    "callbacks": None,
    "max_queue_size": 10,
    "workers": 1,
    "use_multiprocessing": False,
    "verbose": 0,
}
"""Of Keras 2's `Model.evaluate_generator` and `Model.predict_generator`, after `generator`."""

PARAMETERS = {"fit_generator": FIT, "evaluate_generator": SINGLE, "predict_generator": SINGLE}
NEEDS_KERAS = ("Trainer", "install", "on_driver", *PARAMETERS)


def definitions(file):
    return {node.name: node for node in ast.parse((ROOT / file).read_text()).body if hasattr(node, "name")}


API, SESSION = definitions("api.py"), definitions("trainer/session.py")
METHODS = {node.name: node for node in SESSION["Trainer"].body if isinstance(node, ast.FunctionDef)}


def positional(function):
    """Names and defaults of the parameters before the ``*``; those without a default have none."""
    names = [argument.arg for argument in function.args.args]
    defaults = [ast.literal_eval(default) for default in function.args.defaults]
    return names[: len(names) - len(defaults)], dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))


def test_all_is_what_the_page_imports_by_its_own_name():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    named = [alias for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert rayfeed.__all__ == sorted(alias.name for alias in named if alias.asname == alias.name)
    assert dir(rayfeed) == rayfeed.__all__


def test_there_is_no_public_name_but_those_and_the_rooms():
    rooms = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    helpers = {"Any", "TYPE_CHECKING", "import_module"}
    public = {name for name in vars(rayfeed) if not name.startswith("_")}
    assert public - set(rayfeed.__all__) <= rooms | helpers


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'rayfeed' has no attribute 'fit'$"):
        rayfeed.fit  # noqa: B018


def test_importing_rayfeed_loads_no_framework():
    """A process of its own; it takes a second, most of it for Ray."""
    program = (
        "import sys, rayfeed\n"
        "rayfeed.Feed, rayfeed.Sequence, rayfeed.get_worker_info()\n"
        "import rayfeed.producer.actor\n"
        "print([name for name in ('tensorflow', 'keras', 'torch', 'jax', 'pandas') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT.parent)  # noqa: S603
    assert (run.stdout, run.returncode) == ("[]\n", 0), run.stderr


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_function_has_keras_parameters_in_keras_order_with_keras_defaults(name):
    required, optional = positional(API[name])
    assert required == ["model", "generator"]
    assert list(optional.items()) == list(PARAMETERS[name].items())


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_trainers_method_has_the_functions_parameters_without_the_model(name):
    required, optional = positional(METHODS[name])
    assert required == ["self", "generator"]
    assert list(optional.items()) == list(PARAMETERS[name].items())
    own = [argument.arg for argument in METHODS[name].args.kwonlyargs]
    assert own == [argument.arg for argument in API[name].args.kwonlyargs if argument.arg != "trainer"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_function_hands_every_argument_on(name):
    used = {node.id for statement in API[name].body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    assert {argument.arg for argument in [*API[name].args.args, *API[name].args.kwonlyargs]} <= used


def test_a_feed_has_the_queues_parameters_in_the_order_of_fit_generator():
    names = [name for name in inspect.signature(rayfeed.Feed).parameters if name in FIT]
    assert sorted(names, key=["workers", "use_multiprocessing", "max_queue_size", "shuffle"].index) == names


def sections(docstring):
    """The Google sections of a docstring: name -> the names of its entries."""
    found, current = {}, None
    for line in inspect.cleandoc(docstring).splitlines():
        if match := re.fullmatch(r"(Args|Returns|Raises|Attributes|Example):", line):
            current = found.setdefault(match[1], [])
        elif line and not line.startswith(" "):
            current = None
        elif current is not None and (match := re.match(r" {4}(\*{0,2}\w+)(?:, (\w+))?: ", line)):
            current.extend(name.lstrip("*") for name in match.groups() if name)
    return found


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_function_documents_every_argument_what_it_returns_and_what_it_raises(name):
    found = sections(ast.get_docstring(API[name]))
    arguments = API[name].args
    assert found["Args"] == [argument.arg for argument in [*arguments.args, *arguments.kwonlyargs]]
    assert {"Returns", "Raises"} <= set(found)


def test_the_trainer_and_its_methods_are_documented():
    found = sections(ast.get_docstring(SESSION["Trainer"]))
    assert found["Args"] == ["model", "options"]
    assert "Raises" in found
    assert [name for name, node in METHODS.items() if not name.startswith("_") and not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", sorted(set(rayfeed.__all__) - set(NEEDS_KERAS) - {"errors"}))
def test_a_public_object_documents_its_arguments_or_fields_and_its_methods(name):
    thing = getattr(rayfeed, name)
    found = sections(thing.__doc__)
    if fields := getattr(thing, "__dataclass_fields__", None):
        assert found["Attributes"] == list(fields)
    elif "__init__" in vars(thing) if inspect.isclass(thing) else True:
        parameters = list(inspect.signature(thing).parameters)
        assert found.get("Args", []) == parameters
    if not inspect.isclass(thing):
        assert "Returns" in found
        return
    for method_name, method in vars(thing).items():
        if method_name.startswith("_") or not (inspect.isfunction(method) or isinstance(method, property)):
            continue
        assert method.__doc__, f"{name}.{method_name}"
        if inspect.isfunction(method):
            parameters = list(inspect.signature(method).parameters)[1:]
            assert sections(method.__doc__).get("Args", []) == parameters, f"{name}.{method_name}"


def test_what_a_feed_raises_is_documented():
    assert set(sections(rayfeed.Feed.__doc__)["Raises"]) == {"OptionError", "SourceError", "PlacementError"}


# Errors

CLASSES = [thing for thing in vars(errors).values() if inspect.isclass(thing) and issubclass(thing, Exception)]


def test_the_tree_of_errors_in_the_docstring_is_the_tree():
    drawn = re.findall(r"^ {4}(?:\+-- )?(\w+)(?: \((\w+)\))?", errors.__doc__, re.MULTILINE)
    built = [
        (
            kind.__name__,
            next((base.__name__ for base in kind.__bases__ if base.__module__ == "builtins"), ""),
        )
        for kind in CLASSES
    ]
    assert drawn[0] == ("RayfeedError", "")
    assert drawn == [("RayfeedError", ""), *built[1:]]
    assert all(errors.RayfeedError in kind.__bases__ for kind in CLASSES[1:])


@pytest.mark.parametrize("kind", [*CLASSES, RemoteError], ids=lambda kind: kind.__name__)
def test_an_error_travels_with_its_message_notes_and_documentation(kind):
    error = kind("what, which, how much, what to change")
    error.add_note("a note")
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert arrived.__notes__ == ["a note"]
    assert kind.__doc__


def test_a_remote_traceback_reads_as_the_traceback_itself():
    cause = errors.RemoteTraceback("Traceback (most recent call last):\n  ...\nValueError: x\n")
    assert str(cause) == "\nTraceback (most recent call last):\n  ...\nValueError: x"


def test_each_error_but_the_root_says_what_it_is_not():
    silent = [kind.__name__ for kind in CLASSES if not re.search(r"\b[Nn]ot\b|\b[Nn]ever\b", kind.__doc__)]
    assert silent == []
