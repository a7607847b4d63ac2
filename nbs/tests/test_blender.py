"""Rigged files in Blender, the real program without a window: imported, measured, a bone turned.

Skipped where there is no Blender (`apt-get install blender python3-numpy`)."""
import json
import shutil
import subprocess

import numpy as np
import pytest
import trimesh
from conftest import ROOT
from scipy.spatial import cKDTree

from recon.mesh.rig import BONE_NAMES, bone_names
from recon.mesh.skeleton import load_skeleton
from recon.reconstruct import Reconstruct, main

HEIGHT = 1.75     # metres
# Blender's z is up and -y forward: places go back to glTF's axes.
SCRIPT = """
import bpy, json, math, sys
import numpy
from mathutils import Quaternion

if "bool" not in vars(numpy): numpy.bool = bool    # Debian's Blender 3.4 meets a numpy newer than its importer

source, target, bone = sys.argv[sys.argv.index("--") + 1:]
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=source)
rig = next(thing for thing in bpy.data.objects if thing.type == "ARMATURE")
body = next(thing for thing in bpy.data.objects if thing.type == "MESH" and thing.parent == rig)

def places():
    bpy.context.view_layer.update()
    shown = body.evaluated_get(bpy.context.evaluated_depsgraph_get())
    return [(p.x, p.z, -p.y) for p in (shown.matrix_world @ v.co for v in shown.to_mesh().vertices)]

data, rest = body.data, places()
turned = rig.pose.bones[bone]
turned.rotation_mode = "QUATERNION"
turned.rotation_quaternion = Quaternion((1, 0, 0), math.radians(60))
material = data.materials[0].node_tree
color = next(node for node in material.nodes if node.type == "BSDF_PRINCIPLED").inputs["Base Color"]
image = color.links[0].from_node.image
size = list(image.size)
pixels = image.pixels[:]
loops = []
for loop in list(data.loops)[::97]:
    u, v = data.uv_layers.active.data[loop.index].uv
    at = 4*(min(int(v*size[1]), size[1] - 1)*size[0] + min(int(u*size[0]), size[0] - 1))
    loops.append((loop.vertex_index, *pixels[at:at + 3]))
parents = {one.name: one.parent.name if one.parent else None for one in rig.data.bones}
heads = {one.name: tuple(rig.matrix_world @ one.head_local) for one in rig.data.bones}
with open(target, "w") as file:
    json.dump(dict(parents=parents, heads=heads, rest=rest, moved=places(), size=size, loops=loops,
                   groups=[group.name for group in body.vertex_groups], scale=list(rig.matrix_world.to_scale()),
                   materials=len(data.materials), attributes=[one.name for one in data.attributes]), file)
"""


@pytest.fixture(scope="module")
def blender(tmp_path_factory):
    "A function that imports a file, turns a bone by 60 degrees and tells what it saw."
    program = shutil.which("blender")
    if not program: pytest.skip("no Blender on this machine: apt-get install blender python3-numpy")
    folder = tmp_path_factory.mktemp("blender")
    (folder/"look.py").write_text(SCRIPT)

    def look(path, bone):
        if not path.exists(): reconstruct(path.parents[1])
        words = [program, "--background", "--factory-startup", "--python-exit-code", "3", "--python",
                 str(folder/"look.py"), "--", str(path), str(folder/"seen.json"), bone]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        said = done.stdout + done.stderr
        if "No module named 'numpy'" in said: pytest.skip("this Blender has no numpy: apt-get install python3-numpy")
        assert done.returncode == 0, said[-3000:]
        assert "Error" not in said and "ERROR" not in said and "Traceback" not in said, said[-3000:]
        seen = json.loads((folder/"seen.json").read_text())
        return {name: np.array(value) if name in ("rest", "moved", "loops") else value for name, value in seen.items()}

    return look


def reconstruct(folder):
    "The example, rigged in the photo's pose and in a T-pose; the folder's name is whose names the bones get."
    fine = folder.name == "anny"
    main(Reconstruct(model=str(ROOT/"data"/"models"/"recon"), data_root=str(ROOT/"data"/"examples"),
                     subject="casual", resolution=96 if fine else 48, save_root=str(folder), page=False,
                     texture_faces=20_000 if fine else 4000, rig="still", bones=folder.name, height=HEIGHT,
                     bind_pose="photo,tpose"))


