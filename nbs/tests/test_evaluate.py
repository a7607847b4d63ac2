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
        assert lines[number]["low"] == lines[number]["high"] == "nan", "two subjects have no interval"
        assert lines[number]["n"] == "2"
    for written in (text, (tmp_path/"m.tex").read_text()):
        for field in ("protocol: rigid", "alignment: samples", "seed: 0", "interval: 95 %", "versions: recon"):
            assert field in written
    cli([*folders, "--images", "--render_size", "192"])
    assert (tmp_path/"m.csv").read_text() == text, "the same seed gives the same numbers"


def test_published_numbers_stand_only_beside_their_like(folders, capsys):
    from recon.evaluate import cli
    inputs = ["--normals", "predicted", "--body", "fitted", "--back_view", "hallucinated"]
    alike = ["--protocol", "sith", "--unit", "m", *inputs]
    cli([*folders, *alike, "--published"])
    assert "SiTH (published, 60 CustomHumans scans) | 18.71 |" in capsys.readouterr().out
    unlike = {
        "unit is the meshes' own": ["--protocol", "sith", *inputs],
        "protocol is exact": ["--unit", "m", "--protocol", "exact", *inputs],
        "alignment is samples, theirs vertices": ["--unit", "m", *inputs],
        "alignment is none": [*alike, "--no-align"],
        "normals is unknown, theirs predicted; body is unknown": ["--protocol", "sith", "--unit", "m"],
        "back_view is unknown, theirs hallucinated": alike[:-2],
        "body is true, theirs fitted": [*alike, "--body", "true"],
    }
    for reason, options in unlike.items():
        with pytest.raises(SystemExit): cli([*folders, "--published", *options])
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "option,value,allowed",
    [
        ("protocol", "sit", "one of rigid, sith, exact; the nearest is 'sith'"),
        ("seed", -1, "int at least 0"),
        ("render_size", 0, "int at least 16 and at most 8192"),
        ("render_size", 10**9, "at most 8192"),
        ("normals", "tru", "the nearest is 'true'"),
        ("align", "maybe", "bool"),
    ],
)
def test_options_outside_their_limits_are_refused(option, value, allowed):
    "Before anything is opened."
    from recon.evaluate import Evaluate
    with pytest.raises(ValueError, match=f"{option} = .*expected .*{allowed}"): Evaluate.resolve({option: value})


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
    assert "| bare body | 20.00 |" in report, "one subject has no interval"
    assert "**The model does not beat the bare body in s2p, nc, fscore, iou, iou_front, iou_side.**" in report


def test_the_leaderboard_runs_on_ones_own_evaluations(folders, tmp_path, kernels):
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


def test_a_subject_that_fails_is_listed_and_the_others_are_measured(folders, tmp_path, capsys):
    from recon.evaluate import cli
    (tmp_path/"results"/"b.glb").write_bytes(b"no mesh")
    with pytest.raises(SystemExit) as stopped: cli(folders)
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    assert "1 of 2 subjects could not be measured: b: " in shown.err
    assert "**Not measured: b: " in shown.out
    found = json.loads((tmp_path/"m.json").read_text())
    assert (list(found["people"]), list(found["failed"]), found["n"], found["card"]["n"]) == (["a"], ["b"], 1, 1)


def test_the_original_alignment_scales_and_says_so(folders, tmp_path, capsys):
    "Results are 2 % larger than their scans: SiTH's evaluation undoes that, ours does not."
    from recon.evaluate import cli
    cli([*folders, "--protocol", "sith"])
    sith = json.loads((tmp_path/"m.json").read_text())
    assert "scale found" in capsys.readouterr().out
    procedure = [sith["card"][f"alignment{part}"] for part in ("", "_scale", "_reflection", "_iterations")]
    assert procedure == ["vertices", True, True, 20]
    for row in sith["people"].values(): assert abs(row["scale"] - 1/1.02) < 1e-3
    cli(folders)
    rigid = json.loads((tmp_path/"m.json").read_text())
    for name, radius in SIZES.items():
        assert abs(rigid["people"][name]["p2s"] - .02*radius) < .004 and "scale" not in rigid["people"][name]
        assert sith["people"][name]["p2s"] < rigid["people"][name]["p2s"]


