"Folders of scans in the field's formats, built into datasets by the stage itself."
import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import trimesh
from fast_simplification import simplify

from recon.body.anny import load_anny
from recon.body.smplx import SmplBody, pose_smpl, stand_in
from recon.build_dataset import BuildDataset, main
from recon.synth.person import make_person

SMALL = dict(size=64, nviews=2, nsamples=500, workers=1)


@pytest.fixture(scope="module")
def person(): return make_person(5, 96, style="relaxed")


def save(folder: Path, person, move=(0, 0, 0), unit=1.):
    folder.mkdir(parents=True)
    colors = ((person.vertices/2 + .5) * 255).astype(np.uint8)
    mesh = trimesh.Trimesh(person.vertices*unit, person.faces, vertex_colors=colors, process=False)
    mesh.export(folder/f"{folder.name}.ply")
    trimesh.PointCloud((person.body_vertices + move)*unit).export(folder/f"{folder.name}_body.ply")


def test_a_bad_fit_and_a_wrong_unit_are_refused_and_the_rest_is_built(person, tmp_path, capsys):
    "With reason and picture."
    save(tmp_path/"scans"/"good", person)
    save(tmp_path/"scans"/"moved", person, move=(.2, 0, 0))
    save(tmp_path/"scans"/"large", person, unit=100)
    index = main(BuildDataset(source=str(tmp_path/"scans"), data_root=str(tmp_path/"set.h5"), **SMALL))
    with h5py.File(index) as file:
        assert list(file) == ["good"]
        refused, facts = json.loads(file.attrs["refused"]), json.loads(file["good"].attrs["facts"])
    assert "`-p unit cm`" in refused["large"] and "outside the scan" in refused["moved"]
    picture = Path(refused["moved"].rsplit("See ", 1)[1].rstrip("."))
    assert picture.exists() and (tmp_path/"set"/"good.png").exists()
    assert facts["layout"] == "ours" and facts["outside"] < .05 and facts["scale"] == 1
    assert "moved refused:" in capsys.readouterr().out


def without(params, *names):
    return {name: value for name, value in params.items() if name not in names}


def save_thuman(folder: Path, arrays, params, faces):
    "A scan of 4 mm of cloth around a body, in THuman's format."
    body, _ = pose_smpl(SmplBody(arrays), **without(params, "scale", "translation"))
    for sub in ("THuman2.0/0007", "THuman2.0_smplx/0007"): (folder/sub).mkdir(parents=True)
    scan = trimesh.Trimesh(body.numpy(), faces, process=False)
    scan.vertices = (scan.vertices + .004*scan.vertex_normals) * .4 + [1, 2, 3]
    scan.visual.vertex_colors = np.random.default_rng(1).integers(0, 255, (len(body), 4), dtype=np.uint8)
    scan.export(folder/"THuman2.0/0007/0007.obj")
    (folder/"THuman2.0_smplx/0007/smplx_param.pkl").write_bytes(pickle.dumps(params))


def test_a_dataset_on_the_users_own_smplx_model(tmp_path):
    skin, rng = load_anny().model, np.random.default_rng(0)
    template, faces = simplify(skin.canonical.numpy(), skin.faces.numpy(), target_count=6000)
    arrays = stand_in("smplx", template, faces, shapes=20)
    (tmp_path/"models").mkdir()
    np.savez(tmp_path/"models"/"SMPLX_MALE.npz", **arrays)
    sizes = dict(betas=10, body_pose=63, left_hand_pose=12, right_hand_pose=12)
    params = {name: rng.normal(size=(1, n)) * .02 for name, n in sizes.items()}
    params |= dict(global_orient=np.array([[0, 2., 0]]), scale=np.array([.4]), translation=np.array([1., 2, 3]))
    save_thuman(tmp_path/"set", arrays, params, faces)
    options = dict(body_model="smplx", body_file=str(tmp_path/"models"))
    index = main(BuildDataset(source=str(tmp_path/"set"), data_root=str(tmp_path/"data.h5"), **options, **SMALL))
    with h5py.File(index) as file:
        assert file.attrs["body_name"] == "smplx" and np.array_equal(file.attrs["body_faces"], faces)
        assert np.allclose(file.attrs["body_canonical"], template, atol=1e-6)
        facts, posed = json.loads(file["0007"].attrs["facts"]), file["0007/smpl_v"][:]
    upright, joints = pose_smpl(SmplBody(arrays), **without(params, "scale", "translation", "global_orient"))
    assert np.allclose(posed / facts["scale"] + facts["center"], upright - joints[0], atol=1e-4)
    assert facts["layout"] == "thuman" and facts["body"] == "given" and facts["outside"] == 0


def test_bodies_of_two_kinds_do_not_mix(tmp_path):
    cfg = BuildDataset(source="people", body_model="smplx", data_root=str(tmp_path/"both.h5"))
    with pytest.raises(ValueError, match="Anny's body"): main(cfg)


NAMES = [
    (["p.obj", "p.PLY"], ["p_obj", "p_ply"]),
    (["a/p.obj", "b/p.obj"], ["a_p", "b_p"]),
    (["a/b.obj", "c/b.obj", "a_b.obj"], ["a_b", "a_b_2", "c_b"]),
    (["p.obj", "p.glb", "p_obj.obj"], ["p_glb", "p_obj", "p_obj_2"]),
    (["a/mesh.obj", "a/b/mesh.obj", "a_b/mesh.obj"], ["a_b_mesh_obj", "a_b_mesh_obj_2", "a_mesh"]),
    (["p.obj", "p.OBJ"], ["p_obj", "p_obj_2"]),
    (["__MACOSX/._p.obj", "._p.obj", "p.obj"], ["p"]),
]


@pytest.mark.parametrize("files,names", NAMES)
def test_every_scan_has_a_name_of_its_own(tmp_path, files, names, capsys):
    "Files of one name, in one folder and in several; one that has the name which another is given."
    from recon.data.formats.registry import find_scans

    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("v 0 0 0\n")
    assert sorted(scan.name for scan in find_scans(tmp_path)) == names
    said = capsys.readouterr().out
    assert all(name in said for name in names if name.endswith("_2"))


def test_a_name_that_is_no_text_is_refused():
    from recon.data.names import check_name

    with pytest.raises(ValueError, match="bytes that are no letters of UTF-8"):
        check_name("caf\udce9", "scans")
    assert check_name("caf\u00e9") == "caf\u00e9"
