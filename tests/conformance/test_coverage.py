"""Every line of the contract has a test here, and every test says which line or complaint it is about."""

import ast
import re
from pathlib import Path

import pytest

from tests.conformance.contract import LINES, NOT_BUILT

FILES = sorted(Path(__file__).parent.glob("test_*.py"))
TESTS = {
    f"{path.stem}::{node.name}": node
    for path in FILES
    if path != Path(__file__)
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}


def marks(name):
    """The calls of `line` and `complaint` that stand above a test, also inside `pytest.param`."""
    calls = [call for decorator in TESTS[name].decorator_list for call in ast.walk(decorator)]
    named = [call for call in calls if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)]
    return [call for call in named if call.func.id in ("line", "complaint")]


def lines_of(name):
    return [argument.value for call in marks(name) if call.func.id == "line" for argument in call.args]


def complaints_of(name):
    return [
        (call.args[0].value, {keyword.arg: keyword.value.value for keyword in call.keywords})
        for call in marks(name)
        if call.func.id == "complaint"
    ]


def test_every_line_of_the_contract_has_a_test():
    held = {held for name in TESTS for held in lines_of(name)}
    assert set(LINES) - held == set(), "lines without a test"
    assert held - set(LINES) == set(), "tests of lines that are not among LINES"
    assert not set(LINES) & set(NOT_BUILT)


@pytest.mark.parametrize("name", TESTS)
def test_every_test_says_what_it_is_about(name):
    assert marks(name), "neither @line nor @complaint"
    for thread, story in complaints_of(name):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", thread)
        assert set(story) == {"there", "here"}
        for sentence in story.values():
            assert len(sentence.split()) >= 3, f"{thread}: {sentence!r} says too little"
