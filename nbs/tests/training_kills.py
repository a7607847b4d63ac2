"""Training that is killed again and again: `python training_kills.py FOLDER KILLS WORKERS [SEED]`.

Everything is imported once. Each run is a fork of this process in a group of its own with its workers. It is killed
with SIGKILL at a random moment, or kills itself inside the writing of a checkpoint, until so many kills have been made;
then it goes on to its end, step 40, and is compared with an undisturbed one to the last bit. Prints what was counted
as JSON."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from processes import forked

import recon.runs.checkpoint as checkpoint
from recon.runs.run import Run
from recon.testing import make_balls, tiny_trainer
from recon.runs.checkpoint import find_checkpoint, list_checkpoints

STEPS, PLACES = 40, ("save_file", "sha256_of", "_to_disk")  # before, amid and after the writing of a checkpoint's files


def training(data: Path, folder: Path, **options):
    return tiny_trainer(data, folder, 3, epochs=STEPS // 2, save_steps=3, aug_jitter=True, **options)


def warm_up(data: Path, folder: Path):
    "Load what the runs need once, in the process that they are copies of."
    ready = training(data, folder)
    with torch.no_grad():
        ready.losses(next(ready.batches())[0])


def start(data: Path, folder: Path, workers: int, fatal: str = "") -> int:
    "Begin, or go on; the process. It kills itself, with all it started, in its second call of `fatal`."

    def work():
        if fatal:
            kill_in_second_call(fatal)
        training(data, folder, workers=workers).fit()

    return forked(work)


def kill_in_second_call(name: str):
    "From now on the second call of a function of `checkpoint` kills this process and all of its group."
    real, calls = getattr(checkpoint, name), []

    def deadly(*arguments):
        calls.append(1)
        if len(calls) > 1:
            os.killpg(0, signal.SIGKILL)
        return real(*arguments)

    setattr(checkpoint, name, deadly)


def is_over(child: int) -> bool:
    "Whether a run has ended; one that failed is an error."
    ended, status = os.waitpid(child, os.WNOHANG)
    assert not ended or os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a run failed"
    return bool(ended)


def kill_after(child: int, run: Run, lines: int, delay: float):
    "Kill a run when it has logged so many lines and a moment has passed, unless it has ended."

    def count():
        return run.log_file.read_bytes().count(b"\n") if run.log_file.exists() else 0

    before = count()
    while count() < before + lines:
        if is_over(child):
            return
        time.sleep(0.005)
    time.sleep(delay)
    if not is_over(child):
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)


def finish(child: int):
    while not is_over(child):
        time.sleep(0.01)


def found(folder: Path) -> dict:
    "All that a finished run leaves that must not depend on kills."
    last = find_checkpoint(folder / "run")
    flat = {f"weights {name}": value for name, value in last.weights().items()}
    state = last.state()
    flat |= {
        f"moment {i} {name}": value
        for i, moments in state["optimizer"]["state"].items()
        for name, value in moments.items()
    }
    losses = {
        f"line {line['step']}": [line[name] for name in ("sdf", "rgb", "nrm", "2D", "lr")]
        for line in Run(folder / "run").lines
    }
    return (
        flat
        | losses
        | dict(
            step=last.global_step,
            schedule=state["schedule"]["last_epoch"],
            random=state["random"][0]["torch"],
            data=last.metadata["data"]["checksum"],
        )
    )


def differing(a: dict, b: dict) -> list:
    "Names of what is not the same to the last bit."

    def same(x, y):
        return torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y

    return [name for name in a.keys() | b.keys() if not (name in a and name in b and same(a[name], b[name]))]


def trial(folder: Path, kills: int, workers: int, seed: int) -> dict:
    chance, counted, begin = (
        random.Random(seed),
        dict(kills=0, while_writing=0, runs=0, different=[], left_behind=0),
        time.monotonic(),
    )
    data = make_balls(folder)
    warm_up(data, folder / "warm")
    finish(start(data, folder / "whole", workers))
    expected, step = found(folder / "whole"), (time.monotonic() - begin) / STEPS
    assert len([name for name in expected if name.startswith("line")]) == STEPS
    while counted["kills"] < kills:
        place = folder / f"broken{counted['runs']}"
        counted["runs"] += 1
        while True:
            fatal = PLACES[counted["kills"] // 3 % len(PLACES)] if counted["kills"] % 3 == 2 else ""
            if counted["kills"] == kills:
                fatal = ""
            child, run = start(data, place, workers, fatal), Run(place / "run")
            if fatal or counted["kills"] == kills:
                finish(child)
            else:
                kill_after(child, run, chance.randint(0, 3), chance.uniform(0, 2 * step))
            counted["while_writing"] += bool(list((place / "run" / "checkpoints").glob(".*.part*")))
            newest = list_checkpoints(place / "run" / "checkpoints")
            if newest and newest[-1].global_step == STEPS:
                break
            counted["kills"] += 1
        counted["different"] += differing(found(place), expected)
        counted["left_behind"] += len(list((place / "run").rglob(".*.part*")))
    return counted | dict(seconds=round(time.monotonic() - begin, 1), cpu=round(sum(os.times()[:4]), 1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(trial(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int((sys.argv + ["0"])[4]))))
