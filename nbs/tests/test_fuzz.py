"Mutated files of every format are read or refused in one line that names them; `make fuzz` reads 10,000."

import faulthandler
import os

import pytest
from fuzz import fuzz, verdict


def test_three_hundred_mutated_files_are_read_or_refused():
    counts, faults = fuzz(300)
    assert faults == [] and counts["read"] > 50 and counts["refused"] > 100, (counts, faults)


def fail(error):
    raise error


@pytest.mark.parametrize(
    "read,words",
    [
        (lambda folder: fail(ValueError(f"{folder}/x.obj: two\nlines")), "ValueError"),
        (lambda folder: fail(ValueError("no name of a file")), "ValueError"),
        (lambda folder: fail(KeyError("vertices")), "KeyError"),
        (lambda folder: fail(ValueError(f"{folder}/x.obj: cannot allocate memory")), "memory"),
    ],
)
def test_a_fault_is_one(tmp_path, read, words):
    assert verdict(read, tmp_path).startswith(words)
    assert verdict(lambda folder: fail(ValueError(f"{folder}/x.obj: no faces")), tmp_path) == "refused"
    assert verdict(lambda folder: 1, tmp_path) == "read"


def loop(folder):
    while True:
        pass


FAULTS = {
    "a loop": (loop, "SIGPROF"),
    "a crash": (lambda folder: os.abort(), "SIGABRT"),
    "memory": (lambda folder: bytearray(1 << 33), "MemoryError"),
    "a file written": (lambda folder: (folder.parent / "outside").write_text("x"), "wrote"),
}


@pytest.mark.parametrize("read,words", FAULTS.values(), ids=FAULTS.keys())
def test_hangs_deaths_and_files_written_are_found(tmp_path, monkeypatch, read, words):
    "In a child of its own, as `fuzz` starts it."
    import signal

    import fuzz as tool

    known = dict(obj=tool.Format([{"p.obj": b"v 0 0 0"}], "p.obj", tool.of_text, read))
    monkeypatch.setattr(tool, "formats", lambda: known)
    monkeypatch.setattr(tool, "SECONDS", 0.5)
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    said, told = os.pipe()
    number = os.fork()
    if not number:
        faulthandler.disable()
        os.dup2(told, 1)
        tool.sys.stdout = os.fdopen(1, "w")
        tool.child(0, 1, 0, [], sandbox)
        os._exit(0)
    os.close(told)
    text = os.fdopen(said).read()
    status = os.waitpid(number, 0)[1]
    found = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else text
    assert words in found and (sandbox.parent / "at").read_text() == "0 obj"


def test_the_same_seed_gives_the_same_files():
    import random

    import fuzz as tool

    found = tool.mesh_formats()["obj"]
    data = found.files[0]["p.obj"]
    twice = [[tool.of_text(data, [data], random.Random(f"0 {k} obj")) for k in range(20)] for _ in range(2)]
    assert twice[0] == twice[1] and len(set(twice[0])) > 15
