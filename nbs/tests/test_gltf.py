"""GLB files by other people's judgement: Khronos' validator finds nothing wrong in what stage 05 writes.

The validator comes from npm; where there is no npm, or it reaches no registry, the test is skipped."""
import json
import shutil
import subprocess

import numpy as np
import pytest
import trimesh
from PIL import Image

from recon.mesh.bind import stature
from recon.mesh.gltf import read_glb
from recon.mesh.origin import ATTRIBUTE, NO_SURFACE, ORIGIN_COLORS, ORIGINS
from recon.reconstruct import Reconstruct, write_meshes

HEIGHT = 1.71                                                             # metres
BACKS = dict(anny="back", mixamo="mirrored", unreal="generated")          # what the back view of each file was
COPIES = ("textured", "rigged", "tpose", "rest")
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
    from recon.testing import mesh_inputs, posed_body

    folder, posed = tmp_path_factory.mktemp("meshes"), posed_body("apose", 1)
    result, scene, item = mesh_inputs(posed, load_anny().model.faces, posed)
    height = dict(metres=HEIGHT, source="given", metres_per_unit=HEIGHT/stature(posed))
    for bones, back in BACKS.items():
        cfg = Reconstruct(save_root=str(folder), texture=256, texture_faces=15_000, rig="still", bones=bones,
                          light=bones == "anny", bind_pose="photo,tpose,rest", formats="glb,obj")
        _, shares = write_meshes(cfg, bones, result, scene, dict(model="test"), item, height, back)
        present = {name: share for name, share in shares.items() if share}
        assert set(present) == {"seen", back, "body"}
        assert abs(sum(shares.values()) - 1) < 1e-6 and min(present.values()) > .02
    return folder


def test_the_validator_finds_no_error_and_no_warning(files, validate):
    found = sorted(files.rglob("*.glb"))
    assert {path.parent.name for path in found} >= {*COPIES, "light"} and len(found) == 3*(1 + len(COPIES)) + 1
    wrong = {path: messages for path, messages in validate(found).items() if messages}
    assert not wrong, json.dumps(wrong, indent=1)[:3000]


def test_every_file_says_where_its_colours_come_from(files):
    for path in files.rglob("*.glb"):
        origins = np.asarray(trimesh.load_mesh(path, process=False).vertex_attributes[ATTRIBUTE])
        wanted = {ORIGINS.index(name) for name in ("seen", BACKS[path.stem], "body")}
        assert set(np.unique(origins)) == wanted, path


def test_a_mask_beside_each_texture_says_it_pixel_by_pixel(files):
    "In the texture's own layout: at the vertices' places in it the mask agrees with the attribute."
    for path in files.rglob("*.glb"):
        if path.parent == files: continue
        with Image.open(path.with_name(f"{path.stem}_origin.png")) as image:
            mask, colors, legend = np.asarray(image), np.asarray(image.convert("RGB")), image.text
        mesh = trimesh.load_mesh(path, process=False)
        assert mask.shape == mesh.visual.material.baseColorTexture.size[::-1]
        covered = mask < NO_SURFACE
        assert (colors[covered] == ORIGIN_COLORS[mask[covered]]).all(), "the palette is the legend's"
        assert any("from the network and the body alone" in text for text in legend.values())
        beside = json.loads(path.with_name(f"{path.stem}_origin.json").read_text())
        assert [beside[name]["value"] for name in (*ORIGINS, "none")] == list(range(len(ORIGINS) + 1))
        column, row = np.clip(mesh.visual.uv*[1, -1] + [0, 1], 0, .999).T*len(mask)      # trimesh turns v upward
        at = mask[row.astype(int), column.astype(int)]
        agree = at == np.asarray(mesh.vertex_attributes[ATTRIBUTE]).ravel()
        assert agree.mean() > .93, f"{path}: {agree.mean():.0%} of the vertices agree"