@pytest.fixture
def reconstructed(tmp_path):
    "Two balls of a dataset called people.h5, reconstructed; a run that made the meshes and a newer one."
    from recon.testing import ball_subject
    from recon.data.writer import write_index, write_subject
    from recon.nets.model import ModelOptions, Reconstructor
    from recon.runs.checkpoint import save_checkpoint
    files = [tmp_path/"subjects"/f"{name}.h5" for name in SIZES]
    for file in files:
        subject, body = ball_subject(file.stem)
        write_subject(file, subject, body, views=4, size=64, points=4000, keep_scan=True)
    write_index(tmp_path/"people.h5", files, body, dict(train=["a"], test=["b"]))
    sizes = ModelOptions(nrm_channels=8, nrm_blocks=1, encoder_channels=16, color_channels=16, hidden_dim=8)
    config = dict(data_root=str(tmp_path/"people.h5"), image_size=64)
    for run in ("used", "newer"):
        metadata = dict(step=2, epoch=1, global_step=1, config=config)
        save_checkpoint(tmp_path/run/"checkpoints", Reconstructor(sizes), {}, metadata)
    (tmp_path/"meshes").mkdir()
    for name in SIZES: trimesh.creation.icosphere(3, .58).export(tmp_path/"meshes"/f"{name}.glb")
    return dict(results=str(tmp_path/"meshes"), data_root=str(tmp_path/"people.h5"), save=str(tmp_path/"m.json"))


def test_the_card_says_only_what_files_record(reconstructed, tmp_path, capsys):
    from recon.evaluate import Evaluate, main
    card = main(Evaluate(**reconstructed))["card"]
    assert (card["model"], card["normals"], card["body"], card["trained_on"]) == ("unknown",)*4
    assert card["split"] == "test of 1, train of 1" and "procedural" not in str(card)
    assert "predicted normals are not measured: the meshes name no common model" in capsys.readouterr().out
    used = str(tmp_path/"used"/"checkpoints"/"0000001")
    for name in SIZES:
        made = dict(view=0, true_normals=False, model=used)
        (tmp_path/"meshes"/f"{name}.json").write_text(json.dumps(made))
    found = main(Evaluate(**reconstructed))
    assert (found["card"]["model"], found["card"]["predictor"]) == (used, f"{used}, step 1, which made the meshes")
    assert (found["card"]["normals"], found["card"]["trained_on"]) == ("predicted", "some")
    other = main(Evaluate(**reconstructed, model=str(tmp_path/"newer")))["card"]
    assert other["model"] == used and other["predictor"].startswith(str(tmp_path/"newer"))


def test_a_damaged_reconstruction_does_not_stop_the_others(reconstructed, tmp_path):
    from recon.evaluate import Evaluate, main
    (tmp_path/"meshes"/"b.glb").write_bytes(b"no mesh")
    found = main(Evaluate(**reconstructed))
    assert (list(found["people"]), list(found["failed"])) == (["a"], ["b"])


def test_a_sith_file_is_a_model_for_reconstruction_and_evaluation(reconstructed, tmp_path, monkeypatch):
    "Of small networks in place of the published ones."
    from recon.evaluate import Evaluate, main
    from recon.nets.model import ModelOptions, Reconstructor
    from recon.reconstruct import Reconstruct
    from recon.reconstruct import main as reconstruct
    from recon.runs import sith
    tiny = dict(nrm_channels=8, nrm_blocks=1, encoder_channels=16, color_channels=16, hidden_dim=8)
    sizes = ModelOptions(**tiny, residual_sdf=True)               # before training the surface is the body's
    networks = {name: (lambda name=name: getattr(Reconstructor(sizes), name)) for name in sith.PUBLISHED_NETWORKS}
    monkeypatch.setattr(sith, "PUBLISHED_NETWORKS", networks)
    monkeypatch.setattr(sith.SithCheckpoint, "options", property(lambda self: sizes))
    monkeypatch.setattr(sith.SithCheckpoint, "config", property(lambda self: dict(image_size=64)))
    sith.save(tmp_path/"model.pth", Reconstructor(sizes), epoch=4, global_step=40)
    cfg = Reconstruct(model=str(tmp_path/"model.pth"), save_root=str(tmp_path/"05"), resolution=32, split="")
    cfg.data_root = reconstructed["data_root"]
    meshes = reconstruct(cfg)
    found = main(Evaluate(**reconstructed | dict(results=cfg.save_root)))
    assert list(found["people"]) == list(meshes) and found["normal_error_deg"] > 0
    assert found["card"]["predictor"] == f"{tmp_path/'model.pth'}, step 40, which made the meshes"
    sith.save(tmp_path/"model.pth", Reconstructor(sizes))
    card = main(Evaluate(**reconstructed | dict(results=cfg.save_root)))["card"]
    assert card["predictor"] is None, "the file holds other weights by now"
