"Watching a run: validation, Weights & Biases, and what a notebook shows while it trains."

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import nbformat
import pytest
import torch
from browser import KERNEL, open_notebook, ours, run_until
from conftest import BIN, ROOT
from nbformat.v4 import new_code_cell, new_notebook
from processes import run_python

TINY = dict(
    preset="demo",
    mixed_precision="no",
    epochs=2,
    image_size=64,
    num_samples=256,
    num_normals=64,
    batch_size=2,
    workers=0,
    log_every=1,
    save_every=100,
    nrm_channels=8,
    nrm_blocks=1,
    encoder_channels=16,
    color_channels=16,
    hidden_dim=32,
    rgb_hidden_dim=16,
    valid_every=2,
    num_valid_samples=1,
    grid_size=32,
)


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    "A dataset of balls: four to train on, two to validate on, one to measure."
    from recon.testing import ball_subject
    from recon.data.writer import write_index, write_subject

    folder, names = tmp_path_factory.mktemp("balls"), list("abcdefg")
    for name in names:
        subject, body = ball_subject(name)
        write_subject(
            folder / "subjects" / f"{name}.h5", subject, body, views=4, size=64, points=2000, keep_scan=name in "efg"
        )
    write_index(
        folder / "balls.h5",
        [folder / "subjects" / f"{name}.h5" for name in names],
        body,
        dict(train=names[:4], valid=["e", "g"], test=["f"]),
    )
    return folder / "balls.h5"


def train(balls, root, step, on_log=None, **options):
    "A run of one step in this process."
    from recon.train_full import TrainFull, main as train_full
    from recon.train_normal import TrainNormal, main as train_normal

    kind, main = (TrainNormal, train_normal) if step == 1 else (TrainFull, train_full)
    given = (
        TINY
        | dict(data_root=str(balls), save_root=str(root))
        | (dict(use_pred_nrm=True) if step == 3 else {})
        | options
    )
    return main(kind.resolve(given), on_log)


def weights(run):
    from recon.runs.checkpoint import find_checkpoint

    return find_checkpoint(run.folder).weights()


@pytest.fixture(scope="module")
def runs(balls, tmp_path_factory):
    "All three steps, one after the other, step 3 with Weights & Biases offline."
    root = tmp_path_factory.mktemp("runs")
    return {step: train(balls, root, step, wandb=step == 3) for step in (1, 2, 3)}


def validations(run):
    return [line for line in run.lines if "valid" in line]


def test_every_step_validates_on_the_people_held_apart(runs):
    given = {1: set(), 2: {"true", "pred"}, 3: {"pred"}}
    for step, run in runs.items():
        lines = validations(run)
        assert [line["epoch"] for line in lines] == [2] and all(line["valid_people"] == 1 for line in lines)
        assert all("valid_pred_normal_deg" in line and "degrees" in line["card"] for line in lines)
        numbers = {"p2s", "s2p", "nc", "fscore", "color_255"}
        assert all(f"valid_{kind}_{number}" in lines[-1] for kind in given[step] for number in numbers)
        folder = run.folder / "valid" / "0002"
        assert (folder / "preview.jpg").stat().st_size < 250_000 and (folder / "e.glb").exists() == (step > 1)
    kinds = {name.split("_")[1] for name in validations(runs[3])[-1] if name.endswith("_p2s")}
    assert kinds == {"pred"}, "step 3 has no other normals than its own"
    assert validations(runs[1])[-1]["valid_pred_normal_deg"] == validations(runs[2])[-1]["valid_pred_normal_deg"], (
        "step 2 borrows the predictor of step 1"
    )


def test_validation_leaves_training_as_it_is(balls, tmp_path):
    "With and without it, to the last bit; with fewer steps, in step 3."
    some = dict(epochs=2, valid_every=1, resume="", valid_folder="")
    seen, unseen = (weights(train(balls, tmp_path / str(valid), 3, valid=valid, **some)) for valid in (True, False))
    assert all(torch.equal(seen[name], unseen[name]) for name in seen)


def test_its_number_goes_to_the_loop_as_the_one_to_choose_by(balls, tmp_path, monkeypatch):
    from recon.training.loop import Trainer

    saved = []
    keep = Trainer.save

    def save(self, metric=None, name="validation"):
        saved.append((self.global_step, metric))
        return keep(self, metric, name)

    monkeypatch.setattr(Trainer, "save", save)
    run = train(balls, tmp_path, 1, epochs=4)
    expected = [(line["step"], line["valid_pred_normal_deg"]) for line in validations(run)]
    assert [pair for pair in saved if pair[1] is not None] == expected and len(expected) == 2


