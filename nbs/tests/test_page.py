"The page to send, opened from disk in a real browser."
import numpy as np
import trimesh
from browser import FLAGS, SECONDS, chromium, pixels

from recon.viz.page import Page, PageMesh, write_page


def ball_page(folder):
    ball = trimesh.creation.icosphere(5, .8)
    red = np.tile(np.uint8([220, 20, 20]), (len(ball.vertices), 1))
    mesh = PageMesh(ball.vertices, ball.faces, {"red": red, "blue": red[:, ::-1]})
    write_page(folder/"page.html", Page("<b>ball</b>", mesh, {"photo": np.full((40, 30, 3), .5)}, {"P2S": "10.5"}))
    return folder/"page.html"


def test_it_shows_the_mesh_turns_it_and_changes_its_colours_without_a_network(tmp_path):
    from playwright.sync_api import sync_playwright

    path = ball_page(tmp_path)
    assert path.stat().st_size < 8e6
    wrong, fetched = [], []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1000, "height": 1000})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("document.body.dataset.ready === 'true'", timeout=60*SECONDS)
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
        browser.close()
    assert not wrong
    assert not [url for url in fetched if not url.startswith(("file:", "data:", "blob:", "about:"))]
