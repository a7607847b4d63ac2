"How the house reads, in numbers: short exported cells with an example at once, pages that show, one thought a line."
import ast
import json
import re
from statistics import median

import pytest
from conftest import ROOT, STAGES

NOTEBOOKS = sorted(path for path in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
MODULES = sorted(path for path in (ROOT/"recon").rglob("*.py") if path.name != "_modidx.py")
EXPORT = re.compile(r"#\|\s*export")
IMPORTS = re.compile(r"#\|\s*export\s*\n(import|from) ")


def name(path):
    return str(path.relative_to(ROOT/"nbs").with_suffix(""))


def cells(path):
    "Kind, source and outputs of each cell."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"]), cell.get("outputs", [])) for cell in notebook["cells"]]


def code(path):
    return [source for kind, source, _ in cells(path) if kind == "code"]


def is_options(source):
    "The parameters cell of a stage, one option a line."
    return "(Config):" in source or "(TrainOptions):" in source


def is_definition(source):
    "An exported cell that does more than import."
    return bool(EXPORT.match(source)) and not IMPORTS.match(source)


def length(source):
    "Lines of an exported cell without its directive and blank lines."
    return len([line for line in source.splitlines() if line.strip()]) - 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_exported_cells_are_short(path):
    long = [
        source.splitlines()[1] for source in code(path)
        if is_definition(source) and not is_options(source) and length(source) > 30
    ]
    assert not long, "exported cells of over 30 lines"


def test_half_of_the_exported_cells_have_at_most_twelve_lines():
    assert median(length(source) for path in NOTEBOOKS for source in code(path) if is_definition(source)) <= 12


def test_three_of_four_exported_cells_are_shown_at_once():
    followed = [
        not EXPORT.match(after)
        for path in NOTEBOOKS for source, after in zip(code(path), [*code(path)[1:], "#| export"])
        if is_definition(source)
    ]
    assert sum(followed) >= .75*len(followed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_every_page_shows_something(path):
    "A picture, a table or printed text."
    assert any(outputs for _, _, outputs in cells(path))


def test_values_are_packed_only_where_they_belong_together():
    "Fewer than 10 assignments such as `a, b = x, y` in 1,000 lines."
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES]
    lines = sum(bool(line.strip()) for path in MODULES for line in path.read_text(encoding="utf-8").splitlines())
    packed = [
        node for tree in trees for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
    ]
    assert len(packed) < .010*lines


def test_tags_of_parameters_survive():
    "Without the tag papermill injects at the top, where the notebook's own defaults win."
    for path in STAGES:
        tags = [cell["metadata"].get("tags", []) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        assert sum("parameters" in tag for tag in tags) == 1, path
