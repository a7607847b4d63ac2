"Each stage starts as a script, as a module and as a command; as a notebook it is run by the tests of the demo."
import configparser
import os
import re

import pytest
from conftest import ROOT, STAGES
from processes import run_python

NAMES = [path.stem.split("_", 1)[1] for path in STAGES]


def commands() -> dict[str, str]:
    "The commands that an installation brings: name -> MODULE:FUNCTION."
    settings = configparser.ConfigParser(delimiters="=", interpolation=None)
    settings.read(ROOT/"settings.ini")
    return dict(line.strip().split("=") for line in settings["DEFAULT"]["console_scripts"].splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_script_module_and_command_offer_the_same_options(name, tmp_path):
    module, function = commands()[f"recon-{name.replace('_', '-')}"].split(":")
    ways = {
        "script": ([f"{name}.py"], ROOT/"recon"),
        "module": (["-m", f"recon.{name}"], tmp_path),
        "command": (["-c", f"from {module} import {function}; {function}()"], tmp_path),
    }
    options = {}
    for way, (arguments, folder) in ways.items():
        done = run_python([*arguments, "--help"], folder, os.environ | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, f"{way}: {done.stderr[-2000:]}"
        options[way] = set(re.findall(r"--[a-z0-9][\w-]*", done.stdout))
    assert "--save_root" in options["script"] or "--data_root" in options["script"]
    assert options["script"] == options["module"] == options["command"]
    assert not list(tmp_path.iterdir())
