"The package as users meet it: light to import, every module by itself, nothing undefined."
import configparser
import json
import subprocess
import sys
import time
from pathlib import Path

from conftest import BIN, ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT/"recon").rglob("*.py") if path.name != "_modidx.py")

# Other people's packages are loaded once; then each module is imported in a process forked from there, where no other
# module of recon has been. What Python compiles is kept for the next of them.
ALONE = """
import gc, importlib, os, sys, traceback
packages, (folder, *modules) = sys.argv[1].split(), sys.argv[2:]
for package in packages:
    try: importlib.import_module(package)
    except ImportError: pass
sys.dont_write_bytecode, sys.pycache_prefix = False, folder
gc.collect()
gc.freeze()      # or the collection in each process copies what they share
for module in modules:
    assert not any(name.split(".")[0] == "recon" for name in sys.modules)
    child = os.fork()
    if not child:
        try: importlib.import_module(module)
        except BaseException:
            print(module, traceback.format_exc().splitlines()[-1], flush=True)
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
"""
LIBRARIES = (
    "torch trimesh h5py cv2 kornia warp matplotlib.pyplot plotly.graph_objects ipywidgets accelerate pydantic tyro "
    "scipy.spatial scipy.sparse.linalg scipy.interpolate scipy.ndimage scipy.stats skimage.measure dask anny.models "
    "fastcore.all filelock zstandard PIL.ImageOps PIL.ImageCms fast_simplification narwhals torchmetrics.functional "
    "safetensors.torch mapbox_earcut nbformat nbclient IPython.display"
)


def python(code, cwd, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True)


def test_every_module_imports_alone(tmp_path):
    done = python(ALONE, tmp_path, LIBRARIES, str(tmp_path), *MODULES)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


def test_import_is_light(tmp_path):
    python("import recon", tmp_path)      # compiled once
    start = time.monotonic()
    done = python("import recon, recon.config, sys; print('torch' in sys.modules, 'numpy' in sys.modules)", tmp_path)
    assert time.monotonic() - start < 1
    assert done.stdout.split() == ["False", "False"]


def test_import_changes_nothing_around_it(tmp_path):
    code = "import os; before = dict(os.environ); import recon; print(before == dict(os.environ), os.listdir())"
    assert python(code, tmp_path).stdout.split() == ["True", "[]"]


def test_bodies_and_models_load_without_torchs_compiler(tmp_path):
    "It takes 3 s, in every process."
    code = (
        "import sys, torch, recon.body.anny, anny\nfrom recon.nets.normal import NormalPredictor\n"
        "with torch.device('meta'): NormalPredictor()\nprint('torch._dynamo' in sys.modules)"
    )
    assert python(code, tmp_path).stdout == "False\n"


def test_ruff():
    "Lines of `__all__`, which nbdev writes, may be longer."
    command = [BIN/"ruff", "check", "--no-cache", "--output-format=json", "recon", "nbs/tests"]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)
    faults = [
        f"{fault['filename']}:{fault['location']['row']}: {fault['code']} {fault['message']}"
        for fault in found if not (fault["code"] == "E501" and is_generated(fault))
    ]
    assert not faults, "\n".join(faults)


def is_generated(fault):
    lines = Path(fault["filename"]).read_text(encoding="utf-8").splitlines()[:fault["location"]["row"]]
    return "# %% auto #0" in lines[-40:] and sum(line.startswith("# %%") for line in lines) == 1


def test_names_that_outside_scripts_rely_on(tmp_path):
    code = (
        "from recon.sith import load; from recon.data import ReconDataset; from recon.geometry import MeshQuery; "
        "from recon.surface import extract_surface; from recon.metrics import surface_metrics; "
        "from recon.run import Run; Run.open; ReconDataset.read; MeshQuery.closest; MeshQuery.signed_distance; "
        "from recon import build_dataset, train_normal, train_full, reconstruct, evaluate; "
        "[stage.main for stage in (build_dataset, train_normal, train_full, reconstruct, evaluate)]"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_settings_name_only_what_exists():
    settings = configparser.ConfigParser(delimiters="=", interpolation=None)
    settings.read(ROOT/"settings.ini")
    named = [settings["DEFAULT"].get(name) for name in ("lib_path", "nbs_path", "doc_path", "readme_nb")]
    places = {place: (ROOT/place, ROOT/"nbs"/place) for place in named if place}
    assert not [place for place, paths in places.items() if not any(path.exists() for path in paths)]
