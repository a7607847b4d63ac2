"""A build that is killed again and again: `python kills.py FOLDER KILLS [SEED]`.

Everything is imported once. Each build is a fork of this process in a group of its own with its workers, and all of
them are killed with SIGKILL at a random moment, until so many kills have been made; whenever a build comes to its end
before, it is compared with an undisturbed one and another is begun. Subjects are coloured balls, so that a build takes
a second. Prints what was counted as JSON."""
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
from recon.testing import ball_subject
from recon.data.writer import is_whole

PEOPLE = 40


def ball(seed, **_):
    subject, _ = ball_subject(subdivisions=2)
    subject.colors = (subject.colors + torch.rand(3, generator=torch.Generator().manual_seed(seed))) / 2
    return subject


def ball_body(spec):
    return ball_subject(subdivisions=2)[1]


def fork_alone():
    return ["fork"]


def fork_context(method):
    return get_context("fork")


one.MAKERS["person"] = ball
one.body_of = ball_body
many.get_all_start_methods = fork_alone      # the packages are here already
many.get_context = fork_context


def start(data: Path) -> int:
    "Begin a build; its process."
    sizes = dict(size=32, nviews=2, nsamples=300)
    return forked(lambda: main(BuildDataset(num_people=PEOPLE, num_test=2, workers=2, data_root=str(data), **sizes)))


def ended(child: int, seconds: float, writing: Path = None) -> bool:
    """Wait for a build; whether it came to its end in that time. Else it is killed with all its workers, where a
    dataset is given while one of its files is being written."""
    until = time.monotonic() + seconds
    while time.monotonic() < until or writing and not partials(writing):
        if os.waitpid(child, os.WNOHANG)[0]: return True
        if time.monotonic() < until: time.sleep(.002)
    try: os.killpg(child, signal.SIGKILL)
    except ProcessLookupError: os.kill(child, signal.SIGKILL)      # not yet a leader
    return os.WIFEXITED(os.waitpid(child, 0)[1])


def finished(folder: Path) -> dict:
    "Identity of each finished subject's file: another one would have another."
    files = [(path, path.stat()) for path in folder.glob("[!.]*.h5")]
    return {path.name: (facts.st_ino, facts.st_mtime_ns) for path, facts in files}


def contents(data: Path) -> dict:
    "Checksum of every subject's file, as the index links them, and the split."
    with h5py.File(data) as index:
        files = {name: data.parent/index.get(name, getlink=True).filename for name in index}
        sums = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
        return sums | dict(split=index.attrs["split"])


def partials(data: Path) -> list:
    return list(data.with_suffix("").glob(".*.part*"))


def trial(folder: Path, kills: int, seed: int) -> dict:
    chance, undisturbed, data = random.Random(seed), folder/"undisturbed.h5", folder/"killed.h5"
    counts = "kills while_writing after_no_subject builds subjects rebuilt damaged different"
    counted = dict.fromkeys(counts.split(), 0)
    begin = time.monotonic()
    assert ended(start(undisturbed), 600)
    whole, expected, before = time.monotonic() - begin, contents(undisturbed), {}
    while counted["kills"] < kills:
        writing = data if counted["kills"] % 2 else None      # every second kill meets a file in the making
        done = ended(start(data), chance.uniform(0, .8*whole), writing)
        now = finished(data.with_suffix(""))
        counted["rebuilt"] += sum(now.get(name) != file for name, file in before.items())
        counted["damaged"] += sum(not is_whole(data.with_suffix("")/name) for name in set(now) - set(before))
        before = now
        if not done:
            counted["kills"] += 1
            counted["after_no_subject"] += not now
            counted["while_writing"] += bool(partials(data))
            continue
        counted["builds"] += 1
        counted["subjects"] += len(now)
        counted["different"] += contents(data) != expected
        shutil.rmtree(data.with_suffix(""))
        data.unlink()
        before = {}
    assert ended(start(data), 600)
    counted["different"] += contents(data) != expected
    now = finished(data.with_suffix(""))
    counted["rebuilt"] += sum(now.get(name) != file for name, file in before.items())
    times = dict(seconds=round(time.monotonic() - begin, 1), undisturbed_seconds=round(whole, 2))
    return counted | dict(left_behind=len(partials(data))) | times


if __name__ == "__main__": print(json.dumps(trial(Path(sys.argv[1]), int(sys.argv[2]), int((sys.argv + ["0"])[3]))))
