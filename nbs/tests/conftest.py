"Where the project is, and a small environment in which tests leave nothing behind."
import os
import sys
from pathlib import Path

import pytest
from warm_kernels import offer_kernels

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
STAGES = sorted((ROOT/"nbs").glob("0[0-9]_*.ipynb"))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")   # threads that wait leave the core to the other process
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

from browser import lab, page, project  # noqa: F401 (fixtures; they use the places above)

# Tests of one file share its fixtures and run in one process (`--dist loadfile`). Long files start first, so that the
# processes end at about the same time.
LONG = """test_notebooks test_demo test_viewer test_app test_mixed test_resume test_build test_watch test_parallel
    test_options""".split()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def kernels():
    "From now on Jupyter's kernels start within a second."
    with offer_kernels() as path, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(path))
        yield


@pytest.fixture
def toy_project(tmp_path, kernels):
    "A project of its own with one tiny stage notebook."
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    options = (
        "from dataclasses import dataclass\nfrom recon.config import Config\n\n@dataclass\nclass Toy(Config):\n"
        "    epochs: int = 3         # passes\n    use_mask: bool = False  # foreground only"
    )
    cells = [
        new_code_cell(options, metadata={"tags": ["parameters"]}),
        new_code_cell("cfg = Toy.resolve(globals())\nprint(cfg)"),
        new_code_cell("import ipywidgets\nipywidgets.IntSlider(value=cfg.epochs)"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    (tmp_path/"nbs").mkdir()
    (tmp_path/"settings.ini").write_text("[DEFAULT]\nlib_name = toy\n")
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path/"nbs"/"02_toy.ipynb")
    return tmp_path
