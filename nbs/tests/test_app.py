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

from recon.app.work import FILES, open_work, start_work
from recon.photo.weights import has_networks
from recon.testing import example_photo

SCREENSHOTS = os.environ.get("RECON_SCREENSHOTS")     # a folder for pictures to look at
needs_networks = pytest.mark.skipif(not has_networks(), reason="`make photo` brings the networks")
SHARED = ROOT.parent/"shared"/"photos"/"010.png"
COARSE = dict(resolution=64, texture=256, texture_faces=3000)      # of meshes whose making is not what is tested
PHOTO = SHARED if SHARED.exists() else ROOT/"data"/"examples"/"images"/"casual.png"


def start(*options, folder):
    "The server as `make app` starts it, and the first lines that it prints."
    pytest.importorskip("voila")
    chromium()
    command = [sys.executable, "-m", "recon.app.serve", "--port", "0", "--save_root", str(folder), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=(folder/"log").open("w"), text=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def app(tmp_path_factory, kernels):
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
    work.state.files = COARSE
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
    try: page.wait_for_function("text => document.body.innerText.includes(text)", arg=text, timeout=seconds*SECONDS)
    except Exception:
        if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/failed.png")
        raise


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
    for look in ("normals", "origin"):
        shown, button = pixels(canvas), page.get_by_role("button", name=look, exact=True)
        button.click()
        page.wait_for_timeout(2*SECONDS)
        assert np.abs(pixels(canvas) - shown).mean() > 1 and button.get_attribute("aria-pressed") == "true", look
    page.get_by_text("generated: a back view that a network painted").wait_for()      # what the colours mean
    page.get_by_label("clip", exact=True).select_option("y")
    page.locator(".noUi-handle[aria-label=at]").focus()
    shown = pixels(canvas)
    for _ in range(5): page.keyboard.press("PageDown")
    page.wait_for_timeout(2*SECONDS)
    if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/clipped.png", full_page=True)
    assert (pixels(canvas) != shown).any(-1).mean() > .004, "the head is not cut away"
    with page.expect_download() as coming: page.get_by_role("button", name="download GLB", exact=True).click()
    coming.value.save_as(tmp_path/"mesh.glb")
    mesh = trimesh.load_mesh(tmp_path/"mesh.glb", process=False)
    assert len(mesh.faces) > 10_000 and "_ORIGIN" in mesh.vertex_attributes
    assert (tmp_path/"mesh.glb").read_bytes() == (folder/"Ann-Bo"/"meshes"/"Ann-Bo.glb").read_bytes()
    assert not page.wrong
    ours = (app[1].split("?")[0], "data:", "blob:")
    assert not [url for url in page.fetched if not url.startswith(ours)], "nobody else hears of a visit"


def test_what_a_person_corrects_is_fitted_saved_opened_again_and_downloaded(app, begun, page, tmp_path):
    "By keyboard, by mouse and by the controls."
    folder, _ = app
    before = json.loads((folder/"casual"/"fit"/"casual.json").read_text())["parameters"]["angles"]
    page.get_by_label("open").select_option("casual")
    wait_for_text(page, "opening casual: done")
    page.locator("[data-name=left_wrist]").focus()
    for _ in range(3): page.keyboard.press("Shift+ArrowUp")
    wait_for_text(page, "left wrist moved")
    drag(page, "right_knee", -.02, 0)
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
    places = opened.keypoints()
    assert places["left_wrist"][1] == pytest.approx(begun.keypoints()["left_wrist"][1] - .06, abs=.002)
    crossed = page.locator("li", has_text="the arms are crossed: the hidden forearm is a guess")
    assert not crossed.count()
    drag(page, "left_wrist", *np.subtract(places["right_elbow"], places["left_wrist"])[:2])
    crossed.wait_for()
    if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/crossed.png")
    page.get_by_role("button", name="undo: left wrist moved").click()
    wait_for_text(page, "taken back: left wrist moved")
    assert not crossed.count()
    page.get_by_role("button", name="reconstruct", exact=True).click()
    wait_for_text(page, "reconstructing: done")
    check_downloads(page, tmp_path)
    if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/downloads.png", full_page=True)
    assert not page.wrong


def check_downloads(page, folder):
    "Press every button that offers a file, and open what comes with other people's readers."
    files = {}
    for button in page.get_by_role("button", name="download").all():
        with page.expect_download() as coming: button.click()
        files[button.inner_text().removeprefix("download ")] = path = folder/coming.value.suggested_filename
        assert not path.exists(), f"two downloads are called {path.name}"
        coming.value.save_as(path)
    assert set(files) == set(FILES)
    kinds = [kind for kind, path in files.items() if path.suffix in (".glb", ".obj")]
    meshes = {kind: trimesh.load_mesh(files[kind], process=False) for kind in kinds}
    full, obj = meshes["GLB"], meshes["OBJ"]
    assert len(full.faces) > 3000 and full.visual.vertex_colors[:, :3].std() > 20
    assert obj.faces.shape == full.faces.shape and np.allclose(obj.bounds, full.bounds, atol=1e-4)
    means = [mesh.visual.vertex_colors[:, :3].mean(0) for mesh in (full, obj)]
    assert np.abs(means[1] - means[0]).max() < 2
    pixels_wide = {"textured GLB": 256, "rigged GLB": 256, "T-pose GLB": 256, "light GLB": 1024}
    for kind, size in pixels_wide.items():
        texture = meshes[kind].visual.material.baseColorTexture
        assert texture.size == (size, size) and np.asarray(texture.convert("RGB")).std() > 10, kind
    mask = Image.open(files["mask of origins"])
    assert mask.mode == "P" and mask.size == (256, 256) and "seen in the photo" in mask.text["0 seen"]
    assert joints_of(files["rigged GLB"]) == joints_of(files["T-pose GLB"]) > 40
    across, tall, _ = meshes["T-pose GLB"].extents
    assert .8 < across/tall < 1.2, "arms are stretched out"
    check_page(page.context.browser, files["page"])


def joints_of(path):
    "How many joints the skin of a GLB file names: its first chunk is JSON (glTF 2.0, 4.4.3)."
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    return len(json.loads(data[20:20 + length])["skins"][0]["joints"])


def check_page(browser, path):
    "A downloaded page opens from disk without a network, and shows its mesh."
    alone = browser.new_context(offline=True).new_page()
    wrong = []
    alone.on("pageerror", lambda error: wrong.append(str(error)))
    alone.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    alone.goto(path.as_uri())
    alone.wait_for_function("document.body.dataset.ready === 'true'", timeout=60*SECONDS)
    frame = alone.wait_for_selector("iframe")
    for _ in range(60):
        alone.wait_for_timeout(SECONDS/2)
        shown = pixels(frame)[4:-4, 4:-4]
        if (np.abs(shown - shown[0, 0]).max(-1) > 20).mean() > .02: break
    else: pytest.fail("no mesh is drawn")
    if SCREENSHOTS: alone.screenshot(path=f"{SCREENSHOTS}/downloaded_page.png", full_page=True)
    assert not wrong
    alone.context.close()


def body_wrist(folder):
    "x, y in [0,1] of the canvas where the fit of a folder has the left wrist."
    x, y, _ = open_work(folder).fit.body()[1][9].tolist()
    return np.array([(x + 1)/2, (1 - y)/2])


def angles(folder):
    return json.loads((folder/"fit"/f"{folder.name}.json").read_text())["parameters"]["angles"]


def settle(page, selector):
    "Wait until an element has stayed where it is for half a second: what is shown after a step may move it."
    element, before = page.locator(selector), None
    while (box := element.bounding_box()) != before:
        before = box
        page.wait_for_timeout(SECONDS/2)


def drag(page, name, right, down):
    "Drag a keypoint by a share of the picture; where it was let go, in shares of the picture."
    mark = page.locator(f"[data-name={name}]")
    mark.hover()
    settle(page, ".recon-points")
    mark.hover()                                # it may have moved away from the mouse
    box, frame = mark.bounding_box(), page.locator(".recon-points").bounding_box()
    x, y = box["x"] + box["width"]/2, box["y"] + box["height"]/2
    to = x + right*frame["width"], y + down*frame["height"]
    page.mouse.down()
    page.mouse.move(*to, steps=5)
    page.mouse.up()
    return np.array([(to[0] - frame["x"])/frame["width"], (to[1] - frame["y"])/frame["height"]])


def picture_of(page):
    return page.locator(".recon-points image").get_attribute("href")


def test_steps_are_taken_back_by_button_and_keyboard_one_after_the_other(app, begun, page):
    "A drag, a limb in front, a slider, a fit and a back view; all is as before, on disk, too."
    folder = app[0]/"casual"
    work = open_work(folder)
    work.choose_back("small" if (folder/"backs"/"small").exists() else "mirror", 0)
    (folder/"undo.json").unlink(missing_ok=True)
    page.get_by_label("open").select_option("casual")
    wait_for_text(page, "opening casual: done")
    undo = page.get_by_role("button", name="undo")
    assert undo.is_disabled()
    before = [angles(folder), open_work(folder).keypoints(), json.loads((folder/"work.json").read_text())]
    drag(page, "left_wrist", .05, -.06)
    wait_for_text(page, "undo: left wrist moved")
    page.get_by_label("right arm").select_option("behind")
    wait_for_text(page, "undo: right arm behind")
    page.locator(".widget-inline-hbox", has=page.get_by_text("weight", exact=True)).locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "undo: weight")
    page.get_by_role("button", name="fit again", exact=True).click()
    wait_for_text(page, "undo: fitted again")
    assert angles(folder) != before[0]
    page.get_by_role("button", name="the front, mirrored").click()
    wait_for_text(page, "undo: another back view")
    if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/undo.png")
    undo.focus()
    for back in ("another back view", "fitted again", "weight"):
        page.keyboard.press("Enter")
        wait_for_text(page, f"taken back: {back}")
        if back == "fitted again": assert angles(folder) == before[0]
        page.wait_for_timeout(SECONDS)
        undo.focus()
    page.locator("[data-name=nose]").focus()
    for back in ("right arm behind", "left wrist moved"):
        page.keyboard.press("Control+z")
        wait_for_text(page, f"taken back: {back}")
    assert undo.is_disabled()
    assert [angles(folder), json.loads((folder/"work.json").read_text())] == [before[0], before[2]]
    assert open_work(folder).keypoints() == before[1]
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
def test_what_to_mistrust_is_said_in_plain_words(app, page):
    "A photo that ends within the person, and one of two people."
    with Image.open(PHOTO).convert("RGBA") as cut_out:
        whole = Image.new("RGB", cut_out.size, (150, 160, 170))
        whole.paste(cut_out, mask=cut_out)
    wide = Image.new("RGB", (2*whole.width, whole.height))
    for left in (0, whole.width): wide.paste(whole, (left, 0))
    page.get_by_label("go on to the mesh by itself").uncheck()
    knees = whole.crop((0, 0, whole.width, int(.62*whole.height)))
    cases = ("knees.png", knees, "the photo ends within the person"), ("pair.png", wide, "2 people are in the photo")
    for name, image, said in cases:
        file = io.BytesIO()
        image.save(file, "PNG")
        upload(page, name, file.getvalue())
        wait_for_text(page, "To mistrust")
        page.locator("li", has_text=said).first.wait_for()
        if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/{name}")
    wait_for_text(page, "fitting a body: done")
    for limb in ("left arm", "right leg"):
        chosen = page.get_by_label(limb, exact=True).evaluate("list => list.selectedOptions[0]?.text ?? ''")
        assert chosen.replace("\xa0", " ") == "as fitted"
    assert page.get_by_label("person", exact=True).locator("option").count() == 3, "the other one can be chosen"
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