@pytest.fixture(scope="module")
def meshes(tmp_path_factory): return tmp_path_factory.mktemp("meshes")


@pytest.mark.parametrize("bones", BONE_NAMES)
def test_all_bones_arrive_under_their_names_and_parents(meshes, blender, bones):
    skeleton = load_skeleton()
    names = bone_names(skeleton.names, bones)
    seen = blender(meshes/bones/"tpose"/"casual.glb", names[skeleton.names.index("upperarm01.L")])
    assert seen["parents"] == {name: names[parent] if parent >= 0 else None
                               for name, parent in zip(names, skeleton.parents)}
    assert set(seen["groups"]) <= set(names) and len(seen["groups"]) > 40


def test_it_stands_in_metres_and_its_bones_are_in_it(meshes, blender):
    seen = blender(meshes/"anny"/"tpose"/"casual.glb", "upperarm01.L")
    x, y, _ = np.ptp(seen["rest"], axis=0)
    assert abs(y - HEIGHT) < .06 and .85 < x/y < 1.15, "hair and soles add a little to a body of that height"
    assert np.allclose(seen["scale"], 1)
    assert abs(seen["rest"][:, 1].min()) < 1e-3 and np.allclose(seen["heads"]["root"][:2], 0, atol=1e-3)
    heads = np.array([(x, z, -y) for name, (x, y, z) in seen["heads"].items() if not name.startswith("finger")])
    assert (heads > seen["rest"].min(0) - .02).all() and (heads < seen["rest"].max(0) + .02).all()


@pytest.mark.parametrize("side, sign", [("L", 1), ("R", -1)])
def test_an_upper_arm_moves_its_arm_and_nothing_else(meshes, blender, side, sign):
    "In a T-pose it is plain to see what an arm is: beyond the shoulder."
    seen = blender(meshes/"anny"/"tpose"/"casual.glb", f"upperarm01.{side}")
    rest, way = seen["rest"], np.linalg.norm(seen["moved"] - seen["rest"], axis=1)
    shoulder = sign*seen["heads"][f"upperarm01.{side}"][0]
    elbow = sign*seen["heads"][f"lowerarm01.{side}"][0]
    assert way[sign*rest[:, 0] > elbow].min() > .05, "the whole forearm moves"
    assert way[sign*rest[:, 0] < -.05].max() < 1e-4, "nothing of the other half of the body moves"
    legs = rest[:, 1] < rest[:, 1].min() + .45*np.ptp(rest[:, 1])
    assert way[legs].max() < .01, "no leg moves"
    inner = sign*rest[:, 0] < shoulder - .12
    assert way[inner].max() < .02, "the trunk stays"
    assert np.allclose(way[sign*rest[:, 0] > elbow].max(), way.max())


def test_a_thigh_moves_its_leg_and_no_arm(meshes, blender):
    seen = blender(meshes/"mixamo"/"tpose"/"casual.glb", "mixamorig:RightUpLeg")
    rest, way = seen["rest"], np.linalg.norm(seen["moved"] - seen["rest"], axis=1)
    knee = seen["heads"]["mixamorig:RightLeg"]
    below = rest[:, 1] < knee[2] - .05
    assert way[below & (rest[:, 0] < -.03)].min() > .1 and way[below & (rest[:, 0] > .03)].max() < .02
    assert way[np.abs(rest[:, 0]) > .35].max() < 1e-4


def test_the_texture_lies_where_it_belongs(meshes, blender):
    "The colour that Blender finds at a corner is that of the full mesh at the same place, in the photo's pose."
    folder = meshes/"anny"
    seen = blender(folder/"rigged"/"casual.glb", "upperarm01.L")
    assert seen["size"] == [1024, 1024] and seen["materials"] == 1
    full = trimesh.load_mesh(folder/"casual.glb", process=False)
    card = json.loads((folder/"casual.json").read_text())
    scale = card["known_height"]["metres_per_unit"]
    corners = seen["loops"]
    places = seen["rest"][corners[:, 0].astype(int)]/scale
    apart, nearest = cKDTree(full.vertices).query(places)
    assert apart.max() < .05
    wanted = full.visual.vertex_colors[nearest, :3]/255
    assert np.median(np.abs(corners[:, 1:] - wanted).mean(1)) < .03
    assert np.corrcoef(corners[:, 1:].mean(1), wanted.mean(1))[0, 1] > .9
