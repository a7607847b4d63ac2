"Procedural people as a whole: nothing shows through their clothes, and a seed is a person anywhere."
import os
import subprocess
import sys
from unittest.mock import patch

import pytest
from scipy.spatial import cKDTree

from conftest import ROOT
from recon.synth import layers, painting, person
from recon.synth.dressing import hidden_skin
from recon.synth.template import load_template

# outfits and poses in which cloth is pulled and pushed most
WORN = [(20, "tee+wide", "sit"), (1, "shirt+slim", "crossed"), (2, "hoodie+cargo", "kneel"),
        (3, "coat+trousers", "walk"), (18, "dress", "kick"), (5, "blazer+leggings", "armsup")]


def shown_skin(seed: int, outfit: str, style: str, deep: float = .03) -> tuple[int, int]:
    "Count vertices of the scan with the colour of skin that lies at least `deep` (m) under clothes, and all of them."
    seen = {}

    def body_layer(skin, template, garments, *rest):
        seen.update(skin=skin, garments=garments)
        return make_layer(skin, template, garments, *rest)

    def color_shares(gaps):
        seen.setdefault("owner", gaps.argmin(0))     # the first call is about the vertices
        return shares(gaps)

    make_layer, shares = person.body_layer, painting._color_shares
    with patch.object(person, "body_layer", body_layer), patch.object(painting, "_color_shares", color_shares):
        scan = person.make_person(seed, 128, outfit, style)
    place = load_template().parts["body"].places
    covered = hidden_skin(seen["garments"], place)
    hidden = (covered > deep) & (place.hand < .1) & (place.head < .1)
    skin = seen["skin"]*scan.scale
    skin += scan.body_vertices.min(0) - skin.min(0)      # in the frame of the scan; the lowest corner is the body's
    nearest = cKDTree(skin).query(scan.vertices[seen["owner"] == 0])[1]
    return int(hidden[nearest].sum()), len(scan.vertices)


@pytest.mark.parametrize("seed,outfit,style", WORN)
def test_no_skin_shows_through_clothes(seed, outfit, style):
    shown, count = shown_skin(seed, outfit, style)
    assert shown < 2e-4*count, f"{shown} of {count} vertices"


def test_skin_that_shows_through_is_seen():
    "A body four centimetres too stout."
    def stout(skin, template, garments): return skin + .04*layers.mesh_normals(skin, template.parts["body"].faces)

    with patch.object(layers, "_draw_in", stout):
        shown, count = shown_skin(1, "shirt+slim", "relaxed")
    assert shown > .1*count


BYTES = """
import hashlib
from recon.body.anny import load_anny
from recon.synth.person import make_person
load_anny().model      # as others leave it
person, digest = make_person(9, 72), hashlib.sha256()
arrays = [person.vertices, person.faces, person.colors, person.body_vertices, person.joints]
arrays.append(person.paint.values.numpy())
for array in arrays: digest.update(array.tobytes())
print(digest.hexdigest(), person.label)
"""


def test_a_seed_gives_the_same_bytes_in_every_process():
    "Whatever the order of sets and dictionaries there, and however many threads."
    digests = set()
    for hashes, threads in (("1", "1"), ("2", "2")):
        env = {**os.environ, "PYTHONHASHSEED": hashes, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", BYTES]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1
