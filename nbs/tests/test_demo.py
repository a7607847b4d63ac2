"A miniature of the whole demo, and the commands that users of the field type."
import json
import os
import shutil
import subprocess
import threading
import time

import h5py
import numpy as np
import psutil
import pytest
import trimesh
from conftest import BIN, ROOT
from PIL import Image
from processes import Python, run_python

BUILD = dict(num_people=5, num_test=1, num_valid=1, resolution=96, size=64, nviews=4, nsamples=4000)
TRAIN = dict(epochs=3, image_size=64, num_samples=256, num_normals=64, batch_size=2, workers=0, save_every=1,
             log_every=1, valid_every=3, grid_size=48, nrm_channels=8, nrm_blocks=1, encoder_channels=16,
             color_channels=16, hidden_dim=32, rgb_hidden_dim=16)
SMALL = [word for name, value in TRAIN.items() for word in (f"--{name}", str(value))]


STAGES = ("00_build_dataset", "01_train_normal", "02_train_full", "02_train_full_pred", "05_reconstruct", "06_evaluate")
DEMO = f"from recon.tools.demo import main; main(build={BUILD}, train={TRAIN}, reconstruct=dict(resolution=64))"


def copied(folder):
    "The project as it is cloned, beside it."
    kept_out = shutil.ignore_patterns(".venv", ".git", "outputs", "people*", "cache", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=kept_out)
    (folder/"data").mkdir(exist_ok=True)
    if (ROOT/"data"/"cache").exists(): (folder/"data"/"cache").symlink_to(ROOT/"data"/"cache")
    (folder/"outputs").mkdir()
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory, kernels):
    "A copy of the project with the finished miniature demo in it."
    folder = copied(tmp_path_factory.mktemp("mini")/"recon")
    done = run_demo(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def run_demo(folder):
    return python(folder, "-c", DEMO)


def python(folder, *arguments, cwd=None):
    environment = {**os.environ, "PYTHONPATH": str(folder), "WANDB_MODE": "offline"}
    return run_python(arguments, cwd or folder, environment)


def script(folder, name, *arguments):
    "As SiTH's training page has it: from inside recon/."
    return python(folder, f"{name}.py", *arguments, cwd=folder/"recon")


def numbers(folder):
    return json.loads((folder/"outputs"/"demo"/"metrics.json").read_text())


def test_demo_ends_with_numbers_and_meshes(project):
    found = numbers(project)
    assert found["n"] == 1
    assert set(found["body"]) == set(found["model"]) >= {"p2s", "s2p", "nc", "fscore", "iou_front", "iou_side"}
    assert 0 < found["model"]["p2s"] < .2 and 0 < found["normal_error_deg"] < 120
    demo = project/"outputs"/"demo"
    assert len(list((demo/"05_reconstruct").glob("*.glb"))) == 1
    sheet = np.asarray(Image.open(next((demo/"05_reconstruct").glob("*.jpg"))))
    assert sheet.std() > 20, "the sheet shows the person"
    for name in STAGES: assert finished(project, name)
    assert "stage 3 − stage 2" in str(json.loads((demo/"02_train_full_pred.ipynb").read_text()))
    for name in ("01_train_normal", "02_train_full", "02_train_full_pred"):
        assert (demo/name/"valid"/"0003"/"preview.jpg").exists()
    times = json.loads((demo/"times.json").read_text())
    assert list(times) == list(STAGES) and all(seconds > 0 for seconds in times.values())


def test_half_a_minute_of_training_is_a_third_nearer_than_the_bare_body(project):
    "300 steps of stage 2 on three people of 64 pixels; measured on somebody held out, with true normals."
    made = project/"outputs"/"short"
    sizes = ["--image_size=64", "--encoder_channels=16", "--color_channels=16", "--hidden_dim=64",
             "--rgb_hidden_dim=16", "--nrm_channels=8", "--nrm_blocks=1"]
    steps = ["--epochs=300", "--batch_size=3", "--num_samples=1000", "--num_normals=64", "--workers=0",
             "--save_every=300", "--log_every=100", "--no_valid"]
    for command in (
        ["recon.train_full", "--preset=demo", "--resume=", "--save_root=outputs", "--exp_name=short", *sizes, *steps],
        ["recon.reconstruct", f"--model={made}", f"--save_root={made}/meshes", "--resolution=64", "--true_normals"],
        ["recon.evaluate", f"--results={made}/meshes", f"--save={made}/metrics.json"],
    ):
        done = python(project, "-m", *command)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((made/"metrics.json").read_text())
    for name in ("p2s", "s2p"): assert found["model"][name] < .67*found["body"][name], name
    assert found["model"]["nc"] > found["body"]["nc"]


def test_typed_again_it_changes_nothing(project):
    before = numbers(project)
    done = run_demo(project)
    assert done.returncode == 0 and done.stdout.count("finished already") == 6
    assert "Look at:" in done.stdout and "metrics.jpg" in done.stdout
    assert numbers(project) == before


# What a stage has written once it is at work; the last one writes nothing before its end.
TRACES = {
    "00_build_dataset": "data/people/*",
    "01_train_normal": "outputs/demo/01_train_normal/checkpoints/0*",
    "02_train_full": "outputs/demo/02_train_full/checkpoints/0*",
    "02_train_full_pred": "outputs/demo/02_train_full_pred/checkpoints/0*",
    "05_reconstruct": "outputs/demo/05_reconstruct/*",
    "06_evaluate": None,
}


def at_work(folder, demo, stage) -> bool:
    "Whether a stage has begun its work: files of its own, or more processor time than its imports take."
    if TRACES[stage]: return any(folder.glob(TRACES[stage]))
    kernels = psutil.Process(demo.pid).children(recursive=True)
    return sum(kernel.cpu_times().user for kernel in kernels if kernel.is_running()) > 6


def killed_demo(folder, stage, patience=400) -> bool:
    "Start the demo; kill -9 it and its kernel as soon as `stage` is at work. Whether that came before its end."
    kernels = {} if TRACES[stage] else dict(JUPYTER_PATH="")      # of its own, whose processor time can be seen
    demo = Python(["-c", DEMO], folder, {**os.environ, "PYTHONPATH": str(folder)} | kernels)
    end = time.monotonic() + patience
    def goes_on(): return demo.poll() is None and time.monotonic() < end
    while goes_on() and f"] {stage} (" not in demo.printed(): time.sleep(.1)
    while goes_on() and not at_work(folder, demo, stage): time.sleep(.02)
    assert at_work(folder, demo, stage), f"{stage} had not begun after {patience} seconds"
    killed = demo.poll() is None
    for process in [*psutil.Process(demo.pid).children(recursive=True), demo] if killed else []: process.kill()
    demo.wait()
    return killed


def finished(folder, stage) -> bool:
    "Whether the executed copy of a stage says that it came to its end."
    path = folder/"outputs"/"demo"/f"{stage}.ipynb"
    return path.exists() and json.loads(path.read_text())["metadata"]["papermill"].get("end_time") is not None


def test_killed_in_each_stage_it_ends_with_the_same_numbers(project, tmp_path):
    folder = copied(tmp_path/"recon")
    for stage in TRACES:
        assert killed_demo(folder, stage) and not finished(folder, stage), f"{stage} was over before it was killed"
    done = run_demo(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found, expected = numbers(folder), numbers(project)
    assert all(found[key] == expected[key] for key in ("n", "model", "body", "normal_error_deg"))


def test_a_lost_checkpoint_costs_no_more_than_itself(project):
    "As after a kill between two checkpoints of step 2: its newest one and all that came later are not there."
    before, demo = numbers(project), project/"outputs"/"demo"
    for name in STAGES[2:]: (demo/f"{name}.ipynb").unlink()
    newest = sorted((demo/"02_train_full"/"checkpoints").glob("0*"))[-1]
    shutil.rmtree(newest)
    for later in (demo/"02_train_full_pred", demo/"05_reconstruct"): shutil.rmtree(later)
    done = run_demo(project)
    assert done.returncode == 0, done.stdout[-3000:]
    assert numbers(project)["model"] == before["model"]


def test_the_three_commands_of_the_training_page(project):
    options = ["--config", "config.yaml", "--wandb", "--use_mask", *SMALL, "--exp_name", "step_1", "--resume", ""]
    first = script(project, "train_normal", *options)
    assert first.returncode == 0, first.stderr[-2000:]
    assert "offline" in first.stdout
    fields = ["--config", "config.yaml", "--wandb", "--valid", "--valid_folder", "../data/examples/",
              "--grid_size", "48", "--num_valid_samples", "1", *SMALL]
    second = script(project, "train_full", *fields, "--resume", str(project/"outputs"/"step_1"), "--exp_name", "step_2")
    assert second.returncode == 0, second.stderr[-2000:]
    assert "weights of stage 1" in second.stdout
    third = script(project, "train_full", *fields, "--resume", str(project/"outputs"/"step_2"), "--exp_name", "step_3",
                   "--use_pred_nrm", "--lr_decoder", "0.0001", "--lr_encoder:", "0.00001")
    assert third.returncode == 0, third.stderr[-2000:]
    assert "weights of stage 2" in third.stdout and "remark" in third.stdout + third.stderr
    assert (project/"outputs"/"step_3"/"checkpoints").exists()


def test_papermill_as_the_user_types_it(project):
    "Step 3 of the miniature, from the demo's step 2, without an output path."
    parameters = [word for name, value in (TRAIN | dict(epochs=1)).items() for word in ("-p", name, str(value))]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run([BIN/"papermill", "nbs/02_train_full.ipynb", "-p", "use_pred_nrm", "True", *parameters],
                          cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (project/"outputs"/"02_train_full.ipynb").exists()
    assert (project/"outputs"/"02_train_full_pred"/"checkpoints").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--config", "nowhere.yaml"], "no configuration file nowhere.yaml"),
    (["--lr_decodr", "1"], "the nearest is --lr_decoder"),
    (["--resume", "/model/path/to/step_1"], "no checkpoint at /model/path/to/step_1"),
    (["--data_root", "none.h5"], "no such dataset"),
])
def test_bad_input_is_named(project, arguments, message):
    done = script(project, "train_full", *SMALL, *arguments)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr


def test_a_truncated_checkpoint_is_refused_by_name(project, tmp_path):
    copy = tmp_path/"run"
    shutil.copytree(project/"outputs"/"demo"/"02_train_full", copy)
    weights = sorted(copy.glob("checkpoints/0*/model.safetensors"))[-1]
    weights.write_bytes(weights.read_bytes()[:2000])
    done = script(project, "train_full", *SMALL, "--use_pred_nrm", "--resume", str(copy), "--exp_name", "x")
    assert done.returncode != 0 and "damaged checkpoint" in done.stderr and str(weights) in done.stderr


def test_scans_by_other_hands_build_through_the_same_code(project):
    scans = ROOT.parent/"shared"/"scans"
    if not scans.exists(): pytest.skip(f"no scans at {scans}")
    one = project/"scans"
    shutil.copytree(scans/"0000", one/"0000", dirs_exist_ok=True)
    data = str(project/"outputs"/"scans.h5")
    kept = {name: value for name, value in BUILD.items() if name not in ("num_people", "num_test", "resolution")}
    options = [word for name, value in kept.items() for word in (f"--{name}", str(value))]
    done = script(project, "build_dataset", "--source", str(one), "--data_root", data, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    model = str(project/"outputs"/"demo"/"02_train_full_pred")
    done = script(project, "reconstruct", "--model", model, "--resolution", "64", "--data_root", data,
                  "--save_root", str(project/"outputs"/"scans"))
    assert done.returncode == 0 and (project/"outputs"/"scans"/"0000.glb").exists(), done.stderr[-2000:]


def test_bad_scans_are_refused_by_name_and_the_rest_is_built(project, tmp_path):
    with h5py.File(project/"data"/"people.h5") as file:
        name = sorted(file)[-1]
        group = file[name]
        body, vertices, faces, colors = (group[key][:] for key in ("smpl_v", "scan_v", "scan_f", "scan_rgb"))
    whole = trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)
    broken = trimesh.Trimesh(vertices.copy(), faces, process=False)
    broken.vertices[7] = float("nan")
    grey = trimesh.Trimesh(vertices, faces, process=False)
    scans = dict(good=whole, cloud=trimesh.PointCloud(vertices), holed=broken, grey=grey)
    for kind, mesh in scans.items():
        (tmp_path/"scans"/kind).mkdir(parents=True)
        mesh.export(tmp_path/"scans"/kind/f"{kind}.ply")
        trimesh.PointCloud(body).export(tmp_path/"scans"/kind/f"{kind}_body.ply")
    data = tmp_path/"scans.h5"
    done = script(project, "build_dataset", "--source", str(tmp_path/"scans"), "--data_root", str(data),
                  "--size", "64", "--nviews", "4", "--nsamples", "1000")
    check_refused(done, "3 subjects could not be built; the others are there")
    for kind, reason in dict(cloud="has no faces", holed="1 of", grey="no texture and no vertex colours").items():
        refused = [line for line in done.stderr.splitlines() if line.strip().startswith(f"{kind} refused:")]
        assert any(reason in line for line in refused), done.stderr
    with h5py.File(data) as file: assert sorted(file) == ["good"]


def test_a_full_disk_is_named_and_nothing_is_lost(project, tmp_path):
    """A disk too small is refused before the first step.

    One that others fill in the meantime ends the run, which goes on when there is room again."""
    disk = tmp_path/"disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode: pytest.skip("only root can mount a small disk")
    try:
        done = script(project, "train_normal", *SMALL, "--resume", "", "--save_root", str(disk))
        check_refused(done, "the disk has")
        written = [path for path in disk.rglob("*") if path.is_file() and path.name != ".lock"]
        assert not written
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        filler = threading.Thread(target=fill, args=(disk/"filler", disk/"01_train_normal"/"config.yaml"))
        filler.start()
        done = script(project, "train_normal", *SMALL, "--resume", "", "--save_root", str(disk))
        filler.join()
        check_refused(done, "the disk is full")
        assert not [path for path in disk.rglob("*") if ".part" in path.name]
        (disk/"filler").unlink()
        done = script(project, "train_normal", *SMALL, "--save_root", str(disk))
        assert done.returncode == 0, done.stderr[-2000:]
    finally: subprocess.run(["umount", disk], check=True)


def check_refused(done, message):
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr, done.stderr[-2000:]


def fill(path, after, patience=120):
    "Fill a disk once the file `after` is there."
    end = time.monotonic() + patience
    while not after.exists() and time.monotonic() < end: time.sleep(.01)
    with open(path, "wb", buffering=0) as file:
        try:
            while True: file.write(bytes(1 << 16))
        except OSError: pass
