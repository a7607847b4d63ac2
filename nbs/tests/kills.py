"""A build that is killed again and again: `python kills.py FOLDER KILLS [SEED]`.

Everything is imported once. Each build is a fork of this process in a group of its own with its workers, and all of them are killed with SIGKILL at a random
moment, until so many kills have been made; whenever a build comes to its end before, it is compared with an undisturbed one and another is begun. Subjects are
coloured balls, so that a build takes a second. Prints what was counted as JSON."""
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import h5py
import torch
from processes import forked

import recon.data.build as one
import recon.data.pool as many
from recon.build_dataset import BuildDataset, main
from recon.data.writer import ball_subject, is_whole

PEOPLE = 40


def ball(seed, **_):
    subject, _ = ball_subject(subdivisions=2)
    subject.colors = (subject.colors + torch.rand(3, generator=torch.Generator().manual_seed(seed))) / 2
    return subject


one.MAKERS["person"] = ball
one.body_of = lambda job: ball_subject(subdivisions=2)[1]
many.get_all_start_methods, many.get_context = (lambda: ["fork"]), (lambda method: get_context("fork"))   # the packages are here already


def start(data: Path) -> int:
    "Begin a build; its process."
    return forked(lambda: main(BuildDataset(num_people=PEOPLE, num_test=2, size=32, nviews=2, nsamples=300, workers=2, data_root=str(data))))


def ended(child: int, seconds: float) -> bool:
    "Wait for a build; whether it came to its end in that time. Else it is killed with all its workers."
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]: return True
        time.sleep(.002)
    try: os.killpg(child, signal.SIGKILL)
    except ProcessLookupError: os.kill(child, signal.SIGKILL)      # not yet a leader
    return os.WIFEXITED(os.waitpid(child, 0)[1])


def finished(folder: Path) -> dict:
    "Identity of each finished subject's file: another one would have another."
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("[!.]*.h5")}


def contents(data: Path) -> dict:
    "Checksum of every subject's file, as the index links them, and the split."
    with h5py.File(data) as index:
        files = {name: hashlib.sha256((data.parent/index.get(name, getlink=True).filename).read_bytes()).hexdigest() for name in index}
        return files | dict(split=index.attrs["split"])


def trial(folder: Path, kills: int, seed: int) -> dict:
    chance, counted = random.Random(seed), dict(kills=0, while_writing=0, after_no_subject=0, builds=0, subjects=0, rebuilt=0, damaged=0, different=0)
    undisturbed, data = folder/"undisturbed.h5", folder/"killed.h5"
    begin = time.monotonic()
    assert ended(start(undisturbed), 600)
    whole, expected, before = time.monotonic() - begin, contents(undisturbed), {}
    while counted["kills"] < kills:
        done = ended(start(data), chance.uniform(0, .8*whole))
        now = finished(data.with_suffix(""))
        counted["rebuilt"] += sum(now.get(name) != file for name, file in before.items())
        counted["damaged"] += sum(not is_whole(data.with_suffix("")/name) for name in set(now) - set(before))
        before = now
        if not done:
            counted["kills"] += 1
            counted["after_no_subject"] += not now
            counted["while_writing"] += bool(list(data.with_suffix("").glob(".*.part*")))
            continue
        counted["builds"] += 1
        counted["subjects"] += len(now)
        counted["different"] += contents(data) != expected
        shutil.rmtree(data.with_suffix("")); data.unlink(); before = {}
    assert ended(start(data), 600)
    counted["different"] += contents(data) != expected
    counted["rebuilt"] += sum(finished(data.with_suffix("")).get(name) != file for name, file in before.items())
    return counted | dict(left_behind=len(list(data.with_suffix("").glob(".*.part*"))), seconds=round(time.monotonic() - begin, 1), undisturbed_seconds=round(whole, 2))


if __name__ == "__main__": print(json.dumps(trial(Path(sys.argv[1]), int(sys.argv[2]), int((sys.argv + ["0"])[3]))))
