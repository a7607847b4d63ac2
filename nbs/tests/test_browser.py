"A saved mesh in JupyterLab in a real browser (the explorer: `test_explorer`)."
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from browser import SECONDS, open_notebook, ours, pixels


def test_a_saved_mesh_is_drawn_and_turns(page, lab):
    open_notebook(page, lab, "outputs/mesh.ipynb")
    plot = page.wait_for_selector(".js-plotly-plot .gl-container canvas")
    deadline = time.monotonic() + 60
    while pixels(plot).std() < 20 and time.monotonic() < deadline: page.wait_for_timeout(500)
    before = pixels(plot)
    colored = (before.max(-1) - before.min(-1) > 40).mean()
    assert colored > .05, f"only {colored:.1%} of the canvas is coloured: the mesh is not drawn"
    box = plot.bounding_box()
    middle = box["x"] + box["width"]/2, box["y"] + box["height"]/2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 150, middle[1], steps=8)
    page.mouse.up()
    page.wait_for_timeout(1*SECONDS)
    assert np.abs(pixels(plot) - before).mean() > 1, "dragging does not turn the mesh"
    assert not ours(page.wrong)


def test_nobody_gets_at_the_kernels_without_the_token(lab):
    for call in "contents", "kernels":
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{lab.removesuffix('lab')}api/{call}", timeout=20)
        assert refused.value.code == 403
