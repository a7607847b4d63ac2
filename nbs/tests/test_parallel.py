"One process or several, one batch or its parts: the same people, the same losses, the same weights."

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from processes import run_python

TINY = dict(
    nrm_channels=8,
    nrm_downsamplings=2,
    nrm_blocks=1,
    encoder_channels=16,
    color_channels=16,
    hidden_dim=16,
    rgb_hidden_dim=16,
    residual_sdf=True,
    silhouette_prior=True,
    body_depth_input=True,
    point_priors=True,
    pixel_color_blending=True,
    image_size=32,
    num_samples=300,
    epochs=2,
    preset="paper",
    lr_warmup_steps=2,
    lighting=0.8,
    white_bg=False,
    aug_jitter=True,
    use_mask=True,
    normal_band=0.2,
    num_normals=100,
    log_every=1,
    resume="",
    lr_encoder=1e-3,
)
WAYS = {
    "whole": (1, 4, 1, 1),
    "parts": (1, 1, 4, 1),
    "processes": (2, 2, 1, 1),
    "both": (2, 1, 2, 1),
    "threads": (1, 4, 1, 2),
    "parts in threads": (1, 2, 2, 3),
}  # processes, batch_size, gradient_accumulation_steps, batch_threads
CASES = [("parts", 3), ("processes", 1), ("processes", 2), ("both", 3), ("threads", 1), ("threads", 2),
         ("parts in threads", 3)]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    "Eight balls, four views each."
    from recon.testing import ball_subject
    from recon.data.writer import write_index, write_subject

    folder, names = tmp_path_factory.mktemp("balls"), [f"ball{k}" for k in range(8)]
    for k, name in enumerate(names):  # of different sizes, so that masks and points near the surface differ in number
        subject, body = ball_subject(name)
        subject.vertices = subject.vertices * (0.6 + 0.1 * k)
        write_subject(folder / "subjects" / f"{name}.h5", subject, body, views=4, size=32, points=900)
    write_index(folder / "balls.h5", [folder / "subjects" / f"{name}.h5" for name in names], body, dict(train=names))
    return folder


def train(options: dict, step: int, out: Path):
    "Train in float64; the first process writes losses and weights."
    from recon.training.loop import Trainer
    from recon.training.options import TrainOptions

    trainer = Trainer(TrainOptions.resolve(options), step, torch.device("cpu"))
    lines = []
    for parts in trainer.batches():
        losses, norms = trainer.update(
            [
                {name: value.double() if value.is_floating_point() else value for name, value in part.items()}
                for part in parts
            ]
        )
        sums = trainer.ranks.sum(torch.stack(list(losses.values())))
        lines.append(dict(zip(losses, sums.tolist())) | {f"grad_{name}": float(value) for name, value in norms.items()})
    if trainer.ranks.is_main:
        torch.save(dict(lines=lines, weights=trainer.model.state_dict()), out)


if __name__ == "__main__":  # a process of one of the ways
    torch.set_default_dtype(torch.float64)
    for job in json.loads(sys.argv[1]):
        train(job["options"], job["step"], Path(job["out"]))


def surroundings():
    return os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), WANDB_MODE="disabled")


@pytest.fixture(scope="module")
def trained(people):
    "All ways, in all steps."
    for processes in (1, 2):
        jobs = [
            dict(
                step=step,
                out=str(people / f"{way}{step}.pt"),
                options=TINY
                | dict(
                    data_root=str(people / "balls.h5"),
                    save_root=str(people),
                    exp_name=f"{way}{step}",
                    batch_size=size,
                    gradient_accumulation_steps=parts,
                    batch_threads=threads,
                ),
            )
            for way, (of, size, parts, threads) in WAYS.items()
            if of == processes
            for step in (1, 2, 3)
            if way == "whole" or (way, step) in CASES
        ]
        script = [__file__, json.dumps(jobs)]
        if processes > 1:
            script = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes, *script]
        done = run_python(script, ROOT / "nbs" / "tests", surroundings())
        assert done.returncode == 0, done.stderr[-3000:]
    return people


@pytest.mark.parametrize("way,step", CASES)
def test_however_a_batch_is_cut_the_training_is_the_same(trained, way, step):
    whole, cut = (torch.load(trained / f"{name}{step}.pt") for name in ("whole", way))
    assert len(whole["lines"]) == len(cut["lines"]) == 4
    for a, b in zip(whole["lines"], cut["lines"]):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], abs=1e-6, rel=1e-6), name
    for (name, a), b in zip(whole["weights"].items(), cut["weights"].values()):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6, msg=name)
    assert whole["lines"][0] != whole["lines"][-1]


def command(people, name, **options):
    "Arguments of step 1 as a script on the balls."
    given = (
        TINY
        | dict(
            data_root=people / "balls.h5",
            save_root=people,
            exp_name=name,
            batch_size=1,
            epochs=400,
            save_every=400,
            resume="auto",
        )
        | options
    )
    return [
        f"--{'' if value is not False else 'no_'}{key}" + ("" if isinstance(value, bool) else f"={value}")
        for key, value in given.items()
    ]


def test_ctrl_c_ends_all_processes_after_the_same_step_and_they_go_on(people):
    start = [sys.executable, "-m", "recon.train_normal", *command(people, "two", num_processes=2)]

    def deaf():
        return signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script's shell starts what runs behind it

    process = subprocess.Popen(
        start,
        env=surroundings(),
        cwd=people,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=deaf,
    )
    log = people / "two" / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert process.poll() is None, process.stdout.read()[-3000:]
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "Run the same command again" in said, said[-3000:]
    from recon.runs.checkpoint import find_checkpoint

    done = find_checkpoint(people / "two").global_step
    assert 3 < done < 1600 and json.loads(log.read_text().splitlines()[-1])["step"] == done

    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "1",
        "-m",
        "recon.train_normal",
        *command(people, "two", epochs=0),
    ]
    again = subprocess.run(
        launch, env=surroundings(), cwd=people, capture_output=True, text=True
    )  # as a launcher starts it: it finds its place, and there is nothing left
    assert again.returncode == 0 and f"going on from step {done}" in again.stdout, (
        again.stdout[-2000:] + again.stderr[-2000:]
    )


def test_a_notebook_follows_processes_that_it_starts(people, monkeypatch):
    """`num_processes` as in a stage notebook: lines come back while it trains, the run at the end; as many steps
    as one process with twice the batch takes."""
    from recon.train_normal import TrainNormal, main

    for name, value in surroundings().items():
        monkeypatch.setenv(name, value)
    lines = []
    cfg = TrainNormal.resolve(
        TINY
        | dict(
            data_root=str(people / "balls.h5"),
            save_root=str(people),
            exp_name="followed",
            batch_size=2,
            num_processes=2,
        )
    )
    run = main(cfg, on_log=lines.append)
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and lines == run.lines
    assert lines[-1]["2D"] < lines[0]["2D"]


def test_what_cannot_fit_is_refused_before_anything_is_written(people, tmp_path):
    from recon.train_normal import TrainNormal, main

    paper = dict(
        preset="paper",
        data_root=str(people / "balls.h5"),
        save_root=str(tmp_path),
        num_samples=900,
        image_size=1024,
        batch_size=512,
        resume="",
    )
    with pytest.raises(
        ValueError,
        match=r"takes about .* of memory on .* are free. "
        r"It would fit with .*batch_size=\d+ gradient_accumulation_steps=\d+",
    ):
        main(TrainNormal.resolve(paper))
    assert not list(tmp_path.rglob("*.yaml")) and not list(tmp_path.rglob("*.safetensors"))
