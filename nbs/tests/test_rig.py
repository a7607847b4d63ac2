"""A rigged mesh in a real browser.

three.js, which comes with trimesh's own viewer, opens the file and moves it as we say it moves."""
import base64
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import FLAGS, chromium

PAGE = """<!DOCTYPE html><body><script>{library}</script><script>
const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(40, 1, .1, 20);
const renderer = new THREE.WebGLRenderer({{preserveDrawingBuffer: true}});
scene.background = new THREE.Color(0xffffff); scene.add(new THREE.AmbientLight(0xffffff, 2));
camera.position.set(0, 0, 3.2); renderer.setSize(400, 400);
document.body.appendChild(renderer.domElement);
const data = Uint8Array.from(atob("{glb}"), c => c.charCodeAt(0)).buffer;
new THREE.GLTFLoader().parse(data, "", gltf => {{
  scene.add(gltf.scene);
  const mixer = new THREE.AnimationMixer(gltf.scene);
  for (const clip of gltf.animations) mixer.clipAction(clip).play();
  let mesh = null; gltf.scene.traverse(node => {{ if (node.isSkinnedMesh) mesh = node; }});
  mesh.frustumCulled = false;
  window.play = seconds => {{
    mixer.setTime(seconds); scene.updateMatrixWorld(true); mesh.skeleton.update(); renderer.render(scene, camera);
    const places = [], at = mesh.geometry.getAttribute("position");
    const move = (mesh.applyBoneTransform || mesh.boneTransform).bind(mesh);
    for (let i = 0; i < at.count; i += 37)
      places.push(move(i, new THREE.Vector3().fromBufferAttribute(at, i)).toArray());
    return places; }};
}}, error => {{ window.failed = String(error); }});
</script>"""


def library() -> str:
    "three.js with its loader of GLB files, as trimesh ships it."
    import trimesh

    viewer = Path(trimesh.__file__).parent/"resources"/"templates"/"viewer.zip"
    if not viewer.exists(): pytest.skip("this trimesh brings no viewer")
    text = zipfile.ZipFile(viewer).read("viewer.html.template").decode()
    return text.split("<script>", 1)[1].split("var camera,controls", 1)[0]


@pytest.fixture(scope="module")
def rigged(tmp_path_factory):
    "A rigged body in a clip with two keys: the file, its vertices, and where they are before it and at each key."
    from recon.body.anny import load_anny
    from recon.body.pose import sample_pose
    from recon.synth.template import load_template
    from recon.mesh.skeleton import bone_motion
    from recon.mesh.skinning import (
        blend_skinning, clip_rotations, forward_kinematics, local_rotations, transfer_weights)
    from recon.mesh.rig import export_rigged, strongest_joints
    from recon.geometry.mesh import weld
    from recon.mesh.bake import bake

    folder, body = tmp_path_factory.mktemp("rig"), load_anny()
    pose, _ = sample_pose(np.random.default_rng(1), load_template().joints, "apose")
    posed = body.pose(torch.as_tensor(pose)).vertices
    (folder/"nod.bvh").write_text(bvh(frames=[(0, 0), (60, 40)]))
    textured = bake((posed, body.model.faces), lambda points: (points + 1)/2 % 1, 256, 6000)
    path = export_rigged(folder/"body.glb", textured, posed, folder/"nod.bvh")
    bound, joints = bone_motion(posed.numpy())
    places, same = weld(textured.mesh.vertices)
    which, shares = strongest_joints(transfer_weights(places, same[textured.mesh.faces], posed)[same])
    weights = np.zeros((len(which), len(joints)))
    np.add.at(weights, (np.arange(len(which))[:, None], which), shares)
    whole, moved = forward_kinematics(local_rotations(clip_rotations(folder/"nod.bvh")[1], bound), joints)
    v = textured.mesh.vertices.numpy()
    return path, v, [v] + [blend_skinning(v, weights, joints, *key) for key in zip(whole, moved)]


