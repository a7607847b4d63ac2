"""The explorer in JupyterLab in a real browser: what is chosen changes what is seen, and nothing fails."""
import os
import shutil

import numpy as np
import pytest
from browser import SECONDS, open_notebook, ours, pixels, run_until
from conftest import ROOT

SCREENSHOTS = os.environ.get("RECON_SCREENSHOTS")     # a folder for pictures to look at
PLOT = "document.querySelector('.js-plotly-plot')"
PICTURE = "document.querySelector('.jp-OutputArea img.explore-pictures')"


@pytest.fixture
def explorer(page, lab):
    "The page after all its cells have run."
    open_notebook(page, lab, "nbs/explore_data.ipynb")
    run_until(page, ".jp-OutputArea img.explore-pictures")
    yield page
    assert page.get_by_text("Traceback").count() == 0
    assert not ours(page.wrong)


def control(page, name: str):
    return page.locator(".widget-inline-hbox", has=page.get_by_text(name, exact=True)).first


def choose(page, name: str, label: str): control(page, name).locator("select").select_option(label=label)


def changed(page, before: str) -> str:
    "The source of the picture once it is another and drawn."
    page.wait_for_function(f"old => {PICTURE}.src != old && {PICTURE}.complete", arg=before)
    return page.evaluate(f"{PICTURE}.src")


def test_sliders_and_dropdowns_change_the_pictures(explorer):
    source, picture = explorer.evaluate(f"{PICTURE}.src"), explorer.wait_for_selector("img.explore-pictures")
    for name in ("view", "light"):
        before, handle = pixels(picture), control(explorer, name).locator(".noUi-handle")
        assert before.std() > 20
        for _ in range(5 if name == "light" else 1):
            handle.focus()
            handle.press("ArrowRight")
            source = changed(explorer, source)
        assert np.abs(pixels(picture) - before).mean() > .5, f"{name}: the picture did not change"
    choose(explorer, "subject", "two  a ball")
    changed(explorer, source)
    view = control(explorer, "view").locator(".widget-readout").inner_text()
    assert view == "1", "another subject is seen from the same view"
    for panel in "explore-thumbnails", "explore-statistics":
        assert pixels(explorer.wait_for_selector(f"img.{panel}")).std() > 20


def test_points_and_surfaces_in_3d_follow_what_is_chosen(explorer):
    explorer.wait_for_selector(".js-plotly-plot .gl-container canvas", state="attached")
    plot = explorer.wait_for_selector(".js-plotly-plot", state="attached")
    plot.scroll_into_view_if_needed()

    def kinds(): return explorer.evaluate(f"({PLOT}?.data ?? []).map(trace => trace.type)")

    explorer.wait_for_function(f"{PLOT}.data.length == 2")
    assert kinds() == ["scatter3d", "mesh3d"]
    assert explorer.evaluate(f"{PLOT}.data[1].intensity !== undefined"), "the scan by its distance to the body"
    surfaces = {"scan": ["mesh3d"], "body": ["mesh3d"], "body in scan": ["mesh3d"]*2, "distance": ["mesh3d"]}
    for surface, found in surfaces.items():
        looked = pixels(explorer.wait_for_selector(".js-plotly-plot"))
        choose(explorer, "surface", surface)
        for _ in range(60):
            explorer.wait_for_timeout(.5*SECONDS)
            if sorted(kinds()) != sorted(["scatter3d"] + found): continue
            seen = pixels(explorer.wait_for_selector(".js-plotly-plot"))
            if seen.shape == looked.shape and np.abs(seen - looked).mean() > .1: break
        else: pytest.fail(f"{surface} looks as what was there before: {kinds()}")
    color = f"String(({PLOT}?._fullData ?? []).find(trace => trace.type == 'scatter3d')?.marker.color[0])"
    for points in "colour", "normal":
        before = explorer.evaluate(color)
        choose(explorer, "points by", points)
        explorer.wait_for_function(f"old => ![old, 'undefined'].includes({color})", arg=before, timeout=60*SECONDS)


