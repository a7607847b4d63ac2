"""GLB files by other people's judgement: Khronos' validator finds nothing wrong in what stage 05 writes.

The validator comes from npm; where there is no npm, or it reaches no registry, the test is skipped."""
import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from recon.mesh.origin import ATTRIBUTE, ORIGINS
from recon.reconstruct import Reconstruct, write_meshes

SCRIPT = """
const validator = require("gltf-validator"), fs = require("fs");
(async () => {
    const reports = {};
    for (const file of process.argv.slice(2)) {
        const {issues} = await validator.validateBytes(new Uint8Array(fs.readFileSync(file)));
        reports[file] = issues.messages.filter(({severity}) => severity < 2);
    }
    console.log(JSON.stringify(reports));
})();
"""


@pytest.fixture(scope="module")
def validate(tmp_path_factory):
    "A function of files that returns errors and warnings of each."
    if not shutil.which("npm") or not shutil.which("node"): pytest.skip("no npm on this machine")
    folder = tmp_path_factory.mktemp("npm")
    command = "npm install --silent --no-audit --no-fund gltf-validator@2.0.0-dev.3.10 --prefix".split() + [str(folder)]
    try: done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired: pytest.skip("npm does not answer")
    if done.returncode: pytest.skip(f"npm reaches no registry: {done.stderr[-200:]}")
    (folder/"validate.js").write_text(SCRIPT)

    def run(files):
        words = ["node", str(folder/"validate.js"), *map(str, files)]
        found = subprocess.run(words, capture_output=True, text=True, cwd=folder)
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "All kinds of GLB files of a posed body, by stage 05."
    from recon.body.anny import load_anny
    from recon.body.pose import sample_pose
    from recon.synth.template import load_template

    folder, body = tmp_path_factory.mktemp("meshes"), load_anny()
    pose, _ = sample_pose(np.random.default_rng(1), load_template().joints, "apose")
    posed = body.pose(torch.as_tensor(pose)).vertices
    middle = (posed.amax(0) + posed.amin(0))/2
    posed = (posed - middle)/(posed - middle).abs().max()*.9
    scene = SimpleNamespace(rgb=lambda points: (points + 1)/2 % 1, body=SimpleNamespace(vertices=posed[None]))
    result = SimpleNamespace(vertices=posed, faces=body.model.faces, colors=(posed + 1)/2)
    item = dict(front_mask=torch.ones(1, 64, 64), back_mask=torch.ones(1, 64, 64))
    for bones in ("anny", "mixamo", "unreal"):
        cfg = Reconstruct(save_root=str(folder), texture=256, texture_faces=15_000, rig="still", bones=bones,
                          light=bones == "anny")
        _, shares = write_meshes(cfg, bones, result, scene, dict(model="test"), item)
    assert abs(sum(shares.values()) - 1) < 1e-6 and min(shares.values()) > .02
    return folder


def test_the_validator_finds_no_error_and_no_warning(files, validate):
    found = sorted(files.rglob("*.glb"))
    assert {path.parent.name for path in found} >= {"textured", "rigged", "light"} and len(found) == 10
    wrong = {path: messages for path, messages in validate(found).items() if messages}
    assert not wrong, json.dumps(wrong, indent=1)[:3000]


def test_every_file_says_where_its_colours_come_from(files):
    for path in files.rglob("*.glb"):
        origins = np.asarray(trimesh.load_mesh(path, process=False).vertex_attributes[ATTRIBUTE])
        assert set(np.unique(origins)) == set(range(len(ORIGINS))), path


def test_the_light_copy_is_light(files):
    mesh = trimesh.load_mesh(files/"light"/"anny.glb", process=False)
    assert len(mesh.faces) <= 20_000 and mesh.visual.material.baseColorTexture.size == (1024, 1024)


def test_bones_have_the_names_that_were_asked_for(files):
    from recon.mesh.gltf import read_glb

    wanted = dict(mixamo=["mixamorig:Hips", "mixamorig:LeftForeArm", "mixamorig:RightHandIndex1"],
                  unreal=["pelvis", "lowerarm_l", "index_01_r"], anny=["root", "lowerarm01.L", "finger2-1.R"])
    for bones, names in wanted.items():
        tree, _ = read_glb(files/"rigged"/f"{bones}.glb")
        assert set(names) <= {tree["nodes"][number]["name"] for number in tree["skins"][0]["joints"]}
        assert "animations" not in tree, "no clip was asked for"
