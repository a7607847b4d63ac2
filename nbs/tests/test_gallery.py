"""The gallery in JupyterLab in a real browser: results are sorted, chosen by their warnings, and turned."""
import json
import os
import shutil

import numpy as np
import pytest
import trimesh
from browser import SECONDS, open_notebook, ours, pixels, run_until
from conftest import ROOT
from PIL import Image

SCREENSHOTS = os.environ.get("RECON_SCREENSHOTS")     # a folder for pictures to look at
REAL = os.environ.get("RECON_RESULTS")                # a folder of results to look at, beside those of the test
RESULTS = {   # name: share seen, parts of the mesh, warnings
    "ann": (.46, 1, []),
    "bo": (.44, 1, ["the person is 237 pixels tall"]),
    "cy": (.31, 1, ["the arms are crossed: the hidden forearm is a guess", "the person is 180 pixels tall"]),
    "di": (.40, 2, []),
}
TITLES = "[...document.querySelectorAll('.recon-result b')].map(title => title.textContent)"
TAKES_KEYS = ".recon-access select[data-lm-suppress-shortcuts]"    # from then on arrow keys are not JupyterLab's


@pytest.fixture(scope="session")
def results(project):
    "A folder of results as 05 leaves it, with meshes that turn."
    folder = project/"outputs"/"meshes"
    folder.mkdir(parents=True)
    for k, (name, (seen, parts, warnings)) in enumerate(RESULTS.items()):
        mesh = dict(parts=parts, watertight=True)
        card = dict(key="0a", files=[], warnings=warnings, origin=dict(seen=seen), mesh=mesh)
        (folder/f"{name}.json").write_text(json.dumps(card))
        sheet = np.full((120, 240, 3), 255, np.uint8)
        sheet[30:110, 20:80] = sheet[30:110, 140:220] = 60*np.array([k, 1, 2])
        Image.fromarray(sheet).save(folder/f"{name}.jpg")
        ball = trimesh.creation.icosphere(3)
        ball.visual.vertex_colors = ((.5 - ball.vertices[:, [1, 2, 0]]/2)*255).astype(np.uint8)
        ball.export(folder/f"{name}.glb")
    if REAL: shutil.copytree(REAL, project/"outputs"/"real")
    shutil.copy(ROOT/"nbs"/"gallery.ipynb", project/"nbs")
    return folder


@pytest.fixture
def gallery(page, lab, results):
    open_notebook(page, lab, "nbs/gallery.ipynb")
    run_until(page, ".recon-result img")
    page.wait_for_selector(TAKES_KEYS)
    yield page
    assert page.get_by_text("Traceback").count() == 0
    assert not ours(page.wrong)


def photograph(page, name):
    if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/{name}.png")


def wait_for_titles(page, wanted):
    mine = f"{TITLES}.filter(title => {json.dumps(list(RESULTS))}.includes(title))"
    page.wait_for_function(f"wanted => JSON.stringify({mine}) === wanted", timeout=60*SECONDS,
                           arg=json.dumps(wanted, separators=(",", ":")))


def test_results_are_sorted_and_chosen_by_their_warnings(gallery):
    wait_for_titles(gallery, ["cy", "bo", "di", "ann"])
    photograph(gallery, "gallery")
    order, shown = gallery.get_by_label("order", exact=True), gallery.get_by_label("show", exact=True)
    order.select_option("least seen first")
    wait_for_titles(gallery, ["cy", "di", "bo", "ann"])
    order.focus()
    gallery.keyboard.press("ArrowDown")                     # the keyboard is enough
    wait_for_titles(gallery, ["ann", "bo", "cy", "di"])
    kinds = [text.replace("\xa0", " ") for text in shown.locator("option").all_inner_texts()]
    assert any(kind.startswith("the person is … pixels tall (") for kind in kinds), kinds
    shown.select_option(index=kinds.index("the arms are crossed: the hidden forearm is a guess (1)"))
    wait_for_titles(gallery, ["cy"])
    assert "1 shown" in gallery.locator("[role=status]").first.inner_text()
    card = gallery.locator(".recon-result").first
    assert "! the person is 180 pixels tall" in card.inner_text() and "31% seen" in card.inner_text()


def test_a_result_is_opened_by_the_keyboard_and_turns(gallery):
    wait_for_titles(gallery, ["cy", "bo", "di", "ann"])
    chosen = gallery.locator(".recon-result", has_text="bo").last
    chosen.focus()
    gallery.keyboard.press("Enter")
    canvas = gallery.wait_for_selector(".recon-live canvas")
    gallery.wait_for_timeout(3*SECONDS)
    before = pixels(canvas)
    assert (np.abs(before - before[0, 0]).max(-1) > 20).mean() > .02, "no mesh is drawn"
    assert chosen.get_attribute("aria-pressed") == "true"
    gallery.get_by_role("button", name="back", exact=True).click()
    gallery.wait_for_timeout(2*SECONDS)
    photograph(gallery, "gallery_mesh")
    turned = pixels(canvas)
    assert np.abs(turned - before).mean() > 1, "it does not turn"
    gallery.locator(".k3d-target").first.focus()
    for _ in range(6): gallery.keyboard.press("ArrowLeft")
    gallery.wait_for_timeout(2*SECONDS)
    assert np.abs(pixels(canvas) - turned).mean() > 1, "arrow keys do not turn it"
    assert gallery.get_by_text("outputs/meshes/bo.glb").count()
