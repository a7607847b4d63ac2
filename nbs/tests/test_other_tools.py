"Scans and prepared folders as the tools of others write them: read as they are meant, or refused by name."
import numpy as np
import pytest
import torch
from conftest import ROOT

from recon.data.formats.registry import find_scans
from recon.data.prepared import PreparedFolder
from recon.data.scan import load_mesh

CASES = ROOT.parent/"shared"/"cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="no files of other tools at hand")


def case(number):
    return next(CASES.glob(f"{number}-*"))


def load(number):
    files = find_scans(case(number))[0]
    return load_mesh(files.mesh, files.texture)


def face_colors(mesh):
    "Colours (F,3) in the middle of the faces, and the middles (F,3)."
    faces = torch.from_numpy(mesh.faces)
    if isinstance(mesh.colors, torch.Tensor): colors = mesh.colors[faces].mean(1)
    else: colors = mesh.colors(torch.arange(len(faces)), torch.full((len(faces), 3), 1/3))
    return colors.numpy(), mesh.vertices[mesh.faces].mean(1)


def place_colors(places):
    "The person of the cases is coloured by place."
    return np.stack([(places[:, 0] + 1)/2, (places[:, 1] + 1)/2, np.full(len(places), .5)], 1)


@pytest.mark.parametrize("number", ["01", "03", "04", "05", "07", "11"])
def test_colours_are_where_they_belong(number):
    colors, places = face_colors(load(number))
    error = np.abs(colors - place_colors(places))
    assert error.mean() < .005 and np.quantile(error, .99) < .01


def test_a_plain_material_beside_an_image_keeps_its_colour():
    colors, places = face_colors(load("08"))
    plain = np.abs(colors - [.8, .1, .1]).max(1) < 1e-3
    assert .3 < plain.mean() < .5
    assert np.abs(colors - place_colors(places))[~plain].mean() < .005


def test_a_missing_image_is_named():
    with pytest.raises(ValueError, match="names the image .trousers.png., which is not there"): load("09")


def test_a_vertex_that_no_face_uses_does_not_count():
    mesh = load("11")
    assert np.ptp(mesh.vertices[:, 1]) < 2 and len(mesh.vertices) == 3464


@pytest.fixture(scope="module")
def anny():
    from recon.body.anny import load_anny

    return load_anny().model


def item(folder, anny, **options):
    return PreparedFolder(folder, anny.faces, len(anny.canonical), 256, **options).item("casual")


@pytest.mark.parametrize("number", ["21", "22", "23"])
def test_prepared_folders_of_others_give_the_item_of_ours(number, anny, capsys):
    ours, theirs = item(ROOT/"data"/"examples", anny), item(case(number), anny)
    assert set(ours) == set(theirs)
    for name in ("front_mask", "back_mask", "front_rgb_img", "back_rgb_img", "smpl_v", "body_z"):
        assert float((ours[name] - theirs[name]).abs().mean()) < .01, name
    assert float(theirs["front_mask"].max()) <= 1


def test_a_back_image_as_its_camera_sees_it_is_flipped_and_that_is_said(anny, tmp_path, capsys):
    import shutil

    import cv2

    folder = shutil.copytree(case("23"), tmp_path/"people", copy_function=shutil.copyfile)
    for path in folder.rglob("*"): path.chmod(0o755)
    back = folder/"back_images"/"casual_000.png"
    cv2.imwrite(str(back), cv2.imread(str(back))[:, ::-1])
    ours, theirs = item(ROOT/"data"/"examples", anny), item(folder, anny)
    assert float((ours["back_rgb_img"] - theirs["back_rgb_img"]).abs().mean()) < .01
    assert "flipped onto the front" in capsys.readouterr().out


def test_a_body_in_another_unit_or_place_is_refused(anny, tmp_path):
    import shutil

    import trimesh

    with pytest.raises(ValueError, match="body and mask do not overlap.*centimetres"): item(case("24"), anny)
    folder = shutil.copytree(ROOT/"data"/"examples", tmp_path/"people")
    body = folder/"body"/"casual.ply"
    vertices = trimesh.load(body, process=False).vertices
    for wrong in (vertices + [.4, 0, 0], vertices*.1, vertices + [0, .9, 0]):
        trimesh.PointCloud(wrong).export(body)
        with pytest.raises(ValueError, match="body and mask do not overlap"): item(folder, anny)


def test_the_body_of_a_sith_dataset_comes_from_a_file(tmp_path):
    "SiTH's files hold posed vertices, but neither faces nor rest pose."
    import h5py

    from recon.data import ReconDataset

    path = ROOT.parent/"shared"/"sith"/"mini.h5"
    with h5py.File(path) as file:
        group = file[next(iter(file))]
        vertices, faces = group["smpl_v"].shape[0], group["vis"].shape[1]
    assert ReconDataset(path, 64, 16).body_faces is None
    lines = [f"v {k} 0 1" for k in range(vertices)]
    lines += [f"f {k % (vertices - 2) + 1} {k % (vertices - 2) + 2} {k % (vertices - 2) + 3}" for k in range(faces)]
    (tmp_path/"rest.obj").write_text("\n".join(lines))
    data = ReconDataset(path, 64, 16, body_file=str(tmp_path/"rest.obj"))
    assert data.body_faces.shape == (faces, 3) and data.canonical[5, 0] == 5
    (tmp_path/"rest.obj").write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match=f"{faces - 1} faces; the dataset's has"):
        ReconDataset(path, 64, 16, body_file=str(tmp_path/"rest.obj"))