def test_a_prepared_folder_with_scans_is_measured_too(balls, tmp_path):
    from recon.data.prepared import write_prepared
    from recon.data.reader import ReconDataset

    write_prepared(tmp_path / "people", ReconDataset(balls, 64, 1, split="test", lighting=0.8), "f")
    lines = {
        step: validations(train(balls, tmp_path, step, epochs=1, valid_folder=str(tmp_path / "people")))[-1]
        for step in (1, 2)
    }
    held = validations(train(balls, tmp_path, 1, epochs=1, exp_name="dataset"))[-1]
    assert abs(lines[1]["valid_pred_normal_deg"] - held["valid_pred_normal_deg"]) < 3, (
        "normals drawn from the scan, against those of the dataset's same ball"
    )
    assert {"valid_true_p2s", "valid_pred_p2s"} <= set(lines[2]) and "valid_true_color_255" not in lines[2]


def test_nobody_to_validate_on_is_said(balls, tmp_path, capsys):
    import h5py

    alone = tmp_path / "alone.h5"
    with h5py.File(balls) as source, h5py.File(alone, "w", libver="latest") as file:
        for name in source:
            file[name] = h5py.ExternalLink(balls.parent / "subjects" / f"{name}.h5", f"/{name}")
        file.attrs.update(dict(source.attrs) | dict(split=json.dumps(dict(train=list("abcd"), test=["f"]))))
    run = train(alone, tmp_path, 1, epochs=1)
    assert not validations(run) and "has no subjects set aside" in capsys.readouterr().out


def records(path):
    "What wandb wrote: its records, from a log of 32 KiB blocks."
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def test_what_weights_and_biases_wrote_offline(runs):
    (run,) = (runs[3].folder / "wandb").glob("offline-run-*/run-*.wandb")
    found = list(records(run))
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in r.history.item}
        for r in found
        if r.HasField("history")
    ]
    by_step = {row["_step"]: row for row in history}
    for line in runs[3].lines:
        if "sdf" in line:
            assert by_step[line["step"]]["loss/sdf"] == pytest.approx(line["sdf"])
    first, last = by_step[1], by_step[max(by_step)]
    groups = [name.removeprefix("grad_") for name in runs[3].lines[0] if name.startswith("grad_")]
    assert len(groups) >= 3, "decoder, encoder and predictor"
    assert {f"{kind}/{name}" for kind in ("lr", "grad") for name in groups} | {
        "speed/people",
        "speed/wait",
        "loss/2D",
    } <= set(first)
    assert last["valid/pred_p2s"] == pytest.approx(validations(runs[3])[-1]["valid_pred_p2s"])
    assert last["validation/_type"] == "image-file" and last["mesh/e/_type"] == "object3D-file"
    media = run.parent / "files"
    assert (media / last["validation/path"]).stat().st_size > 1000 and (media / last["mesh/e/path"]).read_bytes()[
        :4
    ] == b"glTF"
    notebooks = [r.artifact.name for r in found if r.HasField("artifact")] + [
        r.request.log_artifact.artifact.name for r in found if r.HasField("request")
    ]
    assert any("02_train_full" in name for name in notebooks), notebooks


