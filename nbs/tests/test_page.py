"The page to send, opened from disk in a real browser."
import json
import os
from contextlib import contextmanager

import numpy as np
import pytest
import trimesh
from browser import FLAGS, SECONDS, chromium, pixels
from conftest import ROOT

from recon.mesh.origin import ORIGIN_COLORS
from recon.viz.page import Page, PageMesh, write_page

SCREENSHOTS = os.environ.get("RECON_SCREENSHOTS")     # a folder for pictures to look at


def ball_page(folder):
    ball = trimesh.creation.icosphere(5, .8)
    red = np.tile(np.uint8([220, 20, 20]), (len(ball.vertices), 1))
    mesh = PageMesh(ball.vertices, ball.faces, {"red": red, "blue": red[:, ::-1]})
    write_page(folder/"page.html", Page("<b>ball</b>", mesh, {"photo": np.full((40, 30, 3), .5)}, {"P2S": "10.5"}))
    return folder/"page.html"


@contextmanager
def opened(path, width, height):
    "A page opened from disk, small enough to send; at the end nothing was fetched and the console held no error."
    from playwright.sync_api import sync_playwright

    assert path.stat().st_size < 8e6
    wrong, fetched = [], []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("document.body.dataset.ready === 'true'", timeout=60*SECONDS)
        yield page
        browser.close()
    assert not wrong
    assert not [url for url in fetched if not url.startswith(("file:", "data:", "blob:", "about:"))]


def test_it_shows_the_mesh_turns_it_and_changes_its_colours_without_a_network(tmp_path):
    with opened(ball_page(tmp_path), 1000, 1000) as page:
        assert page.locator("h1").inner_text() == "<b>ball</b>", "a title is text"
        frame = page.wait_for_selector("iframe")

        def middle():
            page.wait_for_timeout(2*SECONDS)
            picture = pixels(frame)
            return picture[picture.shape[0]//2, picture.shape[1]//2]

        red, _, blue = middle()
        assert red > blue + 60
        page.get_by_role("button", name="blue").click()
        red, _, blue = middle()
        assert blue > red + 60


@pytest.fixture(scope="module")
def reconstructed(tmp_path_factory):
    "An example person by stage 05 with the weights that come with the project."
    from recon.reconstruct import Reconstruct, main

    if not (ROOT/"data"/"models"/"recon").exists(): pytest.skip("no weights in data/models")
    folder = tmp_path_factory.mktemp("meshes")
    main(Reconstruct(model=str(ROOT/"data"/"models"/"recon"), data_root=str(ROOT/"data"/"examples"),
                     subject="casual", resolution=160, save_root=str(folder)))
    return folder/"casual.html"


def test_stage_05_writes_a_page_that_opens_from_disk(reconstructed):
    card = json.loads(reconstructed.with_suffix(".json").read_text())
    assert "casual.html" in card["files"] and card["back"] == "given"
    assert abs(sum(card["origin"].values()) - 1) < 1e-6 and .3 < card["origin"]["seen"] < .6
    with opened(reconstructed, 1200, 1600) as page:
        text = page.inner_text("body")
        missing = {"cut-out", "back view", "To mistrust", "seen in the photo", "stage 3", "faces"}
        assert not [part for part in missing if part not in text]
        frame = page.wait_for_selector("iframe")
        shown = {}
        for mode in ("colours", "normals", "origin"):
            page.get_by_role("button", name=mode, exact=True).click()
            page.wait_for_timeout(2*SECONDS)
            shown[mode] = pixels(frame)
        page.screenshot(path=str(reconstructed.with_suffix(".png")), full_page=True)
        if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/page.png", full_page=True)
    assert np.abs(shown["colours"] - shown["normals"]).mean() > 1 < np.abs(shown["origin"] - shown["normals"]).mean()
    blue = shown["origin"][..., 2] - shown["origin"][..., 0] > 40
    assert blue.mean() > .01, f"the front is {ORIGIN_COLORS[0]}, seen"


def test_it_fits_a_narrow_window_and_turns_by_the_keyboard(reconstructed):
    with opened(reconstructed, 400, 900) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, "it is wider than a telephone"
        page.locator("iframe").scroll_into_view_if_needed()
        frame = page.wait_for_selector("iframe")
        page.wait_for_timeout(2*SECONDS)
        before = pixels(frame)
        mesh = page.frame_locator("iframe").get_by_label("Mesh: arrow keys turn it")
        mesh.focus()
        for _ in range(9): page.keyboard.press("ArrowRight")
        page.wait_for_timeout(2*SECONDS)
        if SCREENSHOTS: page.screenshot(path=f"{SCREENSHOTS}/page_narrow.png")
        assert np.abs(pixels(frame) - before).mean() > 1, "it does not turn"


def test_no_page_where_it_is_switched_off(reconstructed, tmp_path):
    from recon.reconstruct import Reconstruct, main

    main(Reconstruct(model=str(ROOT/"data"/"models"/"recon"), data_root=str(ROOT/"data"/"examples"),
                     subject="casual", resolution=64, save_root=str(tmp_path), page=False))
    assert not (tmp_path/"casual.html").exists() and (tmp_path/"casual.glb").exists()
