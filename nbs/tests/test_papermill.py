"`papermill nbs/NAME.ipynb -p option value` as it is typed, without an output path."
import os
import pty
import subprocess
import sys

import nbformat
import pytest
from conftest import BIN
from nbformat.sign import NotebookNotary

PAPERMILL = str(BIN/"papermill")


def run(command, cwd):
    "In a pipe."
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def run_on_terminal(command, cwd):
    "With a terminal for its input and output."
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    said = b""
    while True:
        try: chunk = os.read(ours, 4096)
        except OSError: break
        if not chunk: break
        said += chunk
    os.close(ours)
    return process.wait(), said.decode(errors="replace")


def printed(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_on_a_terminal(toy_project):
    code, said = run_on_terminal([PAPERMILL, "nbs/02_toy.ipynb", "-p", "use_mask", "True"], toy_project)
    assert code == 0, said
    assert "Toy(epochs=3, use_mask=True)" in printed(toy_project/"outputs"/"02_toy.ipynb")


def test_in_a_pipe_the_notebook_is_kept_and_trusted(toy_project):
    done = run([PAPERMILL, "nbs/02_toy.ipynb", "-p", "epochs", "5"], toy_project)
    assert done.returncode == 0, done.stderr
    kept = toy_project/"outputs"/"02_toy.ipynb"
    assert "Toy(epochs=5, use_mask=False)" in printed(kept)
    executed = nbformat.read(kept, as_version=4)
    assert NotebookNotary().check_signature(executed)
    assert "widgets" in executed.metadata      # the slider's state is in the file


@pytest.mark.parametrize("command,folder", [([PAPERMILL, "02_toy.ipynb"], "nbs"), ([sys.executable, "-m", "papermill", "nbs/02_toy.ipynb"], ".")],
                         ids=["from nbs", "as a module"])
def test_other_ways(toy_project, command, folder):
    done = run(command, toy_project/folder)
    assert done.returncode == 0, done.stderr
    assert "Toy(epochs=3, use_mask=False)" in printed(toy_project/"outputs"/"02_toy.ipynb")


def test_a_given_output_path_is_kept(toy_project):
    done = run([PAPERMILL, "nbs/02_toy.ipynb", "mine.ipynb"], toy_project)
    assert done.returncode == 0, done.stderr
    assert (toy_project/"mine.ipynb").exists() and not (toy_project/"outputs").exists()


@pytest.mark.parametrize("option,value,message", [("epoch", "5", "the nearest is 'epochs'"), ("epochs", "many", "epochs = 'many', expected int")])
def test_a_wrong_parameter_stops_the_run(toy_project, option, value, message):
    done = run([PAPERMILL, "nbs/02_toy.ipynb", "-p", option, value], toy_project)
    assert done.returncode != 0
    assert message in done.stderr
