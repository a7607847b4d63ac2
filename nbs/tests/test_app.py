"""The page for one photo in a real browser: upload, wait, look at the mesh, download it; and what is refused.

`python -m recon.app.serve` runs as a user starts it, with a folder of photos of its own."""
import io
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import trimesh
from browser import FLAGS, SECONDS, chromium, pixels
from conftest import ROOT
from PIL import Image

from recon.photo.weights import has_networks

needs_networks = pytest.mark.skipif(not has_networks(), reason="`make photo` brings the networks")
SHARED = ROOT.parent/"shared"/"photos"/"010.png"
PHOTO = SHARED if SHARED.exists() else ROOT/"data"/"examples"/"images"/"casual.png"


def start(*options, folder):
    "The server as `make app` starts it, and the first lines that it prints."
    pytest.importorskip("voila")
    chromium()
    command = [sys.executable, "-m", "recon.app.serve", "--port", "0", "--save_root", str(folder), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=(folder/"log").open("w"), text=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    "The folder and the address, with its token, of a running page."
    folder = tmp_path_factory.mktemp("photos")
    server = start(folder=folder)
    try:
        line = server.stdout.readline()
        assert "?token=" in line, (folder/"log").read_text()[-3000:]
        yield folder, line.split()[1]
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def page(app):
    "A browser page on the app that remembers what went wrong in it."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1500}, accept_downloads=True)
        page.set_default_timeout(120*SECONDS)
        page.wrong = []
        page.fetched = []
        page.on("request", lambda request: page.fetched.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
        page.goto(app[1])
        page.wait_for_selector(".recon-drop input")
        yield page
        browser.close()


def upload(page, name, data):
    page.set_input_files(".recon-drop input", files=[dict(name=name, mimeType="image/png", buffer=data)])


def wait_for_text(page, text, seconds=240):
    page.wait_for_function("text => document.body.innerText.includes(text)", arg=text, timeout=seconds*SECONDS)


def picture(kind, mode="RGB", size=(80, 80)):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


@needs_networks
def test_a_photo_becomes_a_mesh_that_turns_and_downloads(app, page, tmp_path):
    folder, _ = app
    begun = time.monotonic()
    upload(page, "Ann & Bo.png", PHOTO.read_bytes())
    wait_for_text(page, "reconstructing: done")
    print(f"from upload to mesh: {time.monotonic() - begun:.0f} s")
    canvas = page.wait_for_selector("canvas")
    page.wait_for_timeout(3*SECONDS)
    shown = pixels(canvas)
    page.screenshot(path=os.environ.get("RECON_SCREENSHOT", str(tmp_path/"app.png")), full_page=True)
    assert (np.abs(shown - shown[0, 0]).max(-1) > 20).mean() > .02, "no mesh is drawn"
    page.get_by_role("button", name="back", exact=True).click()
    page.wait_for_timeout(2*SECONDS)
    assert np.abs(pixels(canvas) - shown).mean() > 1, "the mesh does not turn"
    with page.expect_download() as coming: page.get_by_role("button", name="download GLB", exact=True).click()
    coming.value.save_as(tmp_path/"mesh.glb")
    mesh = trimesh.load_mesh(tmp_path/"mesh.glb", process=False)
    assert len(mesh.faces) > 10_000 and "_ORIGIN" in mesh.vertex_attributes
    assert (tmp_path/"mesh.glb").read_bytes() == (folder/"Ann-Bo"/"meshes"/"Ann-Bo.glb").read_bytes()
    assert not page.wrong
    ours = (app[1].split("?")[0], "data:", "blob:")
    assert not [url for url in page.fetched if not url.startswith(ours)], "nobody else hears of a visit"
