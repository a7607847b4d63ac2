"The package as users meet it: light to import, every module by itself, nothing undefined."
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from conftest import BIN, ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT/"recon").rglob("*.py") if path.name != "_modidx.py")


def python(code, cwd):
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


def test_every_module_imports_alone(tmp_path):
    "In a fresh interpreter each, some at a time."
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(lambda module: python(f"import {module}", tmp_path), MODULES)
    failed = {module: done.stderr.splitlines()[-1] for module, done in zip(MODULES, outcomes) if done.returncode}
    assert not failed


def test_import_is_light(tmp_path):
    python("import recon", tmp_path)      # compiled once
    start = time.monotonic()
    done = python("import recon, recon.config, sys; print('torch' in sys.modules, 'numpy' in sys.modules)", tmp_path)
    assert time.monotonic() - start < 1
    assert done.stdout.split() == ["False", "False"]


def test_ruff():
    done = subprocess.run([BIN/"ruff", "check", "--no-cache", "recon"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_names_that_outside_scripts_rely_on(tmp_path):
    done = python("from recon.runs.sith import load; from recon.data import ReconDataset; from recon.geometry import MeshQuery; "
                  "from recon.mesh.surface import extract_surface; from recon.metrics import surface_metrics; from recon.runs.run import Run; "
                  "Run.open; ReconDataset.read; MeshQuery.closest; MeshQuery.signed_distance", tmp_path)
    assert done.returncode == 0, done.stderr
