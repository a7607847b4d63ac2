"Procedural people as a whole: nothing shows through their clothes, and a seed is a person anywhere."
import os
import subprocess
import sys
from unittest.mock import patch

import pytest
from scipy.spatial import cKDTree

from conftest import ROOT
from recon.synth import person as people
from recon.synth.dressing import hidden_skin
from recon.synth.template import load_template

# outfits and poses in which cloth is pulled and pushed most
WORN = [(20, "tee+wide", "sit"), (1, "shirt+slim", "crossed"), (2, "hoodie+cargo", "kneel"), (3, "coat+trousers", "walk"),
        (18, "dress", "kick"), (5, "blazer+leggings", "armsup")]


def shown_skin(seed: int, outfit: str, style: str, deep: float = .03) -> tuple[int, int]:
    "How many vertices of the scan have the colour of skin that lies at least `deep` (m) under clothes, and how many there are."
    seen = {}
    def body_layer(skin, template, garments, *rest):
        seen.update(skin=skin, garments=garments)
        return make_layer(skin, template, garments, *rest)
    def shares(gaps):
        seen.setdefault("owner", gaps.argmin(0))     # the first call is about the vertices
        return share(gaps)
    make_layer, share = people.body_layer, people._shares
    with patch.object(people, "body_layer", body_layer), patch.object(people, "_shares", shares):
        scan = people.make_person(seed, 128, outfit, style)
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
    with patch.object(people, "_skin_under", lambda skin, template, garments: skin + .04*people.mesh_normals(skin, template.parts["body"].faces)):
        shown, count = shown_skin(1, "shirt+slim", "relaxed")
    assert shown > .1*count


BYTES = """
import hashlib
from recon.body.anny import load_anny
from recon.synth.person import make_person
load_anny().model      # as others leave it
person, digest = make_person(9, 72), hashlib.sha256()
for array in (person.vertices, person.faces, person.colors, person.body_vertices, person.joints, person.paint.values.numpy()): digest.update(array.tobytes())
print(digest.hexdigest(), person.label)
"""


def test_a_seed_gives_the_same_bytes_in_every_process():
    "Whatever the order of sets and dictionaries there, and however many threads."
    surroundings = [{**os.environ, "PYTHONHASHSEED": hashes, "OMP_NUM_THREADS": threads} for hashes, threads in (("1", "1"), ("2", "2"))]
    first, second = (subprocess.run([sys.executable, "-c", BYTES], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout for env in surroundings)
    assert first == second