def bvh(frames) -> str:
    "A file in which the left arm is raised and the trunk bent."
    joint = "JOINT {} {{ OFFSET {}\nCHANNELS 3 Zrotation Xrotation Yrotation\n"

    def limb(name, at, below, to):
        return joint.format(name, at) + joint.format(below, to) + f"End Site {{ OFFSET {to} }} }} }}\n"

    head = joint.format("Head", "0 40 0") + "End Site { OFFSET 0 10 0 } }\n"
    arms = limb("LeftArm", "20 30 0", "LeftForeArm", "25 0 0") + limb("RightArm", "-20 30 0", "RightForeArm", "-25 0 0")
    legs = limb("LeftUpLeg", "10 0 0", "LeftLeg", "0 -45 0") + limb("RightUpLeg", "-10 0 0", "RightLeg", "0 -45 0")
    rows = np.zeros((len(frames), 36))
    rows[:, 12], rows[:, 7] = np.array(frames).T     # LeftArm about z, Spine about x
    root = ("HIERARCHY\nROOT Hips { OFFSET 0 0 0\n"
            "CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation\n")
    body = root + joint.format("Spine", "0 20 0") + head + arms + "}\n" + legs + "}\n"
    motion = "\n".join(" ".join(map(str, row)) for row in rows)
    return f"{body}MOTION\nFrames: {len(rows)}\nFrame Time: 0.5\n{motion}\n"


def test_a_rigged_mesh_moves_in_the_browser(rigged, tmp_path):
    from playwright.sync_api import sync_playwright

    path, v, keys = rigged
    page_file = tmp_path/"page.html"
    page_file.write_text(PAGE.format(library=library(), glb=base64.b64encode(path.read_bytes()).decode()))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport=dict(width=420, height=420))
        page.goto(page_file.as_uri())
        page.wait_for_function("window.play || window.failed", timeout=60_000)
        assert not page.evaluate("window.failed"), page.evaluate("window.failed")
        pictures = []
        for seconds, expected in zip((0, 1, 1.5), keys):
            shown = np.array(page.evaluate(f"window.play({seconds})"))
            assert np.abs(shown - expected[::37]).max() < 1e-3
            pictures.append(page.screenshot(path=tmp_path/f"{seconds}.png"))
    assert np.abs(keys[2] - keys[0]).max() > .2
    assert len(set(pictures)) == 3


@pytest.fixture(scope="module")
def grown_together(tmp_path_factory):
    "Rigged files of a person with hands on the hips whose arms a field has melted into the trunk, by stage 05."
    from recon.body.anny import load_anny
    from recon.geometry.query import MeshQuery
    from recon.mesh.surface import extract_surface
    from recon.reconstruct import Reconstruct, write_meshes
    from recon.testing import mesh_inputs, posed_body

    folder, posed = tmp_path_factory.mktemp("grown"), posed_body("hips")
    skin = MeshQuery(posed, load_anny().model.faces)
    vertices, faces = extract_surface(lambda points: skin.signed_distance(points) - .03, 96)
    result, scene, item = mesh_inputs(vertices, faces, posed)
    cfg = Reconstruct(save_root=str(folder), texture=256, texture_faces=30_000, rig="still", bind_pose="photo,tpose")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recon.mesh.rig.skin_mesh", lambda *_: pytest.fail("weights were found once more"))
        write_meshes(cfg, "person", result, scene, dict(model="test"), item)
    return folder


def opened(folder, name):
    import trimesh

    return trimesh.load_mesh(folder/name, process=False)


def areas(vertices, faces):
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1)/2


def test_no_web_hangs_between_arm_and_trunk_in_a_tpose(grown_together):
    "Of the area in the T-pose, nearly nothing is stretched to several times its length; without the cut, 30 %."
    photo, tpose = (opened(grown_together, f"{folder}/person.glb") for folder in ("rigged", "tpose"))
    assert (photo.faces == tpose.faces).all()
    before, after = (np.linalg.norm(np.diff(mesh.vertices[mesh.faces[:, [0, 1, 2, 0]]], axis=1), axis=2)
                     for mesh in (photo, tpose))
    stretched = ((after > 3*before) & (after > .02)).any(1)
    area = areas(tpose.vertices, tpose.faces)
    assert area[stretched].sum() < .02*area.sum(), f"{area[stretched].sum()/area.sum():.1%} is torn"
    assert area.sum() < 1.08*areas(photo.vertices, photo.faces).sum()


def test_what_was_cut_apart_is_closed(grown_together):
    "Every edge has two faces once both sides of the texture's seams are one."
    full, rigged = (opened(grown_together, name) for name in ("person.glb", "rigged/person.glb"))
    assert full.is_watertight
    rigged.merge_vertices(merge_tex=True, merge_norm=True)
    edges = np.unique(np.sort(rigged.edges, 1), axis=0, return_counts=True)[1]
    assert (edges != 2).mean() < 1e-3, f"{(edges != 2).sum()} edges are open"


def test_the_textured_copy_is_left_as_it_was(grown_together):
    full, textured = (opened(grown_together, name) for name in ("person.glb", "textured/person.glb"))
    assert len(textured.faces) > .97*len(full.faces)
    assert abs(textured.area/full.area - 1) < .01