@pytest.mark.parametrize("trouble", ["a server that answers nothing", "no package", "disk full"])
def test_trouble_with_it_ends_no_run(balls, tmp_path, trouble, monkeypatch, capsys):
    "The run's own log is whole, and so are its weights."
    import wandb

    if trouble == "a server that answers nothing":
        silent = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=lambda: [silent.accept() for _ in range(1000)], daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.delenv("WANDB_MODE")
        start = wandb.init

        def init(mode, **how):  # as wandb ends it after init_timeout
            if mode == "online":
                raise TimeoutError("no answer in 30 s")
            return start(mode=mode, **how)

        monkeypatch.setattr(wandb, "init", init)
    elif trouble == "no package":
        monkeypatch.setitem(sys.modules, "wandb", None)
    else:
        monkeypatch.setattr(
            wandb.Run, "log", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
    run = train(balls, tmp_path, 1, epochs=2, wandb=True)
    said = capsys.readouterr().out
    assert [line["step"] for line in run.lines if "2D" in line] == [1, 2, 3, 4] and weights(run)
    assert {
        "a server that answers nothing": "offline",
        "no package": "ModuleNotFoundError",
        "disk full": "No space left",
    }[trouble] in said


def test_ctrl_c_in_a_validation_loses_nothing(balls, tmp_path):
    "It stops after the person in hand; typed again, the run goes on with the validation it owes."
    words = [
        word
        for name, value in (
            TINY
            | dict(
                epochs=4,
                valid_every=3,
                num_valid_samples=2,
                grid_size=64,
                data_root=balls,
                save_root=tmp_path,
                exp_name="x",
                resume="auto",
            )
        ).items()
        for word in (f"--{name}", str(value))
    ]
    command = [sys.executable, "-m", "recon.train_full", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    said = b""
    while b"validation:" not in said and (chunk := process.stdout.read1(400)):
        said += chunk
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=120)[0]
    assert process.returncode == 0 and b"validation of epoch 3 interrupted" in said and b"go on from here" in said, (
        said[-2000:]
    )
    from recon.runs.run import Run

    assert not validations(Run(tmp_path / "x")) and Run(tmp_path / "x").lines[-1]["step"] == 6
    again = run_python(command[1:], ROOT, os.environ | {"PYTHONPATH": str(ROOT)})
    assert again.returncode == 0, again.stderr[-2000:]
    assert [(line["epoch"], line["step"]) for line in validations(Run(tmp_path / "x"))] == [(3, 6), (4, 8)]
    assert [line["step"] for line in Run(tmp_path / "x").lines if "sdf" in line] == list(range(1, 9))


def test_step_3_beside_step_2(runs):
    "The table that the notebook ends with: on predicted normals, the same person in both, the difference last."
    from recon.training.results import compare_with_stage_2

    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in compare_with_stage_2(runs[3], resolution=48).splitlines()
        if line.startswith("| ")
    ]
    mean = {row[0]: float(row[1].split()[0]) for row in rows[1:]}
    assert list(mean) == ["stage 3", "stage 2", "stage 3 − stage 2"]
    assert mean["stage 3 − stage 2"] == pytest.approx(mean["stage 3"] - mean["stage 2"], abs=0.011)
    degrees = {row[0]: float(row[rows[0].index("normals °")].split()[0]) for row in rows[1:3]}
    assert degrees["stage 2"] > degrees["stage 3"], "step 3 goes on training the predictor that step 2 is tried with"


LIVE = """
import time
from recon.viz.live import LiveCurves
curves = LiveCurves(every=0.)
for step in range(1, 60):
    curves(step, {"sdf": 1/step}); curves(step, {"P2S": 50/step}, "distances ×1000"); time.sleep(.25)
curves.close()
"""


def test_curves_grow_in_place_in_a_browser(page, lab, project):
    nbformat.write(new_notebook(cells=[new_code_cell(LIVE)], metadata=KERNEL), project / "live.ipynb")
    open_notebook(page, lab, "live.ipynb")
    run_until(page, ".jp-OutputArea img", ended=False)
    source = "document.querySelector('.jp-OutputArea img').src"
    seen = {page.evaluate(source)}
    for _ in range(2):
        page.wait_for_function(
            f"old => document.querySelector('.js-plotly-plot') || !old.includes({source})", arg=list(seen)
        )
        if not page.locator(".js-plotly-plot").count():
            seen.add(page.evaluate(source))
    page.wait_for_selector(".js-plotly-plot")
    assert len(seen) >= 2, "the picture did not change while the cell ran"
    assert page.evaluate("document.querySelector('.js-plotly-plot').data.map(trace => trace.x.length)") == [59, 59]
    assert page.locator(".jp-OutputArea-output").count() == 1, "one output, replaced in place"
    assert not ours(page.wrong)


def test_the_executed_copy_keeps_curves_previews_and_table(balls, tmp_path, runs, kernels):
    "Step 3 through papermill."
    given = TINY | dict(data_root=balls, save_root=tmp_path, use_pred_nrm=True, resume=runs[2].folder, epochs=2)
    options = [word for name, value in given.items() for word in ("-p", name, str(value))]
    done = subprocess.run(
        [BIN / "papermill", "nbs/02_train_full.ipynb", tmp_path / "done.ipynb", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = [output for cell in nbformat.read(tmp_path / "done.ipynb", 4).cells for output in cell.get("outputs", [])]
    figures = [
        output.data["application/vnd.plotly.v1+json"]
        for output in outputs
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    ]
    curves = next(
        {trace["name"]: trace["x"] for trace in figure["data"]}
        for figure in figures
        if figure["data"][0]["type"] == "scatter"
    )
    assert curves["sdf"] == [1, 2, 3, 4] and curves["P2S ×1000, predicted"] == [4]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 1, "one preview, the newest"
    live = [len(json.dumps(output)) for output in outputs if {"image/jpeg", "image/png"} & set(output.get("data", {}))]
    assert max(live + [len(json.dumps(curves))]) < 250_000
    assert "No stage 2" in "".join(output.get("data", {}).get("text/markdown", "") for output in outputs), (
        "no step 2 lies in this folder"
    )
