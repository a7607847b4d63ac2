"Two folders of meshes measured from the command line; what is written, refused and compared."
import csv
import json
import subprocess

import numpy as np
import pytest
import trimesh
from conftest import BIN, ROOT

SIZES = {"b": .5, "a": .4}


def painted(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=[200, 100, 50], process=False)


@pytest.fixture
def folders(tmp_path):
    "Balls and results that are 2 % larger, in two formats; scans in folders of their own; orders differ."
    (tmp_path/"results").mkdir()
    for name, radius in SIZES.items():
        ball = trimesh.creation.icosphere(3, radius)
        (tmp_path/"scans"/name).mkdir(parents=True)
        painted(ball).export(tmp_path/"scans"/name/f"{name}.ply")
        painted(ball.apply_scale(1.02)).export(tmp_path/"results"/f"{name}.{'ply' if name == 'a' else 'glb'}")
    return ["-i", str(tmp_path/"results"), "-g", str(tmp_path/"scans"), "--save", str(tmp_path/"m.json")]


def test_folders_are_paired_by_id(folders, tmp_path, capsys):
    from recon.evaluate import cli
    cli([*folders, "--protocol", "exact"])
    found = json.loads((tmp_path/"m.json").read_text())
    for name, radius in SIZES.items():
        assert abs(found["people"][name]["p2s"] - .02*radius) < 5e-4
        assert abs(found["people"][name]["volume_iou"] - 1/1.02**3) < .01
    assert "over 2 pairs; protocol exact" in capsys.readouterr().out
    (tmp_path/"results"/"a.ply").unlink()
    with pytest.raises(SystemExit): cli(folders)
    assert "no partner for a (only in" in capsys.readouterr().err


def test_tables_lie_beside_the_numbers_with_their_card(folders, tmp_path):
    from recon.evaluate import cli
    cli([*folders, "--images", "--render_size", "192"])
    found = json.loads((tmp_path/"m.json").read_text())
    text = (tmp_path/"m.csv").read_text()
    plain = [line for line in text.splitlines() if not line.startswith("#")]
    lines = {line["number"]: line for line in csv.DictReader(plain)}
    for number in ("p2s", "view_normal_deg", "view_psnr"):
        values = [row[number] for row in found["people"].values()]
        assert float(lines[number]["mean"]) == np.mean(values) == found["model"][number]
        low, high = (float(lines[number][end]) for end in ("low", "high"))
        assert min(values) <= low <= high <= max(values)
        assert lines[number]["n"] == "2"
    for written in (text, (tmp_path/"m.tex").read_text()):
        for field in ("protocol: sith", "alignment: icp", "seed: 0", "interval: 95 %", "versions: recon"):
            assert field in written
    cli([*folders, "--images", "--render_size", "192"])
    assert (tmp_path/"m.csv").read_text() == text, "the same seed gives the same numbers"


def test_published_numbers_stand_only_beside_their_like(folders, capsys):
    from recon.evaluate import cli
    cli([*folders, "--unit", "m", "--published"])
    assert "SiTH (published, 60 CustomHumans scans) | 18.71 |" in capsys.readouterr().out
    unlike = {
        "unit is the meshes' own": [],
        "protocol is exact": ["--unit", "m", "--protocol", "exact"],
        "alignment is none": ["--unit", "m", "--no-align"],
    }
    for reason, options in unlike.items():
        with pytest.raises(SystemExit): cli([*folders, "--published", *options])
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("what", ["lpips", "kid"])
def test_a_missing_network_is_an_error_that_says_what_is_expected(folders, what, capsys):
    from recon.evaluate import cli
    with pytest.raises(SystemExit): cli([*folders, f"--{what}", "none.pt"])
    error = capsys.readouterr().err
    assert "none.pt: no such file; expected a TorchScript file" in error
    assert "nothing is fetched" in error


def test_what_cannot_be_measured_is_a_dash(folders, tmp_path, capsys):
    "An open mesh has no volume; the other one still has."
    from recon.evaluate import cli
    mesh = trimesh.load(tmp_path/"results"/"b.glb", force="mesh")
    trimesh.Trimesh(mesh.vertices, mesh.faces[1:], process=False).export(tmp_path/"results"/"b.glb")
    cli([*folders, "--protocol", "exact"])
    found = json.loads((tmp_path/"m.json").read_text())
    assert found["people"]["b"]["volume_iou"] is None
    assert found["model"]["volume_iou"] == found["people"]["a"]["volume_iou"]
    assert "(1 of 2)" in capsys.readouterr().out


def test_numbers_written_before_there_were_parts_are_still_read():
    from recon.runs.evaluation import format_report
    row = dict(p2s=.01, s2p=.012, nc=.9, fscore=60., iou=.9, iou_front=.95, iou_side=.9)
    body = row | dict(p2s=.02, nc=.95)
    card = dict(protocol="sith", alignment="icp", samples=100_000, seed=0, unit="half the cube [-1,1]^3 = 1")
    card["inflated"] = None
    subject = dict(model=row, body=body, label="", normal_error_deg=20.)
    report = format_report(dict(n=1, model=row, body=body, normal_error_deg=20., card=card, people={"x": subject}))
    assert "| bare body | 20.00 [20.00, 20.00] |" in report
    assert "**The model does not beat the bare body in s2p, nc, fscore, iou, iou_front, iou_side.**" in report


def test_the_leaderboard_runs_on_ones_own_evaluations(folders, tmp_path):
    from recon.evaluate import cli
    for name, scale in dict(one=1., other=1.05).items():
        for path in (tmp_path/"results").iterdir():
            trimesh.load(path, force="mesh", process=False).apply_scale(scale).export(path)
        saved = str(tmp_path/name/"metrics.json")
        cli([*folders[:-1], saved, "--protocol", "exact", "--no-align"])
    notebook = ROOT/"nbs"/"runs"/"leaderboard.ipynb"
    evaluations = f"{tmp_path/'one'},{tmp_path/'other'}"
    command = [BIN/"papermill", notebook, tmp_path/"out.ipynb", "-p", "evaluations", evaluations]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    shown = json.loads((tmp_path/"out.ipynb").read_text())["cells"][-2]["outputs"][0]["data"]["text/markdown"]
    shown = "".join(shown)
    assert shown.index("**one** (reference)") < shown.index("**other**") and "| − one | +" in shown
