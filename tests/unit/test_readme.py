"""README's links lead somewhere, and its page for users of Keras speaks of every parameter."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
LINKS = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
MIGRATION = re.search(r"(?s)## Coming from Keras' fit_generator\n(.*?)\n## ", README).group(1)
TABLES = [table.splitlines() for table in re.findall(r"(?m)(?:^\|.*\n?)+", MIGRATION)]


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def parameters(name):
    """The function's parameters, read from its source: no framework is loaded for it."""
    module = ast.parse((ROOT / "rayfeed/api.py").read_text())
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    arguments = functions[name].args
    return [argument.arg for argument in [*arguments.args, *arguments.kwonlyargs]]


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_every_link_to_a_file_leads_to_one(link):
    assert (ROOT / link).exists()


def test_every_parameter_of_fit_generator_has_a_row_in_its_order():
    rows = [cells(row)[0] for row in TABLES[0][2:]]
    assert rows == [f"`{name}`" for name in parameters("fit_generator")]


@pytest.mark.parametrize("name", ["evaluate_generator", "predict_generator"])
def test_every_parameter_of_the_others_is_named(name):
    missing = [parameter for parameter in parameters(name) if f"`{parameter}`" not in MIGRATION]
    assert missing == []


ROWS = {f"{place}-{cells(row)[0]}": row for place, table in enumerate(TABLES) for row in table[2:]}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_is_whole_and_names_the_test_that_shows_it(row):
    assert len(cells(row)) == 4
    assert all(cells(row))
    assert re.search(r"\[test\]\(tests/\S+\.py\)", row)


def test_the_page_has_no_figures():
    """Figures belong to a dated report; what is counted here are arguments, epochs and versions."""
    assert not re.search(r"\d+(\.\d+)?\s*(x|%|ms|MB|GB|times)\b", MIGRATION)
