"""Prepared folders as other tools leave them: images of every depth, masks apart, names in every case; the item is
that of our own folder, or the file is named."""

import shutil

import cv2
import numpy as np
import pytest
import trimesh
from conftest import ROOT

from recon.data.images import read_image
from recon.data.prepared import PreparedFolder

EXAMPLES = ROOT / "data" / "examples"
NAMES = ("front_mask", "back_mask", "front_rgb_img", "back_rgb_img", "smpl_v")


@pytest.fixture(scope="module")
def anny():
    from recon.body.anny import load_anny

    return load_anny().model


def item(folder, anny, name="casual"):
    return PreparedFolder(folder, anny.faces, len(anny.canonical), 128).item(name)


@pytest.fixture(scope="module")
def ours(anny):
    return item(EXAMPLES, anny)


@pytest.fixture
def folder(tmp_path):
    "Of one subject."
    for sub, suffix in (("images", "png"), ("back_images", "png"), ("body", "ply")):
        (tmp_path / sub).mkdir()
        shutil.copyfile(EXAMPLES / sub / f"casual.{suffix}", tmp_path / sub / f"casual.{suffix}")
    return tmp_path


def pixels(side: str) -> np.ndarray:
    "RGBA in 0..255."
    return (read_image(EXAMPLES / side / "casual.png") * 255).round().astype(np.uint8)


def write(path, rgba: np.ndarray):
    cv2.imwrite(str(path), rgba[..., [2, 1, 0, 3][: rgba.shape[-1]]] if rgba.ndim == 3 else rgba)


def same(found, ours, tolerance=0.01):
    for name in NAMES:
        assert float((found[name] - ours[name]).abs().mean()) < tolerance, name


def on(rgba: np.ndarray, color) -> np.ndarray:
    "Pasted on a colour, without alpha."
    alpha = rgba[..., 3:] / 255
    return (rgba[..., :3] * alpha + np.array(color) * (1 - alpha)).round().astype(np.uint8)


