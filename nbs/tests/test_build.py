"""The builder against kills, lost workers, interruptions and full disks: all subjects are there, and they are the same.
On the cluster that lost a worker, reconstruction and evaluation give what they give here."""
import hashlib
import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import h5py
import psutil
import pytest
from conftest import ROOT
from processes import Python, run_python

SMALL = dict(num_people=5, num_test=1, num_valid=1, resolution=96, size=32, nviews=2, nsamples=500)
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(data, **options):
    words = [word for name, value in (SMALL | options).items() for word in (f"--{name}", str(value))]
    return ["-m", "recon.build_dataset", "--data_root", str(data), *words]


def build(data, **options):
    return run_python(command(data, **options), ROOT, ENVIRONMENT)


def contents(data) -> dict:
    "Checksum of every subject's file, as the index links them, and the split."
    with h5py.File(data) as index:
        files = {name: Path(data).parent/index.get(name, getlink=True).filename for name in index}
        sums = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
        return sums | dict(split=json.loads(index.attrs["split"]))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    "A build by one process."
    data = tmp_path_factory.mktemp("one")/"people.h5"
    done = build(data, workers=1)
    assert done.returncode == 0, done.stderr[-2000:]
    found = contents(data)
    assert found["split"] == dict(train=["0000", "0001", "0002"], valid=["0003"], test=["0004"])
    return data, found


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.campaign)])
def test_kills_lose_nothing(tmp_path, kills):
    done = run_python([ROOT/"nbs"/"tests"/"kills.py", tmp_path, kills], ROOT, ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    counted = json.loads(done.stdout)
    assert counted["kills"] == kills and counted["builds"] > 3 and counted["while_writing"] > 3
    assert [counted[fault] for fault in ("rebuilt", "damaged", "different", "left_behind")] == [0, 0, 0, 0], counted


def test_two_processes_make_the_same(expected, tmp_path):
    done = build(tmp_path/"people.h5", workers=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert contents(tmp_path/"people.h5") == expected[1]


def wait_for_a_subject(builder, data):
    "Wait until a build has finished its first subject."
    while not list(data.with_suffix("").glob("[!.]*.h5")):
        assert builder.poll() is None
        time.sleep(.02)


@pytest.fixture(scope="module")
def cluster():
    "Two processes with one thread each."
    from distributed import LocalCluster

    options = dict(threads_per_worker=1, env={"OMP_NUM_THREADS": "1"}, dashboard_address=None, silence_logs=50)
    with LocalCluster(n_workers=2, **options) as cluster: yield cluster


def test_a_cluster_that_loses_a_worker_makes_the_same(expected, cluster, tmp_path):
    data = tmp_path/"people.h5"
    builder = Python(command(data, scheduler=cluster.scheduler_address), ROOT, ENVIRONMENT)
    wait_for_a_subject(builder, data)
    victim = next(iter(cluster.workers.values())).process.process.pid
    os.kill(victim, signal.SIGKILL)
    _, errors = builder.communicate(timeout=300)
    assert builder.returncode == 0, errors[-2000:]
    assert victim not in [worker.process.process.pid for worker in cluster.workers.values()]
    assert contents(data) == expected[1]


@pytest.fixture
def untrained(expected, tmp_path, monkeypatch):
    "Options of 05 with an untrained model, whose surface is the body's; their paths hold in this folder only."
    import torch
    from recon.nets.model import ModelOptions, Reconstructor
    from recon.reconstruct import Reconstruct
    from recon.runs.checkpoint import save_checkpoint

    threads = torch.get_num_threads()
    torch.set_num_threads(1)        # as the cluster's: with more, sums are taken in another order
    sizes = ModelOptions(nrm_channels=8, nrm_blocks=1, encoder_channels=16, color_channels=16, hidden_dim=8,
                         residual_sdf=True)
    record = dict(step=3, epoch=1, global_step=1, config=dict(image_size=32))
    save_checkpoint(tmp_path/"run"/"checkpoints", Reconstructor(sizes), {}, record)
    (tmp_path/"data").symlink_to(expected[0].parent)
    monkeypatch.chdir(tmp_path)
    yield Reconstruct(model="run", data_root="data/people.h5", split="", subject="0002,0003,0004", resolution=32,
                      save_root="here")
    torch.set_num_threads(threads)


def files_of(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(folder).iterdir() if file.is_file()}


def mean_color(path):
    "A feature network for the kernel inception distance."
    import torch

    class MeanColor(torch.nn.Module):
        def forward(self, images: torch.Tensor): return images.float().mean((2, 3))/255

    torch.jit.script(MeanColor()).save(path)
    return str(path)


def test_a_cluster_reconstructs_and_measures_the_same(untrained, cluster, tmp_path):
    "A folder lies where the mesh of 0002 would; it has no scan either. The others are made, kept, and measured."
    from recon.evaluate import Evaluate, main
    from recon.reconstruct import reconstruct_all

    for folder in ("here", "there", "some"): Path(folder, "0002.glb").mkdir(parents=True)
    here, failed_here = reconstruct_all(untrained)
    scheduled = replace(untrained, save_root="there", scheduler=cluster.scheduler_address)
    there, failed = reconstruct_all(scheduled)
    assert list(here) == list(there) == ["0003", "0004"]
    assert list(failed) == list(failed_here) == ["0002"] and "0002.glb" in failed["0002"]
    assert failed["0002"].partition(":")[0] == failed_here["0002"].partition(":")[0]
    made = files_of("there")
    assert made == files_of("here") and {"0003.glb", "0003.json", "0004.glb", "0004.jpg"} <= set(made)
    written = [path.stat().st_mtime_ns for path in there.values()]
    assert list(reconstruct_all(scheduled)[0]) == list(there)
    assert [path.stat().st_mtime_ns for path in there.values()] == written, "what is finished is kept"

    for name in ("0003.glb", "0003.json"): Path("some", name).write_bytes(made[name])
    Path("some", "0002.json").write_bytes(made["0003.json"])
    measured = Evaluate(results="some", data_root="data/people.h5", save=str(tmp_path/"here.json"))
    paired = Evaluate(results="here", scans="there", images=True, render_size=192, kid=mean_color("kid.pt"),
                      save=measured.save)
    for cfg, names in ((measured, ["0003"]), (paired, ["0003", "0004"])):
        numbers = main(cfg)
        assert list(numbers["people"]) == names and list(numbers["failed"]) == ["0002"]
        assert ("kid" in numbers) == bool(cfg.kid) and ("normal_error_deg" in numbers) == (cfg is measured)
        main(replace(cfg, save=str(tmp_path/"there.json"), scheduler=cluster.scheduler_address))
        texts = [Path(file).read_text().replace(f"{tmp_path}/", "") for file in ("here.json", "there.json")]
        assert texts[0] == texts[1], "but for the paths in reasons"
    for stage, cfg in ((reconstruct_all, untrained), (main, measured)):
        with pytest.raises(ValueError, match="no Dask scheduler answers"): stage(replace(cfg, scheduler="none://HOST"))


def test_finished_subjects_stay_and_a_flipped_bit_is_mended(expected):
    data, found = expected
    files = sorted(data.with_suffix("").glob("[!.]*.h5"))
    before = {file: file.stat().st_mtime_ns for file in files}
    content = bytearray(files[2].read_bytes())
    content[len(content)//2] ^= 1
    files[2].write_bytes(content)
    (files[0].parent/".0007.1.part.h5").write_text("left by a killed run")
    done = build(data)
    assert done.returncode == 0 and "4 finished and verified, 1 to build" in done.stdout, done.stdout
    assert contents(data) == found
    assert [file for file in files if file.stat().st_mtime_ns != before[file]] == [files[2]]
    assert not list(files[0].parent.glob(".*.part*"))


def started(data, **options):
    "A build that has finished its first subject, and its processes."
    builder = Python(command(data, workers=2, num_people=40, **options), ROOT, ENVIRONMENT)
    wait_for_a_subject(builder, data)
    return builder, psutil.Process(builder.pid).children(recursive=True)


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(tmp_path):
    builder, workers = started(tmp_path/"people.h5")
    os.killpg(builder.pid, signal.SIGINT)         # as a terminal does
    said, errors = builder.communicate(timeout=30)
    assert builder.returncode == 130
    assert "of 40 subjects are finished. The same command goes on from here." in said
    assert "Traceback" not in said + errors
    psutil.wait_procs(workers, 20)
    assert not [worker for worker in workers if worker.is_running()]


def test_workers_end_with_a_builder_that_was_killed(tmp_path):
    builder, workers = started(tmp_path/"people.h5")
    assert len(workers) >= 2
    builder.kill()
    assert not psutil.wait_procs(workers, 20)[1]
    builder.communicate()


def suggestions(message) -> dict:
    "Options and values that a refusal offers."
    words = [words.split(" ")[0] for words in message.split("with ")[1:]]
    return dict(word.split("=") for word in words if "=" in word)


def test_the_disk_cannot_hold_it(tmp_path):
    "Refused before anything is built, with changes that help; and so they do."
    disk = tmp_path/"disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True)
    if mounted.returncode: pytest.skip("only root can mount a small disk")
    try:
        done = build(disk/"people.h5", nsamples=20_000)
        assert done.returncode == 1, done.stderr
        assert "its disk has 3.1" in done.stderr and "nsamples=" in done.stderr and "Traceback" not in done.stderr
        assert not list((disk/"people").glob("*.h5"))
        done = build(disk/"people.h5", nsamples=int(suggestions(done.stderr)["nsamples"]))
        assert done.returncode == 0, done.stderr
    finally: subprocess.run(["umount", disk], check=True)


FAILING = """
import multiprocessing, os, sys
import recon.data.build as build, recon.data.pool as pool, recon.build_dataset as stage
make = build.MAKERS['person']
def person(seed, **options):
    if seed == 2: return {}['no such key']
    if seed == 3: os._exit(1)
    if seed == 1: raise MemoryError('of one subject')
    return make(seed, **options)
build.MAKERS['person'] = person
pool.get_all_start_methods = lambda: ['fork']
pool.get_context = lambda method: multiprocessing.get_context('fork')
stage.cli(sys.argv[1:])
"""


def test_what_fails_is_listed_and_the_rest_is_built(tmp_path):
    "Whatever fails with one subject; the program ends with an error, after all that could be was built."
    words = command(tmp_path/"people.h5", workers=2)[2:]
    done = run_python(["-c", FAILING, *words], ROOT, ENVIRONMENT)
    assert done.returncode == 1 and "3 subjects could not be built" in done.stderr, done.stderr[-2000:]
    reasons = {
        "0001": "failed: MemoryError: of one subject",
        "0002": "failed: KeyError: 'no such key'",
        "0003": "failed: its process was killed each time",
    }
    for name, reason in reasons.items():
        assert any(line.startswith(f"{name} {reason}") for line in done.stdout.splitlines()), done.stdout
        assert f"{name} {reason}" in done.stderr
    with h5py.File(tmp_path/"people.h5") as index:
        assert sorted(index) == ["0000", "0004"]
        assert sorted(json.loads(index.attrs["refused"])) == ["0001", "0002", "0003"]


def make_scan(folder, name):
    (folder/name).mkdir(parents=True)
    for file in (f"{name}.obj", f"{name}_body.ply"): (folder/name/file).touch()


def test_a_split_holds_out_whole_subjects_of_each_source(tmp_path):
    "Another scan in the folder moves at most one of the others across each border."
    from recon.build_dataset import BuildDataset
    from recon.data.tasks import split_subjects, subject_specs

    scans = tmp_path/"scans"

    def parts(**options):
        cfg = BuildDataset.resolve(dict(num_people=20, source=f"people + {scans}") | options)
        return split_subjects(cfg, subject_specs(cfg))

    for name in "abcdefghij": make_scan(scans, name)
    alone, both = parts(source=str(scans)), parts(num_valid=2)
    assert alone == dict(train=[], valid=[], test=list("abcdefghij"))
    assert both["test"] == [f"{i:04d}" for i in range(12, 20)] and both["valid"][:2] == ["0010", "0011"]
    assert all(name.startswith("scans_") for name in both["valid"][2:]) and len(both["train"]) == 10 + 8
    before = parts(num_test=2, num_valid=3)
    everybody = [f"{i:04d}" for i in range(20)] + [f"scans_{name}" for name in "abcdefghij"]
    assert sorted(sum(before.values(), [])) == sorted(everybody)
    make_scan(scans, "k")
    after = parts(num_test=2, num_valid=3)
    moved = {name for part in before for name in set(before[part]) - set(after[part])}
    assert len(moved) <= 2, moved
    with pytest.raises(ValueError, match="different names"): parts(source=f"people+{scans}+{scans}")
