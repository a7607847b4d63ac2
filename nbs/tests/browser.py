"""JupyterLab in a real browser, for the tests that look at what a user sees.

Debian's Chromium draws WebGL in software here. Without Chromium the test is skipped; with CI=true it fails."""
import io
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import BIN, ROOT
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from playwright.sync_api import TimeoutError

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
KERNEL = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
SECONDS = 1000     # playwright counts milliseconds
CONTEXT = "const has = jupyterapp.shell.currentWidget.sessionContext; await has.ready;"
# The widget manager sends its requests first.
SETTLED = "await has.session.kernel.info; for (let k = 0; k < 3; k++) await has.session.kernel.requestCommInfo({});"
READY = f"(async () => {{ {CONTEXT} {SETTLED} }})()"
RESTARTED = f"(async () => {{ {CONTEXT} await has.session.kernel.restart(); {SETTLED} }})()"
IDLE = ".jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator[data-status='idle']"
RUN = """(async () => {
    const {commands} = window.jupyterapp;
    window.ended = false;
    await commands.execute('notebook:clear-all-cell-outputs');    // those of a kernel that is gone
    void commands.execute('notebook:run-all-cells').then(() => window.ended = true);
})()"""
KERNEL_STATE = """() => {
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session?.kernel;
    return kernel ? `${kernel.status}, ${kernel.connectionStatus}` : 'none';
}"""
TOKEN = secrets.token_hex()     # without it nobody else on this machine gets at the kernels of the tests
MESH = """
import trimesh
from recon.viz.figures import show_mesh
ball = trimesh.creation.icosphere(4)
show_mesh(ball, colors=ball.vertices/2 + .5)
"""


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found and os.environ.get("CI") == "true": pytest.fail("no chromium: apt-get install chromium")
    if not found: pytest.skip("no chromium on this machine: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    "A project with a small dataset, the explorer, and an executed notebook that shows a mesh."
    from recon.testing import ball_subject
    from recon.data.writer import write_index, write_subject

    folder = tmp_path_factory.mktemp("project")
    (folder/"settings.ini").write_text("[DEFAULT]\nlib_name = toy\n")
    (folder/"nbs").mkdir()
    shutil.copy(ROOT/"nbs"/"explore_data.ipynb", folder/"nbs")
    files = []
    for name in ("one", "two"):
        subject, body = ball_subject(name)
        if name == "two": subject = replace(subject, colors=1 - subject.colors)
        files.append(folder/"data"/"people"/f"{name}.h5")
        write_subject(files[-1], subject, body, views=6, size=64, points=4000)
    write_index(folder/"data"/"people.h5", files, body, {"train": ["one"], "test": ["two"]})
    cells = [new_code_cell(MESH.strip())]
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), folder/"nbs"/"mesh.ipynb")
    command = [BIN/"papermill", "nbs/mesh.ipynb"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment(folder))
    return folder


def environment(folder: Path) -> dict:
    "Jupyter's settings and signatures below `folder`, the question about news switched off."
    settings = folder/"jupyter"/"labconfig"/"page_config.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    names = "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR JUPYTERLAB_SETTINGS_DIR IPYTHONDIR".split()
    return os.environ | dict.fromkeys(names, str(folder/"jupyter")) | {"JUPYTER_TOKEN": TOKEN}


@pytest.fixture(scope="session")
def lab(project, kernels):
    "The address of a JupyterLab."
    chromium()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1", f"--ServerApp.root_dir={project}",
               "--LabApp.expose_app_in_browser=True", "--LabApp.collaborative=False"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    log = (project/"lab.log").open("w")
    server = subprocess.Popen(command, cwd=project, env=environment(project), stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/lab"
    try:
        for _ in range(120):
            if answers(address): break
            time.sleep(.5)
        else: pytest.fail(f"JupyterLab did not start: {(project/'lab.log').read_text()[-2000:]}")
        yield address
    finally:
        server.terminate()
        server.wait(20)


def answers(address: str) -> bool:
    try: urllib.request.urlopen(address, timeout=5).close()
    except OSError: return False
    return True


@pytest.fixture
def page(lab):
    "A browser page that remembers what went wrong in it."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(180*SECONDS)
        page.wrong = []
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
        page.goto(f"{lab.removesuffix('lab')}api/status?token={TOKEN}")      # keeps a cookie that stands for the token
        yield page
        page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")    # kernels that are left take memory
        browser.close()


def open_notebook(page, lab, name):
    page.goto(f"{lab}/tree/{name}?reset")
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell")


def run_until(page, selector, ended=True):
    """Run all cells until an output shows and, if `ended`, all have run.

    A kernel that loses its first command or stalls while it starts gets two more goes, started anew."""
    page.wait_for_function("window.jupyterapp !== undefined")
    page.wait_for_selector(IDLE)
    for attempt in range(3):
        page.wait_for_timeout(2*SECONDS)
        dialog = page.locator(".jp-Dialog button.jp-mod-accept")    # which kernel: the one proposed
        if dialog.count(): dialog.click()
        patience = f"new Promise(done => setTimeout(done, {60*SECONDS}))"
        page.evaluate(f"Promise.race([{RESTARTED if attempt else READY}, {patience}])")
        page.evaluate(RUN)
        try:
            shown = page.wait_for_selector(selector, timeout=120*SECONDS)
            if ended: page.wait_for_function("window.ended", timeout=120*SECONDS)
            return shown
        except TimeoutError: pass
    cells = [cell.inner_text()[-200:] for cell in page.query_selector_all(".jp-CodeCell")]
    state = page.evaluate(f"({KERNEL_STATE})()")
    dialogs = page.locator(".jp-Dialog").all_inner_texts()
    pytest.fail(f"no {selector} after running all cells; kernel: {state}; cells: {cells}; "
                f"dialogs: {dialogs}; console: {page.wrong}")


def ours(messages) -> list:
    "What our outputs could have caused; a browser without a network complains of other things."
    words = ("plotly", "widget", "mesh3d", "webgl", "uncaught")
    return [text for text in messages if any(word in text.lower() for word in words)]


def pixels(element) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB"), float)
