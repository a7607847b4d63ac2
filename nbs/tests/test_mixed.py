"People in MakeHuman's assets and BVH poses with scans by other hands: one dataset, which trains the demo preset."
import json
import subprocess

import h5py
import nbformat
import numpy as np
import pytest
from conftest import BIN, ROOT

from recon import build_dataset, train_full, train_normal

SHARED = ROOT.parent/"shared"
SMALL = dict(resolution=96, size=64, nviews=4, nsamples=6000, workers=1)
PACKS, SCANS = SHARED/"makehuman", SHARED/"scans"
pytestmark = pytest.mark.skipif(not (PACKS.exists() and SCANS.exists()), reason=f"needs {PACKS} and {SCANS}")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    (folder/"scans").mkdir()
    for scan in sorted((SHARED/"scans").glob("*/"))[:2]: (folder/"scans"/scan.name).symlink_to(scan)
    options = dict(source=f"people+{folder/'scans'}", num_people=4, num_test=1, assets=str(PACKS))
    options |= dict(poses=str(PACKS/"poses"), data_root=str(folder/"mixed.h5"))
    return build_dataset.main(build_dataset.BuildDataset(**options, **SMALL))


def test_all_sources_are_in_it(data):
    with h5py.File(data) as file:
        assert sorted(file) == ["0000", "0001", "0002", "0003", "scans_0000", "scans_0001"]
        assert json.loads(file.attrs["refused"]) == {}
        assert json.loads(file.attrs["split"])["train"] == ["0000", "0001", "0002", "scans_0001"]
        jobs = {name: json.loads(file[name].attrs["recipe"]) for name in file}
        for name in ("0000", "0001", "0002", "0003"):
            assert jobs[name]["assets"].startswith("makehuman:") and jobs[name]["poses"].startswith("poses:")
        assert {jobs[name]["kind"] for name in file if name.startswith("scans")} == {"scan"}
        assert {file[name].attrs["label"] != "" for name in ("0000", "0001")} == {True}


def losses(run, name):
    "Mean of the first two passes over the four people, two steps each, and of the last four."
    curve = run.curves()[name][1]
    return np.mean(curve[:4]), np.mean(curve[-8:])


def test_it_trains_the_demo_preset(data, tmp_path):
    "Steps 1 and 2 as the stages run them, with smaller networks: the losses fall."
    options = dict(preset="demo", data_root=str(data), save_root=str(tmp_path), image_size=64, num_samples=512,
                   num_normals=64, batch_size=2, workers=0, log_every=1, nrm_channels=8, nrm_blocks=1,
                   encoder_channels=16, color_channels=16, hidden_dim=48, rgb_hidden_dim=32, lr_warmup_steps=2)
    first = train_normal.main(train_normal.TrainNormal.resolve(options | dict(epochs=16)))
    second = train_full.main(train_full.TrainFull.resolve(options | dict(epochs=40)))
    for run, name, share in (first, "2D", .7), (second, "sdf", .9), (second, "rgb", .85):
        before, after = losses(run, name)
        print(f"{run.folder.name}: {name} {before:.4f} -> {after:.4f}")
        assert after < share*before, (run.folder.name, name, before, after)


def test_as_one_line_of_papermill(tmp_path, kernels):
    "The command of the README, typed in the project's folder; paths are the project's."
    options = dict(source="people+../shared/scans", assets="../shared/makehuman", poses="../shared/makehuman/poses",
                   data_root=tmp_path/"mixed.h5", num_people=1, num_test=0)
    options |= SMALL | dict(resolution=64, size=32, nviews=2, nsamples=500)
    command = [BIN/"papermill", "nbs/00_build_dataset.ipynb", tmp_path/"built.ipynb"]
    for name, value in options.items(): command += ["-p", name, str(value)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert nbformat.read(tmp_path/"built.ipynb", 4).metadata["papermill"]["exception"] is None
    with h5py.File(tmp_path/"mixed.h5") as file:
        assert sorted(file) == ["0000"] + [f"scans_{i:04d}" for i in range(6)]
