"settings.ini is the one source of package metadata; this only forwards it."
from configparser import ConfigParser
from pathlib import Path
from shlex import split

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
extras = {key.removesuffix("_requirements"): split(value) for key, value in settings.items() if key.endswith("_requirements")}
readme = Path("README.md")

setup(
    version=settings["version"],
    description=settings["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author=settings["author"],
    keywords=settings["keywords"],
    packages=find_packages(include=["recon", "recon.*"]),
    package_data={"recon": ["*.yaml", "fitting/*.safetensors"]},
    install_requires=split(settings["requirements"]),
    extras_require=extras,
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "papermill.io": ["recon-outputs = recon.tools.papermill_io:Outputs"],
        "nbdev": ["recon = recon._modidx:d"],
    },
)