@pytest.fixture
def photo_notebook(project, lab):
    "`photo.ipynb` in JupyterLab in a browser, run, with an example that was begun before."
    from browser import open_notebook, run_until
    from playwright.sync_api import sync_playwright

    shutil.copy(ROOT/"nbs"/"photo.ipynb", project/"nbs")
    if not (project/"outputs"/"photo"/"casual").exists(): start_work(example_photo(project/"outputs"/"photo"/"casual"))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1400})
        page.set_default_timeout(180*SECONDS)
        page.wrong = []
        page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
        page.goto(f"{lab.removesuffix('lab')}api/status?token={TOKEN}")
        open_notebook(page, lab, "nbs/photo.ipynb")
        run_until(page, ".recon-drop input")
        yield page
        page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
        browser.close()


def test_it_is_the_same_notebook_in_jupyterlab(photo_notebook, project):
    "A bad file is refused; a keypoint follows the mouse, the fit follows the keypoint, and a limb goes behind."
    from browser import ours

    page, folder = photo_notebook, project/"outputs"/"photo"/"casual"
    upload(page, "letter.jpg", b"Dear Ann, ...")
    wait_for_text(page, "letter.jpg is not a picture that can be read")
    page.get_by_label("open", exact=True).select_option("casual")
    wait_for_text(page, "opening casual: done")
    before, picture, wrist = angles(folder), picture_of(page), body_wrist(folder)
    target = drag(page, "left_wrist", -.06, -.05)
    wait_for_text(page, "left wrist moved; fit again to follow it")
    lies = open_work(folder).keypoints()["left_wrist"][:2]
    assert np.allclose(lies, target, atol=.004), "it lies where it was let go"
    page.get_by_label("left arm").select_option("behind")
    page.get_by_role("button", name="fit again", exact=True).click()
    wait_for_text(page, "fitting again: done")
    changed = "old => document.querySelector('.recon-points image').getAttribute('href') != old"
    page.wait_for_function(changed, arg=picture)
    if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/lab.png")
    assert angles(folder) != before
    moved = body_wrist(folder)
    assert np.linalg.norm(moved - target) < .6*np.linalg.norm(wrist - target), "the hand goes where it was dragged"
    work = open_work(folder)
    assert work.state.front == {"left_arm": False} and work.fit.given.fronts == {"left_arm": -1.}
    page.get_by_role("button", name="undo: fitted again").click()
    wait_for_text(page, "taken back: fitted again")
    assert angles(folder) == before
    assert not ours(page.wrong)