@pytest.mark.parametrize("place", ["masks/casual.png", "mask/casual.PNG", "images/casual_mask.png"])
@pytest.mark.parametrize("kind", ["grey", "rgb", "alpha", "sixteen", "bilevel", "labels", "wide labels", "red"])
def test_a_mask_in_a_file_of_its_own(folder, anny, ours, place, kind):
    front = pixels("images")
    (folder / "images" / "casual.png").unlink()
    write(folder / "images" / "casual.jpg", on(front, (90, 160, 30)))
    mask = front[..., 3]
    kinds = dict(
        grey=mask,
        rgb=mask[..., None].repeat(3, -1),
        alpha=front,
        sixteen=mask.astype(np.uint16) * 257,
        bilevel=(mask > 127).astype(np.uint8) * 255,
        labels=(mask > 127) * (1 + np.arange(len(mask), dtype=np.uint8) % 5)[:, None],
        red=np.dstack([mask // 255 * 128, mask * 0, mask * 0]),
    )
    kinds["wide labels"] = kinds["labels"].astype(np.uint16)
    path = folder / place
    path.parent.mkdir(exist_ok=True)
    write(path, kinds[kind])
    assert PreparedFolder(folder, anny.faces, len(anny.canonical), 128).names == ["casual"]
    same(item(folder, anny), ours, 0.03)


def test_images_of_every_suffix_and_case(folder, anny, ours):
    for name in ("casual.PNG", "casual.webp", "casual.tif"):
        for sub in ("images", "back_images"):
            for old in (folder / sub).iterdir():
                old.unlink()
            write(folder / sub / name.lower(), pixels(sub))
            (folder / sub / name.lower()).rename(folder / sub / name)
        (folder / "body").joinpath("casual.ply").rename(folder / "body" / "casual.PLY")
        same(item(folder, anny), ours, 0.02)
        (folder / "body").joinpath("casual.PLY").rename(folder / "body" / "casual.ply")


@pytest.mark.parametrize("name", ["Jane Doe", "0001", "1e3", "m\u00fcller", "a.b.c", "person_000", "x_mask"])
def test_names_of_every_kind(folder, anny, ours, name):
    for sub in ("images", "back_images", "body"):
        for old in (folder / sub).iterdir():
            old.rename(old.with_name(name + old.suffix))
    assert PreparedFolder(folder, anny.faces, len(anny.canonical), 128).names == [name]
    same(item(folder, anny, name), ours)


@pytest.mark.parametrize("side", ["images", "back_images"])
@pytest.mark.parametrize("kind", ["sixteen", "palette", "wide", "tall", "grey and alpha"])
def test_images_of_every_depth_and_shape(folder, anny, ours, side, kind):
    from PIL import Image

    rgba = pixels(side)
    path = folder / side / "casual.png"
    if kind == "sixteen":
        write(path, rgba.astype(np.uint16) * 257)
    if kind == "palette":
        Image.fromarray(rgba).quantize(256).save(path)
    if kind == "grey and alpha":
        Image.fromarray(rgba).convert("LA").save(path)
    if kind in ("wide", "tall"):  # of both sides: a photo that was not cropped to a square
        width = rgba.shape[1]
        for sub in ("images", "back_images"):
            edges = ((0, 0), (width // 4, width // 4), (0, 0)) if kind == "wide" else ((0, 0), (0, 0), (0, 0))
            padded = np.pad(pixels(sub), edges)
            if kind == "tall":
                padded = padded[:, width // 8 : -(width // 8)]
            write(folder / sub / "casual.png", padded)
    found = item(folder, anny) if kind != "wide" else None
    if kind == "wide":  # the body belongs to the square image
        vertices = trimesh.load(folder / "body" / "casual.ply", process=False).vertices
        trimesh.PointCloud(vertices / 1.5).export(folder / "body" / "casual.ply")
        found = item(folder, anny)
        assert 0.3 < float(found["front_mask"].sum() / ours["front_mask"].sum()) < 0.6
    elif kind == "grey and alpha":
        assert float((found["front_mask"] - ours["front_mask"]).abs().mean()) < 0.01
    else:
        same(found, ours, 0.03)


MASKS = """masks/casual_mask.png Masks/casual.png mask/casual.bmp mattes/casual.png segmentation/casual.png
    images/casual-mask.png images/casual.mask.png images/casual_alpha.png images/casual_MASK.png""".split()


@pytest.mark.parametrize("place", MASKS)
def test_masks_of_every_name(folder, anny, ours, place):
    front = pixels("images")
    (folder / "images" / "casual.png").unlink()
    write(folder / "images" / "casual.jpg", on(front, (90, 160, 30)))
    (folder / place).parent.mkdir(exist_ok=True)
    write(folder / place, front[..., 3])
    assert PreparedFolder(folder, anny.faces, len(anny.canonical), 128).names == ["casual"]
    same(item(folder, anny), ours, 0.03)


DEPTHS = {
    "8 bits in 16": lambda rgba: rgba.astype(np.uint16),
    "10 bits in 16": lambda rgba: (rgba.astype(np.uint32) * 1023 // 255).astype(np.uint16),
    "12 bits in 16": lambda rgba: (rgba.astype(np.uint32) * 4095 // 255).astype(np.uint16),
    "8 bits in the upper half": lambda rgba: rgba.astype(np.uint16) << 8,
    "alpha of 0 and 1": lambda rgba: np.dstack([rgba[..., :3], rgba[..., 3] // 128]),
}


@pytest.mark.parametrize("side", ["images", "back_images"])
@pytest.mark.parametrize("change", DEPTHS.values(), ids=DEPTHS.keys())
def test_few_bits_in_many(folder, anny, ours, side, change):
    write(folder / side / "casual.png", change(pixels(side)))
    same(item(folder, anny), ours, 0.03)


@pytest.mark.parametrize("suffix", [".bmp", ".avif", ".tga", ".jp2", ".gif", ".TIFF"])
def test_images_of_rarer_kinds(folder, anny, ours, suffix):
    from PIL import Image

    for side in ("images", "back_images"):
        rgba = pixels(side)
        (folder / side / "casual.png").unlink()
        if suffix == ".bmp":
            write(folder / side / "casual.bmp", rgba)
        else:
            Image.fromarray(rgba).save(folder / side / f"casual{suffix}", quality=95)
    same(item(folder, anny), ours, 0.06)


MOVED = {
    "names of another case": [
        ("back_images/casual.png", "back_images/Casual.png"),
        ("body/casual.ply", "body/CASUAL.ply"),
    ],
    "folders of another case": [("images", "Images"), ("back_images", "Back_Images"), ("body", "BODY")],
    "the second of several samples": [("back_images/casual.png", "back_images/casual_001.png")],
    "a back by its name": [("back_images/casual.png", "back_images/casual_back.png")],
    "a body as ICON names it": [("body", "smpl"), ("smpl/casual.ply", "smpl/casual_smpl.ply")],
}


@pytest.mark.parametrize("moves", MOVED.values(), ids=MOVED.keys())
def test_files_that_lie_elsewhere(folder, anny, ours, moves):
    for old, new in moves:
        (folder / old).rename(folder / new)
    same(item(folder, anny), ours)


def test_letters_composed_in_two_ways(folder, anny, ours):
    for sub in ("images", "back_images"):
        (folder / sub / "casual.png").rename(folder / sub / "caf\u00e9.png")
    (folder / "body" / "casual.ply").rename(folder / "body" / "cafe\u0301.ply")
    same(item(folder, anny, "caf\u00e9"), ours)


def test_a_file_of_another_subject_is_not_taken(folder, anny):
    "Two subjects whose names differ in case alone; one has no back."
    shutil.copyfile(folder / "images" / "casual.png", folder / "images" / "Casual.png")
    shutil.copyfile(folder / "body" / "casual.ply", folder / "body" / "Casual.ply")
    with pytest.raises(FileNotFoundError, match="Casual.png: missing"):
        item(folder, anny, "Casual")


WRONG = {
    "no alpha": (lambda folder: write(folder / "images" / "casual.png", pixels("images")[..., :3]), "no alpha"),
    "a mask that is everything": (
        lambda folder: write(folder / "images" / "casual.png", np.full((64, 64, 4), 255, np.uint8)),
        "covers everything",
    ),
    "an empty mask": (lambda folder: write(folder / "images" / "casual.png", np.zeros((64, 64, 4), np.uint8)), "empty"),
    "two files": (lambda folder: write(folder / "images" / "casual.webp", pixels("images")), "two files"),
    "two cases": (lambda folder: write(folder / "images" / "casual.jpg", pixels("images")), "two files"),
    "two bodies": (
        lambda folder: shutil.copyfile(folder / "body" / "casual.ply", folder / "body" / "casual_smplx.ply"),
        "two bodies",
    ),
    "no back": (lambda folder: (folder / "back_images" / "casual.png").unlink(), "back image"),
    "no body": (lambda folder: (folder / "body" / "casual.ply").unlink(), "no body for casual"),
    "a damaged image": (
        lambda folder: (folder / "images" / "casual.png").write_bytes(b"\x89PNG\r\n\x1a\nno"),
        "casual.png",
    ),
    "a cut image": (lambda folder: cut(folder / "images" / "casual.png"), "casual.png"),
    "a cut body": (lambda folder: cut(folder / "body" / "casual.ply"), "casual.ply"),
    "a mask of another size": (lambda folder: mask_of(folder, (32, 32)), "32 x 32 pixels; its image has"),
    "a mask turned inside out": (lambda folder: mask_of(folder, None), "do not overlap"),
    "a body in millimetres": (lambda folder: scaled(folder, 1000), "do not overlap"),
    "a body in inches": (lambda folder: scaled(folder, 39.37), "do not overlap"),
    "a body half as large": (lambda folder: scaled(folder, 0.5), "do not overlap"),
    "a body upside down": (lambda folder: scaled(folder, np.array([1, -1, 1.0])), "do not overlap"),
    "a body whose z is turned round": (lambda folder: scaled(folder, np.array([1, 1, -1.0])), "inside out"),
    "a mask turned inside out, said so": (lambda folder: mask_of(folder, None), "Is the mask turned inside out?"),
    "a pointer of Git LFS": (lambda folder: lfs(folder / "images" / "casual.png"), "a pointer of Git LFS"),
    "a pointer for a body": (lambda folder: lfs(folder / "body" / "casual.ply"), "a pointer of Git LFS"),
    "parameters for a body": (
        lambda folder: (folder / "body" / "casual.ply").rename(folder / "body" / "casual.json"),
        "casual.json holds parameters",
    ),
    "a body of SMPL-X": (
        lambda folder: trimesh.PointCloud(np.random.rand(10_475, 3)).export(folder / "body" / "casual.ply"),
        "a body of 13380; this is one of smplx",
    ),
    "no alpha, and where a mask may lie": (
        lambda folder: write(folder / "images" / "casual.png", pixels("images")[..., :3]),
        "put its mask at masks/casual.png",
    ),
    "a body that is NaN": (lambda folder: scaled(folder, np.nan), "NaN"),
}


def lfs(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def mask_of(folder, size):
    (folder / "masks").mkdir()
    mask = pixels("images")[..., 3] if size is None else np.full(size, 255, np.uint8)
    write(folder / "masks" / "casual.png", 255 - mask)
    if size:
        write(folder / "masks" / "casual.png", mask)


def scaled(folder, factor):
    vertices = trimesh.load(folder / "body" / "casual.ply", process=False).vertices
    trimesh.PointCloud(vertices * factor).export(folder / "body" / "casual.ply")


@pytest.mark.parametrize("change,words", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(folder, anny, change, words):
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        item(folder, anny)
    message = str(refused.value)
    assert message.startswith(str(folder)) and words in message and "\n" not in message, message


def test_a_dataset_named_without_its_suffix(tmp_path, anny):
    "`people` for people.h5, beside which the folder of its subjects lies."
    from recon.data import ReconDataset
    from recon.testing import make_balls

    make_balls(tmp_path, "a")
    with pytest.raises(ValueError, match="balls: no dataset file; did you mean balls.h5"):
        ReconDataset(tmp_path / "balls", 32, 16)
    with pytest.raises(ValueError, match="balls: no subjects; did you mean the dataset balls.h5"):
        PreparedFolder(tmp_path / "balls", anny.faces, len(anny.canonical))


def test_a_scan_whose_z_is_up_is_told_so():
    import torch

    from recon.data.checks import ScanRejected, check_height

    with pytest.raises(ScanRejected, match="turn scan and body so that y is up"):
        check_height(torch.tensor([[-0.3, -0.15, 0], [0.3, 0.15, 1.8]]), path="scan.obj")
    with pytest.raises(ScanRejected, match="unit cm"):
        check_height(torch.tensor([[-30.0, 0, -15], [30, 180, 15]]), path="scan.obj")