def test_copies_are_in_metres_where_the_height_is_known(files):
    for path in files.rglob("*.glb"):
        tree, _ = read_glb(path)
        card = tree["asset"]["extras"]
        if path.parent == files:
            assert card["unit"].startswith("half the side"), "what is measured keeps the cube"
            continue
        assert (card["unit"], card["height"], card["height_source"]) == ("metre", HEIGHT, "given")
        tall = np.ptp(trimesh.load_mesh(path, process=False).vertices[:, 1])
        if path.parent.name in ("tpose", "rest"): assert abs(tall - HEIGHT) < .03, f"{path}: {tall:.2f} m"
        cube = trimesh.load_mesh(files/path.name, process=False)
        if path.parent.name == "textured":
            assert abs(tall/np.ptp(cube.vertices[:, 1])/card["metres_per_cube_unit"] - 1) < .01
    obj = trimesh.load_mesh(files/"textured"/"anny.obj", process=False)
    glb = trimesh.load_mesh(files/"textured"/"anny.glb", process=False)
    assert np.allclose(obj.bounds, glb.bounds, atol=1e-4)


def world_places(nodes, number, above=(0, 0, 0)):
    "Places of a node and all below it, by number; nodes that only move."
    node = nodes[number]
    assert not {"rotation", "scale", "matrix"} & node.keys()
    places = {number: above + np.array(node.get("translation", (0, 0, 0)))}
    for child in node.get("children", ()): places |= world_places(nodes, child, places[number])
    return places


def test_a_skeleton_rests_where_its_inverse_bind_matrices_say(files):
    "Nodes multiplied down the tree, as every reader does, times the matrices of the skin: nothing moves."
    for path in [path for folder in ("rigged", "tpose", "rest") for path in (files/folder).glob("*.glb")]:
        tree, arrays = read_glb(path)
        skin = tree["skins"][0]
        world = world_places(tree["nodes"], skin["skeleton"])
        matrices = arrays[skin["inverseBindMatrices"]]
        places = np.array([world[node] for node in skin["joints"]])
        assert np.allclose(matrices[:, :3, :3], np.eye(3)) and np.allclose(matrices[:, :3, 3], -places, atol=1e-5)
        inside = trimesh.load_mesh(path, process=False).bounds
        assert (places > inside[0] - .02).all() and (places < inside[1] + .02).all(), "joints lie in the mesh"


def test_arms_are_level_in_a_tpose(files):
    tree, _ = read_glb(files/"tpose"/"mixamo.glb")
    mesh = trimesh.load_mesh(files/"tpose"/"mixamo.glb", process=False)
    across, tall = np.ptp(mesh.vertices, axis=0)[:2]
    assert .9 < across/tall < 1.15, "a person is about as wide as tall"
    nodes = {node["name"]: np.array(node["translation"]) for node in tree["nodes"] if "translation" in node}
    for side, sign in (("Left", 1), ("Right", -1)):
        for bone in ("ForeArm", "Hand", "HandMiddle1"):
            offset = nodes[f"mixamorig:{side}{bone}"]*sign
            assert offset[0] > .05 and np.abs(offset[1:]).max() < .01*offset[0] + 1e-4, f"{side}{bone} {offset}"


def test_the_light_copy_is_light(files):
    mesh = trimesh.load_mesh(files/"light"/"anny.glb", process=False)
    assert len(mesh.faces) <= 20_000 and mesh.visual.material.baseColorTexture.size == (1024, 1024)


def test_bones_have_the_names_that_were_asked_for(files):
    wanted = dict(mixamo=["mixamorig:Hips", "mixamorig:LeftForeArm", "mixamorig:RightHandIndex1"],
                  unreal=["pelvis", "lowerarm_l", "index_01_r"], anny=["root", "lowerarm01.L", "finger2-1.R"])
    for bones, names in wanted.items():
        tree, _ = read_glb(files/"rigged"/f"{bones}.glb")
        assert set(names) <= {tree["nodes"][number]["name"] for number in tree["skins"][0]["joints"]}
        assert "animations" not in tree, "no clip was asked for"
