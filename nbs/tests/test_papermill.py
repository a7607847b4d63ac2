"`papermill nbs/NAME.ipynb -p option value` as it is typed, without an output path."

import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import nbformat
import pytest
from annotated_types import Ge, Lt
from conftest import BIN
from nbformat.sign import NotebookNotary
from papermill.cli import _resolve_type as papermill_value

PAPERMILL = str(BIN / "papermill")


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
        try:
            chunk = os.read(ours, 4096)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    os.close(ours)
    return process.wait(), said.decode(errors="replace")


def printed(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_on_a_terminal(toy_project):
    code, said = run_on_terminal([PAPERMILL, "nbs/02_toy.ipynb", "-p", "use_mask", "True"], toy_project)
    assert code == 0, said
    assert "Toy(epochs=3, use_mask=True)" in printed(toy_project / "outputs" / "02_toy.ipynb")


def test_in_a_pipe_the_notebook_is_kept_and_trusted(toy_project):
    done = run([PAPERMILL, "nbs/02_toy.ipynb", "-p", "epochs", "5"], toy_project)
    assert done.returncode == 0, done.stderr
    kept = toy_project / "outputs" / "02_toy.ipynb"
    assert "Toy(epochs=5, use_mask=False)" in printed(kept)
    executed = nbformat.read(kept, as_version=4)
    assert NotebookNotary().check_signature(executed)
    assert "widgets" in executed.metadata  # the slider's state is in the file


@pytest.mark.parametrize(
    "command,folder",
    [([PAPERMILL, "02_toy.ipynb"], "nbs"), ([sys.executable, "-m", "papermill", "nbs/02_toy.ipynb"], ".")],
    ids=["from nbs", "as a module"],
)
def test_other_ways(toy_project, command, folder):
    done = run(command, toy_project / folder)
    assert done.returncode == 0, done.stderr
    assert "Toy(epochs=3, use_mask=False)" in printed(toy_project / "outputs" / "02_toy.ipynb")


@pytest.mark.parametrize("word", ["0001", "1e3", "2024_10_11", "5", "scans"])
def test_an_option_that_is_a_word_stays_one(toy_project, word):
    notebook = toy_project / "nbs" / "02_toy.ipynb"
    toy = nbformat.read(notebook, as_version=4)
    toy.cells[0].source += "\n    source: str = 'people'"
    nbformat.write(toy, notebook)
    done = run([PAPERMILL, "nbs/02_toy.ipynb", "-p", "source", word, "-p", "epochs", "1e1"], toy_project)
    assert done.returncode == 0, done.stderr
    assert f"Toy(epochs=10, use_mask=False, source='{word}')" in printed(toy_project / "outputs" / "02_toy.ipynb")


@pytest.mark.parametrize("word", ["0010", "1e3", "2024_10_11", "2024-10-11", "no", "12:30", "007", "scans", "1_000"])
@pytest.mark.parametrize("way", ["-f", "-y", "grouped"])
def test_words_in_a_file_of_parameters_stay_words(toy_project, word, way):
    from recon.tools.papermill_io import keep_words

    text = f"source: {word}\nepochs: 10\nuse_mask: true\nsteps: [010, 2]\n"
    if way == "grouped":
        text = "dataset:\n" + "".join(f"  {line}\n" for line in text.splitlines())
    (toy_project / "p.yaml").write_text(text)
    given = ["-y", text] if way == "-y" else ["-f", str(toy_project / "p.yaml")]
    argv = keep_words([str(toy_project / "nbs" / "02_toy.ipynb"), *given])
    found = papermill_yaml(argv[argv.index("-y") + 1])
    found = found.get("dataset", found)
    assert found == dict(source=word, epochs=10, use_mask=True, steps=["010", 2])


@pytest.mark.parametrize("word", ["0001", "1e3", "2024_10_11", "-pilot"])
@pytest.mark.parametrize("way", ["-pNAME", "--parameters=NAME", "-b"])
def test_words_in_other_spellings_of_options_stay_words(toy_project, word, way):
    import base64

    from recon.tools.papermill_io import keep_words

    text = base64.b64encode(f"source: {word}\n".encode()).decode()
    given = ["-b", text] if way == "-b" else [way.replace("NAME", "source"), word]
    argv = keep_words([str(toy_project / "nbs" / "02_toy.ipynb"), *given, "-p", "epochs", "10"])
    if way == "-b":
        assert papermill_yaml(argv[argv.index("-y") + 1]) == dict(source=word)
    else:
        assert argv[1:4] in (["-r", "source", word], ["-p", "source", word]) and argv[4:] == ["-p", "epochs", "10"]
        assert argv[1] == "-r" or papermill_value(word) == word


def papermill_yaml(text: str):
    "As papermill reads `-y`."
    import yaml
    from papermill.iorw import NoDatesSafeLoader

    return yaml.load(text, Loader=NoDatesSafeLoader)


def test_a_file_of_parameters_runs(toy_project):
    "Options of the command line win."
    notebook = toy_project / "nbs" / "02_toy.ipynb"
    toy = nbformat.read(notebook, as_version=4)
    toy.cells[0].source += "\n    source: str = 'people'"
    nbformat.write(toy, notebook)
    (toy_project / "p.yaml").write_text("source: 0010\nepochs: 7\nuse_mask: yes\n")
    done = run([PAPERMILL, "nbs/02_toy.ipynb", "-f", "p.yaml", "-p", "epochs", "9"], toy_project)
    assert done.returncode == 0, done.stderr
    assert "Toy(epochs=9, use_mask=True, source='0010')" in printed(toy_project / "outputs" / "02_toy.ipynb")


def test_a_given_output_path_is_kept(toy_project):
    done = run([PAPERMILL, "nbs/02_toy.ipynb", "mine.ipynb"], toy_project)
    assert done.returncode == 0, done.stderr
    assert (toy_project / "mine.ipynb").exists() and not (toy_project / "outputs").exists()


@pytest.mark.parametrize(
    "option,value,message",
    [("epoch", "5", "the nearest is 'epochs'"), ("epochs", "many", "epochs = 'many', expected int")],
)
def test_a_wrong_parameter_stops_the_run(toy_project, option, value, message):
    done = run([PAPERMILL, "nbs/02_toy.ipynb", "-p", option, value], toy_project)
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize(
    "option,value,message",
    [
        ("epochs", "inf", "epochs = inf, expected int at least 1"),
        ("epochs", "-2", "epochs = -2, expected int at least 1"),
        ("lr", "nan", "lr = nan, expected finite float above 0"),
        ("beta2", "2", "beta2 = 2, expected finite float at least 0 and below 1"),
        ("workers", "-3", "workers = -3, expected int at least 0"),
        ("lr_scheduler", "cosin", "lr_scheduler = 'cosin', expected one of linear, cosine; the nearest is 'cosine'"),
        ("data_root", "data/people", "data_root = 'data/people', expected str ending with .h5"),
    ],
)
def test_a_value_outside_an_options_limits_is_refused_from_everywhere(option, value, message, tmp_path):
    from recon.config import Config, NonNegativeInt, PositiveFloat, PositiveInt, Suffix

    @dataclass
    class Limited(Config):
        config: str = ""
        epochs: PositiveInt | None = 3
        lr: PositiveFloat = 1e-3
        beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
        workers: NonNegativeInt = 0
        lr_scheduler: Literal[*("linear", "cosine")] = "linear"
        data_root: Annotated[str, Suffix(".h5")] = "data/people.h5"

    message = message.replace("expected int at least 1", "expected int at least 1 or none")
    injected = papermill_value(value)
    with pytest.raises(ValueError, match=re.escape(message)):
        Limited.resolve({"__name__": "__main__", option: injected})
    (tmp_path / "options.yaml").write_text(f"{option}: {value}\n")
    with pytest.raises(ValueError, match=f"options.yaml: {option} = .*{re.escape(message.split(', ')[1])}"):
        Limited.resolve({"config": str(tmp_path / "options.yaml")})
    with pytest.raises((ValueError, SystemExit)):
        Limited.from_args([f"--{option}", value])


def test_a_preset_of_a_file_is_refused_with_its_file(tmp_path):
    from recon.train_full import TrainFull

    (tmp_path / "options.yaml").write_text("preset: papr\n")
    with pytest.raises(ValueError, match="options.yaml: TrainFull has no preset 'papr'; there are auto, demo"):
        TrainFull.resolve(dict(config=str(tmp_path / "options.yaml")))


def test_words_in_a_yaml_file_stay_words(tmp_path):
    "Unquoted, YAML takes them for octal and other numbers, dates and truth values."
    from recon.config import Config

    @dataclass
    class Named(Config):
        config: str = ""
        source: str = ""
        seed: int = 0
        wandb: bool = False

    for word in ("0010", "1e3", "2024_10_11", "2024-10-11", "no", "12:30"):
        (tmp_path / "options.yaml").write_text(f"source: {word}\nseed: 1e3\nwandb: on\n")
        cfg = Named.resolve({"config": str(tmp_path / "options.yaml")})
        assert (cfg.source, cfg.seed, cfg.wandb) == (word, 1000, True)


@pytest.mark.parametrize(
    "option,value,allowed",
    [
        ("data_root", "data/people", "str ending with .h5 or .hdf5"),
        ("workers", -3, "int at least 0"),
        ("nviews", 0, "int at least 1"),
        ("codec", "zst", "the nearest is 'zstd'"),
    ],
)
def test_the_builder_refuses_what_it_cannot_build(option, value, allowed):
    "A data set without its suffix would be the folder of its own subjects."
    from recon.build_dataset import BuildDataset

    with pytest.raises(ValueError, match=f"{option} = .*{re.escape(allowed)}"):
        BuildDataset.resolve({option: value})
