"MakeHuman packs as strangers make them: materials of hats, one broken file among many, sizes and names that lie."
import shutil
import tracemalloc

import numpy as np
import pytest
from conftest import ROOT

from recon.synth.mhclo import EXAMPLE_MHCLO, EXAMPLE_MHMAT, read_mhclo, write_example_piece
from recon.synth.person import make_person
from recon.synth.wardrobe import choose_pieces, load_wardrobe

CASES = ROOT.parent/"shared"/"cases"
PACKS = ROOT.parent/"shared"/"makehuman"
needs_cases = pytest.mark.skipif(not CASES.exists(), reason=f"needs {CASES}")


@pytest.fixture(autouse=True)
def forget():
    "Packs change between tests."
    load_wardrobe.cache_clear()


def worn(wardrobe, count=200):
    return [choose_pieces(np.random.default_rng(seed), wardrobe, seed % 2 == 1, {}) for seed in range(count)]


@needs_cases
@pytest.mark.parametrize("folder", ["materials", "materials/felt", "Stoffe", "."])
def test_materials_of_a_hat_are_not_skins(tmp_path, folder):
    "Wherever in the hat's folder they lie; and hats are worn in each of them."
    hat = tmp_path/"hats"/"fedora01"
    shutil.copytree(CASES/"18-mhclo-materials-of-a-hat"/"fedora01", hat)
    if folder != "materials":
        for file in list((hat/"materials").iterdir()):
            (hat/folder).mkdir(parents=True, exist_ok=True)
            file.rename(hat/folder/file.name)
        for clo in hat.glob("*.mhclo"):
            clo.write_text(clo.read_text().replace("material materials/", f"material {folder}/"))
    wardrobe = load_wardrobe(str(tmp_path))
    assert [item.slot for item in wardrobe.items] == ["extra", "extra"] and not wardrobe.left_out
    people = worn(wardrobe)
    assert not any(pieces.skin for pieces in people)
    names = {piece.material.path.stem for pieces in people for piece in pieces.clothes}
    assert names == {"fedora", "black_fedora", "grey_fedora"}


@needs_cases
def test_a_hat_beside_skins(tmp_path):
    "The skins of a pack stay skins."
    shutil.copytree(CASES/"18-mhclo-materials-of-a-hat"/"fedora01", tmp_path/"clothes"/"fedora01")
    shutil.copytree(PACKS/"skins"/"young_asian_male", tmp_path/"skins"/"young_asian_male")
    shutil.copytree(PACKS/"skins"/"young_african_male", tmp_path/"young_african_male")
    skins = {item.path.stem for item in load_wardrobe(str(tmp_path)).items if item.slot == "skin"}
    assert skins == {"young_asian_male", "young_african_male"}


@needs_cases
def test_one_broken_texture_leaves_the_rest(capsys):
    "The piece is left out and listed with its reason; people are made of the rest."
    folder = CASES/"19-mhclo-one-broken"
    wardrobe = load_wardrobe(str(folder)).check()
    assert {item.path.stem for item in wardrobe.items} == {"shoes01"}
    assert {path.stem for path in wardrobe.left_out} >= {"fedora", "fedora_cocked"}
    assert all("texture fedora_texture.png is missing" in reason for reason in wardrobe.left_out.values())
    assert "left out fedora01/fedora.mhclo: FileNotFoundError" in capsys.readouterr().out
    labels = [make_person(seed, 48, assets=str(folder)).label for seed in (1, 2)]
    assert not any("fedora" in label for label in labels)


DAMAGES = [("mhclo", b"verts 0\n1 2\n"), ("obj", b"f 1 2 3\n"), ("mhmat", b"diffuseTexture no.png"), ("png", b""),
           ("png", b"\x89PNG\r\n\x1a\nhalf"), ("obj", None), ("mhmat", None)]


@pytest.mark.parametrize("part,damage", DAMAGES)
def test_one_damaged_file(tmp_path, part, damage):
    "Whichever file of a piece it is."
    good, bad = write_example_piece(tmp_path/"good"), write_example_piece(tmp_path/"bad")
    file = bad.with_suffix("." + part)
    if damage is None: file.unlink()
    else: file.write_bytes(damage)
    wardrobe = load_wardrobe(str(tmp_path))
    assert [item.path for item in wardrobe.items] == [good] and bad in wardrobe.left_out
    assert str(tmp_path) in wardrobe.left_out[bad]


@pytest.mark.parametrize("ranges", ["0 - 99999999999", "99999999999 - 0", "-5 - 10", "0 - 99999999999999999999999999"])
def test_sizes_are_checked_before_they_are_allocated(tmp_path, ranges):
    clo = write_example_piece(tmp_path, EXAMPLE_MHCLO.replace("30 - 31", ranges))
    tracemalloc.start()
    with pytest.raises(ValueError, match="base mesh hm08 has 19,158"): read_mhclo(clo)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


OUTSIDE = ["/etc/hostname", "../secret.{}", "a/../../secret.{}", "..\\secret.{}", "C:\\secret.{}"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("key", ["obj_file", "material", "diffuseTexture"])
def test_names_stay_in_their_folder(tmp_path, key, name):
    "A name that leads outside is never opened; the piece is left out."
    write_example_piece(tmp_path/"good")
    bad = write_example_piece(tmp_path/"bad"/"piece")
    kind = dict(obj_file="obj", material="mhmat", diffuseTexture="png")[key]
    shutil.copy(bad.with_suffix("." + kind), bad.parent.parent/f"secret.{kind}")
    file, text = (bad.with_suffix(".mhmat"), EXAMPLE_MHMAT) if kind == "png" else (bad, EXAMPLE_MHCLO)
    file.write_text(text.replace(f"{key} flag.{kind}", f"{key} {name.format(kind)}"))
    wardrobe = load_wardrobe(str(tmp_path))
    assert bad in wardrobe.left_out and "leads outside its folder" in wardrobe.left_out[bad]
    assert "good" in {item.path.parent.name for item in wardrobe.items}


WRITTEN = {
    "lines of windows": lambda text: text.replace("\n", "\r\n").encode(),
    "a mark of byte order": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "tabs": lambda text: text.replace(" ", "\t").encode(),
    "capitals in names": lambda text: text.replace("flag.", "Flag.").replace(".png", ".PNG").encode(),
    "folders of windows": lambda text: text.replace("flag.", ".\\flag.").encode(),
    "quotes": lambda text: text.replace("flag.png", '"flag.png"').encode(),
    "blank lines": lambda text: text.replace("\n", "\n\n").encode(),
}


@pytest.mark.parametrize("change", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_pack_however_it_is_written(tmp_path, change):
    from recon.synth.assets import load_asset

    clo = write_example_piece(tmp_path/"piece")
    for suffix in ("mhclo", "mhmat", "obj"):
        file = clo.with_suffix(f".{suffix}")
        file.write_bytes(change(file.read_text()))
    load_asset.cache_clear()
    asset = load_asset(clo)
    assert asset.material.texture.name == "flag.png" and len(asset.faces) == 2 and len(asset.clo.corners) == 4
