"""The house: which room may import which, who may touch ray, pyarrow and the frameworks, and how files look.

The rules are the data at the top; the tests only read them. They look at the source, so that a rule holds for imports
inside functions and under TYPE_CHECKING too.
"""

import ast
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ROOMS = ("ground", "source", "frame", "producer", "queue", "trainer", "report", "testing", "face")
"""In the order in which a batch walks through them: a room imports only from rooms before it."""

GROUND = ("batch", "errors", "options", "stats")
FACE = ("__init__", "__main__", "api", "cli", "installing")

MAY_IMPORT = {
    "ray": (
        "source/shipping.py",  # its cloudpickle
        "producer/actor.py",
        "producer/cluster.py",
        "producer/failed_call.py",
        "producer/nodes.py",
        "producer/placement.py",
        "producer/pool.py",
        "trainer/actor.py",
        "trainer/home.py",
        "trainer/lost.py",
        "trainer/process.py",
        "trainer/remote.py",
        "report/*",
        "testing/killing.py",
        "cli.py",
    ),
    "pyarrow": (
        "frame/*",
        "trainer/whole_files.py",  # its file systems
    ),
    "keras": ("trainer/*", "api.py", "installing.py"),
    "keras.src": (
        "trainer/adapter.py",
        "trainer/randomness.py",  # the state of the random stream that nobody gave a seed
    ),
    "tensorflow": ("trainer/adapter.py",),
    "torch": (),
    "jax": (),
    "tf_keras": (),
    "pandas": (),
}
"""Files that may import a package, or a part of one; others need none or go through these."""

TO_COME = ("report/*", "cli.py")
"""Files of the design that have a rule and are not written yet."""

WITHOUT_KERAS = (
    "trainer/slices.py",
    "trainer/class_weight.py",
    "trainer/actor.py",
    "trainer/checkpoint_files.py",
    "trainer/home.py",
    "trainer/outbox.py",
    "trainer/whole_files.py",
)
"""Files of the trainer's room that can be imported without a framework."""

INSIDE_FUNCTIONS = {
    ("trainer/adapter.py", "tensorflow"): "the backend's own package; other backends do without",
    ("trainer/actor.py", "rayfeed.trainer"): "the backend is chosen first, and the process answers before Keras loads",
}
"""Imports that wait for a call, each with its reason."""

MAX_LINES = 350

MUST_NOT_MENTION = ("../shared", "/work/")
"""Places of the machine this was written on."""


def files():
    return sorted((ROOT / "rayfeed").rglob("*.py"))


def name(path):
    return path.relative_to(ROOT / "rayfeed").as_posix()


@cache
def tree(path):
    return ast.parse(path.read_text())


def room(parts):
    """The room of a module given by its path below rayfeed."""
    if not parts or parts[0] in FACE:
        return "face"
    return "ground" if parts[0] in GROUND else parts[0]


def imports(node):
    """The modules that a node imports, by their full names; ``from a import b`` counts as ``a.b``."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(level=0):
            return [f"{node.module}.{alias.name}" for alias in node.names]
        case _:
            return []


def all_imports(path):
    return [(node.lineno, module) for node in ast.walk(tree(path)) for module in imports(node)]


def is_part_of(module, package):
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("path", files(), ids=name)
def test_a_room_imports_only_from_rooms_before_it(path):
    own = room(path.relative_to(ROOT / "rayfeed").with_suffix("").parts)
    assert own in ROOMS, f"{name(path)} is in no room: add it to ROOMS, GROUND or FACE"
    for line, module in all_imports(path):
        if not is_part_of(module, "rayfeed"):
            continue
        other = room(tuple(module.split(".")[1:]))
        assert own == "face" or ROOMS.index(other) <= ROOMS.index(own), (
            f"{name(path)}:{line} imports {module}: {own} stands before {other}"
        )
        assert own != "ground" or other == "ground"


@pytest.mark.parametrize("path", files(), ids=name)
def test_only_named_files_import_ray_pyarrow_and_the_frameworks(path):
    for line, module in all_imports(path):
        for package, allowed in MAY_IMPORT.items():
            if is_part_of(module, package):
                assert any(fnmatch(name(path), pattern) for pattern in allowed), f"{name(path)}:{line} imports {module}"
        assert not (is_part_of(module, "keras") and name(path) in WITHOUT_KERAS), f"{name(path)}:{line}"


@pytest.mark.parametrize("path", files(), ids=name)
def test_imports_stand_at_the_top_but_for_those_that_keep_frameworks_out(path):
    for function in ast.walk(tree(path)):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        for node in ast.walk(function):
            for module in imports(node):
                reasons = [
                    reason
                    for (file, package), reason in INSIDE_FUNCTIONS.items()
                    if file == name(path) and is_part_of(module, package)
                ]
                assert reasons, f"{name(path)}:{node.lineno} imports {module} inside a function"


@pytest.mark.parametrize("path", files(), ids=name)
def test_frameworks_that_a_user_may_not_have_are_imported_inside_functions_only(path):
    for node in tree(path).body:
        for module in imports(node):
            assert not any(is_part_of(module, package) for package in ("tensorflow", "torch", "jax")), name(path)


@pytest.mark.parametrize("path", files(), ids=name)
def test_imports_are_absolute_and_name_what_they_import(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno} is relative"
            assert all(alias.name != "*" for alias in node.names), f"{name(path)}:{node.lineno} imports *"


@pytest.mark.parametrize("path", files(), ids=name)
def test_a_file_is_one_idea_long(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_every_module_says_what_it_is():
    assert [name(path) for path in files() if not ast.get_docstring(tree(path))] == []


@pytest.mark.parametrize("folder", ["rayfeed", "tests", "examples", "cluster"])
def test_nothing_names_a_place_of_the_machine_it_was_written_on(folder):
    found = [
        (path.relative_to(ROOT).as_posix(), word)
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".yml", ".sh") and path != Path(__file__)
        for word in MUST_NOT_MENTION
        if word in path.read_text()
    ]
    assert found == []


def test_no_folder_of_tests_hides_a_package_or_is_one():
    folders = [path.name for path in (ROOT / "tests").rglob("*") if path.is_dir()]
    assert not {"ray", "keras", "tensorflow", "numpy", "pyarrow"} & set(folders)
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_each_rule_is_still_needed():
    """A rule for a file that was renamed, or for an import that went, would hold for nothing."""
    found = [(name(path), module) for path in files() for _, module in all_imports(path)]
    rules = [(pattern, package) for package, allowed in MAY_IMPORT.items() for pattern in allowed]
    unused = [
        (pattern, package)
        for pattern, package in [*rules, *INSIDE_FUNCTIONS]
        if pattern not in TO_COME
        and not any(fnmatch(file, pattern) and is_part_of(module, package) for file, module in found)
    ]
    assert unused == []
    assert {name(path) for path in files()} >= set(WITHOUT_KERAS)
