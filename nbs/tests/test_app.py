"""The page for one photo in a real browser: upload, wait, look at the mesh, download it; and what is refused.

`python -m recon.app.serve` runs as a user starts it, with a folder of photos of its own."""
import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import trimesh
from browser import FLAGS, SECONDS, TOKEN, chromium, pixels
from conftest import ROOT
from PIL import Image

from recon.app.work import open_work, start_work
from recon.photo.weights import has_networks
from recon.testing import example_photo

SCREENSHOTS = os.environ.get("RECON_SCREENSHOTS")     # a folder for pictures to look at
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


@pytest.fixture(scope="module")
def begun(app):
    "Work that another process has begun: an example, fitted and with back views."
    work = start_work(example_photo(app[0]/"casual"))
    work.paint_backs()
    return work


@pytest.fixture
def page(app):
    "A browser page on the app that remembers what went wrong in it."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1500}, accept_downloads=True)
        page.set_default_timeout(180*SECONDS)
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
    if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/mesh.png")
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


def test_what_a_person_corrects_is_fitted_saved_and_opened_again(app, begun, page):
    "By keyboard, by mouse and by the controls."
    folder, _ = app
    before = json.loads((folder/"casual"/"fit"/"casual.json").read_text())["parameters"]["angles"]
    page.get_by_label("open").select_option("casual")
    wait_for_text(page, "opening casual: done")
    page.locator("[data-name=left_wrist]").focus()
    for _ in range(3): page.keyboard.press("Shift+ArrowUp")
    wait_for_text(page, "left wrist moved")
    mark = page.locator("[data-name=right_knee]")
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    middle = box["x"] + box["width"]/2, box["y"] + box["height"]/2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 12, middle[1], steps=4)
    page.mouse.up()
    wait_for_text(page, "right knee moved")
    page.get_by_label("left arm").select_option("in front")
    page.get_by_role("button", name="fit again", exact=True).click()
    wait_for_text(page, "fitting again: done")
    if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/corrected.png")
    state = json.loads((folder/"casual"/"work.json").read_text())
    assert state["moved"] == ["left_wrist", "right_knee"] and state["front"] == {"left_arm": True}
    assert json.loads((folder/"casual"/"fit"/"casual.json").read_text())["parameters"]["angles"] != before
    page.get_by_role("button", name="the front, mirrored").click()
    wait_for_text(page, "another back view is used")
    opened = open_work(folder/"casual")
    assert opened.state.back == ["mirror", 0]
    assert opened.keypoints()["left_wrist"][1] == pytest.approx(begun.keypoints()["left_wrist"][1] - .06, abs=.002)
    assert not page.wrong


def test_bad_uploads_are_refused_in_plain_words(app, page, tmp_path):
    folder, _ = app
    before = {path.name for path in folder.iterdir()}
    upload(page, "letter.jpg", b"Dear Ann, ...")
    wait_for_text(page, "letter.jpg is not a picture that can be read")
    upload(page, "wall.png", picture("PNG", "1", (10_000, 10_000)))
    wait_for_text(page, "100 megapixels; at most 60 are taken")
    with (tmp_path/"film.jpg").open("wb") as film: film.truncate(200_000_000)
    page.set_input_files(".recon-drop input", tmp_path/"film.jpg")
    wait_for_text(page, "film.jpg has 200 MB; at most 40 MB are taken")
    if has_networks():
        upload(page, "sky.png", picture("PNG", "RGB", (400, 500)))
        wait_for_text(page, "nobody was found")
    for _ in range(50):                       # the folder goes after the message
        left = {path.name for path in folder.iterdir()} - before - {".queue"}
        if not left: break
        time.sleep(.1)
    assert not left, "nothing stays"
    assert not page.wrong


@needs_networks
def test_two_at_once_take_turns_and_a_page_closed_in_mid_run_holds_nobody_up(app, page):
    folder, address = app
    second = page.context.browser.new_page(viewport={"width": 1300, "height": 1500})
    second.set_default_timeout(180*SECONDS)
    second.goto(address)
    second.wait_for_selector(".recon-drop input")
    for each in (page, second): each.get_by_label("go on to the mesh by itself").uncheck()
    upload(page, "first.png", PHOTO.read_bytes())
    wait_for_text(page, "cutting the person out")
    upload(second, "second.png", PHOTO.read_bytes())
    wait_for_text(second, "before this one")
    page.close()
    wait_for_text(second, "fitting a body: done")
    assert (folder/"second"/"body"/"second.ply").exists()
    assert open_work(folder/"first").fit, "the photo of the page that was closed is not lost"


def test_nobody_gets_in_without_the_token(app):
    address = app[1].split("?")[0]
    for call in ("api/kernels", "voila/kernels", ""):
        try: answer = urllib.request.urlopen(address + call, timeout=20)
        except urllib.error.HTTPError as refused: assert refused.code in (403, 404)
        else: assert "login" in answer.url, f"{call} answers without the token"


def test_it_listens_on_this_machine_only_unless_that_is_asked_for(tmp_path, capsys):
    from recon.app.serve import App, check_host

    server = start("--host", "0.0.0.0", folder=tmp_path)
    assert server.wait(120) == 1
    said = (tmp_path/"log").read_text()
    assert "can be reached by other machines" in said and "beyond_loopback" in said
    check_host(App(host="0.0.0.0", beyond_loopback=True))
    assert "warning: 0.0.0.0 can be reached by other machines" in capsys.readouterr().err


def test_it_is_the_same_notebook_in_jupyterlab(project, lab, tmp_path):
    from browser import open_notebook, ours, run_until
    from playwright.sync_api import sync_playwright

    shutil.copy(ROOT/"nbs"/"photo.ipynb", project/"nbs")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.wrong = []
        page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
        page.goto(f"{lab.removesuffix('lab')}api/status?token={TOKEN}")
        open_notebook(page, lab, "nbs/photo.ipynb")
        run_until(page, ".recon-drop input")
        upload(page, "letter.jpg", b"Dear Ann, ...")
        wait_for_text(page, "letter.jpg is not a picture that can be read")
        assert not ours(page.wrong)
        page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
        browser.close()