def test_a_turned_view_stays_when_another_surface_is_chosen(explorer):
    "What plotly tells when a figure is turned goes to the kernel, and the next figure begins there."
    explorer.wait_for_selector(".js-plotly-plot .gl-container canvas", state="attached")
    explorer.wait_for_function(f"{PLOT}.data.length == 2 && {PLOT}.reconHeard")
    eyes = f"['scene', 'scene2'].map(name => {PLOT}?._fullLayout?.[name]?.camera?.eye?.x ?? null)"
    front = explorer.evaluate(eyes)
    camera = "{eye: {x: 1.2, y: -1, z: .3}, up: {x: 0, y: 0, z: 1}, center: {x: 0, y: 0, z: 0}}"
    explorer.evaluate(f"{PLOT}.emit('plotly_relayout', {{'scene.camera': {camera}}})")
    explorer.wait_for_timeout(3*SECONDS)
    choose(explorer, "surface", "body in scan")
    explorer.wait_for_function(f"{PLOT}?.data?.length == 3 && {eyes}[0] !== null")
    assert np.allclose(explorer.evaluate(eyes), [1.2, front[1]], atol=1e-3)


def test_all_of_it_is_reached_by_the_keyboard_and_read_out(explorer):
    "Tab goes through the controls, each has a name; arrow keys change a list and turn the 3D view, for good."
    explorer.wait_for_function(f"{PLOT}?.data?.length == 2 && {PLOT}.reconHeard && {PLOT}.hasAttribute('tabindex')")
    explorer.wait_for_function("!document.querySelector('.recon-access .noUi-handle:not([aria-label])')")
    for role, name in (("combobox", "dataset"), ("combobox", "subject"), ("slider", "view"), ("slider", "light"),
                       ("combobox", "points by"), ("combobox", "surface")):
        assert explorer.get_by_role(role, name=name, exact=True).count(), f"no {role} called {name}"
    explorer.wait_for_function("document.querySelectorAll('img[class*=explore-][alt]').length === 3")
    for image in explorer.locator("img[class*=explore-]").all(): assert len(image.get_attribute("alt")) > 10
    surface = explorer.get_by_label("surface", exact=True)
    explorer.get_by_label("points by", exact=True).focus()
    explorer.keyboard.press("Tab")
    assert surface.evaluate("part => part === document.activeElement"), "Tab goes to the next control"
    chosen = surface.input_value()
    explorer.keyboard.press("ArrowDown")
    explorer.wait_for_function(f"{PLOT}?.data?.length == 2 && {PLOT}.reconHeard")
    assert surface.input_value() != chosen, "JupyterLab keeps the arrow key for itself"
    explorer.wait_for_timeout(2*SECONDS)
    plot = explorer.locator(".js-plotly-plot").first
    plot.focus()
    before, looked = explorer.evaluate(f"{PLOT}._fullLayout.scene.camera.eye"), pixels(plot.element_handle())
    for _ in range(9): explorer.keyboard.press("ArrowRight")
    explorer.wait_for_timeout(2*SECONDS)
    after = explorer.evaluate(f"{PLOT}._fullLayout.scene.camera.eye")
    assert np.allclose([after["x"], after["y"]], [-before["y"], before["x"]], atol=.01), "nine times ten degrees"
    assert np.abs(pixels(plot.element_handle()) - looked).mean() > .5, "it does not turn"
    if SCREENSHOTS: explorer.screenshot(path=f"{SCREENSHOTS}/explorer.png")
    choose(explorer, "surface", "body in scan")
    explorer.wait_for_function(f"{PLOT}?.data?.length == 3")
    eye = explorer.evaluate(f"{PLOT}._fullLayout.scene2.camera.eye.x")
    assert np.allclose(eye, after["x"], atol=.01), "it turns back"


def test_without_a_dataset_it_says_how_to_make_one(page, lab, project):
    (project/"empty"/"nbs").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT/"nbs"/"explore_data.ipynb", project/"empty"/"nbs")
    (project/"empty"/"settings.ini").write_text("[DEFAULT]\nlib_name = toy\n")
    open_notebook(page, lab, "empty/nbs/explore_data.ipynb")
    said = run_until(page, ".jp-OutputArea .widget-html")
    assert "No dataset yet" in said.inner_text() and "make demo" in said.inner_text()
    controls = ".jp-OutputArea .widget-dropdown, .jp-OutputArea img.widget-image, .js-plotly-plot"
    assert page.locator(controls).count() == 0, "controls of nothing"
    assert page.get_by_text("Traceback").count() == 0
    assert not ours(page.wrong)
