"Photos as they come: files, people, cut-outs and keypoints; and what is said where something is wrong."

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from recon.photo.keypoints import BODY_25, no_keypoints, read_keypoints, write_keypoints
from recon.photo.load import Photo, load_photo
from recon.photo.matte import place_figure
from recon.photo.preflight import preflight
from recon.photo.prepare import prepare
from recon.photo.weights import has_networks

EXAMPLES = ROOT / "data" / "examples" / "images"
needs_networks = pytest.mark.skipif(not has_networks(), reason="`make photo` brings the networks")


def busy(size=512, seed=0):
    "A background of soft colours, boxes and grain."
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.random((9, 9, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        corner, opposite = rng.integers(0, size, 2), rng.integers(0, size, 2)
        cv2.rectangle(image, tuple(map(int, corner)), tuple(map(int, opposite)), rng.random(3).tolist(), -1)
    return (np.clip(image + 0.03 * rng.normal(size=image.shape), 0, 1) * 255).astype(np.uint8)


def figure_on(background, name="casual"):
    "An example's figure over a background of any size, and its mask."
    cut = load_photo(EXAMPLES / f"{name}.png")
    size = background.shape[0]
    alpha = cv2.resize(cut.alpha, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
    color = cv2.resize(cut.rgb, (size, size), interpolation=cv2.INTER_CUBIC)
    return (color * alpha + background * (1 - alpha)).round().astype(np.uint8), alpha[..., 0]


def overlap(a, b):
    return ((a > 0.5) & (b > 0.5)).sum() / ((a > 0.5) | (b > 0.5)).sum()


@pytest.mark.parametrize("name", ["a.jpg", "b.png", "c.webp", "d.avif", "e.tiff", "f.bmp", "g.gif"])
def test_a_photo_is_the_same_in_every_format(tmp_path, name):
    image, _ = figure_on(busy(256))
    options = dict(quality=95) if name.endswith(("jpg", "webp", "avif")) else {}
    Image.fromarray(image).save(tmp_path / name, **options)
    loaded = load_photo(tmp_path / name)
    assert loaded.rgb.shape == image.shape and loaded.alpha is None
    assert np.abs(loaded.rgb.astype(int) - image).mean() < (14 if name.endswith("gif") else 10)


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16", "P", "LA", "1"])
def test_a_photo_is_read_in_every_mode(tmp_path, mode):
    grey = Image.fromarray(figure_on(busy(128))[0]).convert("L")
    if mode == "I;16":
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "a.png")
    else:
        grey.convert(mode).save(tmp_path / ("a.tiff" if mode == "CMYK" else "a.png"))
    loaded = load_photo(next(tmp_path.iterdir())).rgb
    limit = 130 if mode == "1" else 8
    assert np.abs(loaded.astype(int) - np.asarray(grey)[..., None]).mean() < limit


@pytest.mark.parametrize("orientation,turns", [(3, 2), (6, 3), (8, 1)])
def test_exif_turns_a_photo_upright(tmp_path, orientation, turns):
    image = figure_on(busy(96))[0][:80]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = np.ascontiguousarray(np.rot90(image, -turns))
    Image.fromarray(lying).save(tmp_path / "a.png", exif=exif)
    assert (load_photo(tmp_path / "a.png").rgb == image).all()


def test_a_cut_short_photo_is_read_as_far_as_it_goes(tmp_path):
    Image.fromarray(busy(256)).save(tmp_path / "a.jpg", quality=95)
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    assert any("cut short" in note for note in load_photo(tmp_path / "a.jpg").notes)


@pytest.mark.parametrize("content", [b"", b"not a photo", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_photo_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="a.png"):
        load_photo(tmp_path / "a.png")


def test_the_figure_fills_085_of_the_canvas():
    _, mask = figure_on(busy(256))
    placement = place_figure(mask, 1024)
    rows = np.nonzero((mask > 0.5).any(1))[0]
    height = (rows[-1] + 1 - rows[0]) * placement.scale
    assert abs(height - 0.85 * 1024) < 2


@needs_networks
def test_people_are_cut_out_of_a_busy_photo(tmp_path):
    "The mask of a procedural person on clutter, and keypoints on it."
    image, mask = figure_on(busy(768))
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=90)
    figure = prepare(load_photo(tmp_path / "a.jpg"))[0]
    placement = figure.placement
    back = cv2.warpAffine(
        mask, np.array([[placement.scale, 0, placement.x], [0, placement.scale, placement.y]]), (1024, 1024)
    )
    assert overlap(figure.alpha, back) > 0.95
    sure = figure.keypoints.body[figure.keypoints.body[:, 2] > 0.5][:, :2].astype(int)
    assert len(sure) > 20 and (back[sure[:, 1], sure[:, 0]] > 0.5).mean() > 0.9


@needs_networks
def test_left_stays_left():
    figure = prepare(load_photo(EXAMPLES / "casual.png"))[0]
    points = dict(zip(BODY_25, figure.keypoints.body))
    assert points["left_shoulder"][0] > points["right_shoulder"][0]  # seen from the front


@needs_networks
@pytest.mark.parametrize(
    "image",
    [np.full((300, 200, 3), 255, np.uint8), busy(300), np.zeros((1, 1, 3), np.uint8)],
    ids=["white", "clutter", "1x1"],
)
def test_nobody_is_said(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="nobody"):
        prepare(load_photo(tmp_path / "a.png"))


@needs_networks
def test_ten_people_are_counted_and_one_is_chosen():
    "A central one is meant, and said to be one of many; any other may be named."
    image = np.full((1300, 1700, 3), 210, np.uint8)
    for k in range(10):
        size, bottom, middle = (620 if k == 7 else 480), (1300 if k > 4 else 640), 340 * (k % 5) + 170
        figure, mask = figure_on(np.full((size, size, 3), 210, np.uint8), ("casual", "dress")[k % 2])
        center = int(mask.max(0).nonzero()[0].mean())
        left, right = max(center - 170, 0), min(center + 170, size)
        place = image[bottom - size : bottom, middle - center + left : middle - center + right]
        place[:] = np.where(mask[:, left:right, None] > 0.5, figure[:, left:right], place)
    figure = prepare(Photo(image, None))[0]
    assert figure.people == 10 and any("people" in warning.text for warning in preflight(figure))
    assert abs((512 - figure.placement.x) / figure.placement.scale - 850) < 100, "in the middle column"
    other = prepare(Photo(image, None), person="3")[0]
    assert abs(other.placement.x - figure.placement.x) > 100
    with pytest.raises(ValueError, match="counted from 0"):
        prepare(Photo(image, None), person="30")


@needs_networks
@pytest.mark.parametrize("kind", ["statue", "drawing"])
def test_statues_and_drawings_are_found_or_refused_in_words(kind):
    "Stone has no colours, and a drawing flat ones; whoever is found lies on the figure."
    image, mask = figure_on(np.full((640, 640, 3), 235, np.uint8))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if kind == "statue":
        stone = np.where(mask[..., None] > 0.5, (120 + 0.4 * grey)[..., None], image)
        image = stone.astype(np.uint8)
    else:
        flat = cv2.bilateralFilter(image, 9, 60, 9) // 64 * 64 + 32
        flat[cv2.Canny(grey, 60, 140) > 0] = 0
        image = np.where(mask[..., None] > 0.5, flat, 255).astype(np.uint8)
    try:
        figure = prepare(Photo(np.ascontiguousarray(image), None))[0]
    except ValueError as error:
        assert "nobody" in str(error)
        return
    sure = figure.keypoints.body[figure.keypoints.body[:, 2] > 0.5][:, :2].astype(int).clip(0, 1023)
    assert (figure.alpha[sure[:, 1], sure[:, 0]] > 0.5).mean() > 0.8


@needs_networks
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_hundred_megapixels_need_bounded_memory(tmp_path, suffix):
    "A photo of 10,000 by 10,000 pixels is read and prepared within 1.5 GB, by a process of its own."
    path = tmp_path / f"large.{suffix}"
    figure = Image.fromarray(figure_on(np.full((1000, 1000, 3), 200, np.uint8))[0])
    figure.resize((10_000, 10_000), Image.NEAREST).save(path, **(dict(compress_level=1) if suffix == "png" else {}))
    code = (
        "import sys; from recon.fit import peak_memory; from recon.photo.load import load_photo\n"
        "from recon.photo.prepare import prepare\n"
        "print(len(prepare(load_photo(sys.argv[1]))), peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    people, memory = map(float, done.stdout.split()[-2:])
    assert people == 1 and 0.1 < memory < 1.5


@needs_networks
def test_upside_down_without_exif():
    image, _ = figure_on(np.full((512, 512, 3), 200, np.uint8))
    figure = prepare(Photo(np.ascontiguousarray(image[::-1, ::-1]), None))[0]
    assert any("180" in note for note in figure.notes)


@pytest.mark.parametrize(
    "content,reason",
    [
        ('{"people": []}', "nobody"),
        ("no json", "not JSON"),
        ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "holds 3 numbers"),
        ("[1, 2]", "without keypoints"),
        ("3", "expected the JSON"),
    ],
)
def test_damaged_keypoints_say_what_is_wrong(tmp_path, content, reason):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=reason):
        read_keypoints(tmp_path / "a.json")


def test_coco_and_openpose_agree(tmp_path):
    "The same person written in both formats reads alike."
    rng = np.random.default_rng(0)
    coco = np.c_[rng.random((133, 2)) * 500, np.ones(133)]
    (tmp_path / "coco.json").write_text(json.dumps(dict(annotations=[dict(keypoints=coco.ravel().tolist())])))
    read = read_keypoints(tmp_path / "coco.json")[0]
    write_keypoints(tmp_path / "openpose.json", [read])
    again = read_keypoints(tmp_path / "openpose.json")[0]
    assert np.allclose(read.body, again.body, atol=1e-2) and np.allclose(read.left_hand, again.left_hand, atol=1e-2)
    assert np.allclose(read.body[BODY_25.index("left_wrist"), :2], coco[9, :2])


RNG = np.random.default_rng(1)
COCO = np.c_[RNG.uniform(100, 900, (17, 2)), RNG.uniform(0.5, 1, 17)].round(3)
OPENPOSE = np.c_[RNG.uniform(100, 900, (25, 2)), RNG.uniform(0.5, 1, 25)].round(3)
INSTANCE = dict(keypoints=COCO[:, :2].tolist(), keypoint_scores=COCO[:, 2].tolist(), bbox=[[1, 2, 3, 4]])
NAMED = [dict(x=x, y=y, score=c, name="part") for x, y, c in COCO]
AXES = dict(zip(("x", "y", "visible"), COCO.T.tolist()))


@pytest.mark.parametrize(
    "content",
    [
        dict(meta_info={}, instance_info=[dict(frame_id=1, instances=[INSTANCE])]),
        dict(instance_info=[INSTANCE]),
        dict(predictions=[[INSTANCE]]),
        [[INSTANCE]],
        [dict(image_id="a.jpg", category_id=1, keypoints=COCO.ravel().tolist(), score=2.9)],
        [dict(keypoints=[]), dict(keypoints=COCO.ravel().tolist())],
        [dict(keypoints=NAMED, score=0.9)],
        [dict(name="person", box=dict(x1=1), keypoints=AXES)],
        dict(keypoints=[str(number) for number in COCO.ravel()]),
    ],
)
def test_people_of_cocos_kind_are_found_wherever_they_are_nested(tmp_path, content):
    "MMPose's frames and instances, results of detectors, MoveNet's and Ultralytics' points by name."
    (tmp_path / "a.json").write_text(json.dumps(content))
    (person,) = read_keypoints(tmp_path / "a.json")
    assert np.allclose(person.body[BODY_25.index("left_wrist")], COCO[9])
    assert np.allclose(person.body[BODY_25.index("right_ankle")], COCO[16])


def test_halpe_and_the_official_file_of_whole_bodies_have_feet(tmp_path):
    halpe = np.c_[RNG.uniform(100, 900, (26, 2)), np.ones(26)]
    (tmp_path / "a.json").write_text(json.dumps([dict(keypoints=halpe.tolist())]))
    (person,) = read_keypoints(tmp_path / "a.json")
    rows = dict(left_big_toe=20, right_big_toe=21, left_small_toe=22, right_small_toe=23, left_heel=24, right_heel=25)
    for name, row in rows.items():
        assert np.allclose(person.body[BODY_25.index(name)], halpe[row]), name
    parts = dict(keypoints=17, foot_kpts=6, face_kpts=68, lefthand_kpts=21, righthand_kpts=21)
    parts = {name: np.c_[RNG.uniform(100, 900, (count, 2)), np.full(count, 2)] for name, count in parts.items()}
    record = {name: rows.ravel().tolist() for name, rows in parts.items()}
    (tmp_path / "b.json").write_text(json.dumps(dict(annotations=[record])))
    (person,) = read_keypoints(tmp_path / "b.json")
    assert np.allclose(person.body[BODY_25.index("left_heel"), :2], parts["foot_kpts"][2, :2])
    assert np.allclose(person.right_hand[:, :2], parts["righthand_kpts"][:, :2]) and person.body[:, 2].max() == 1


@pytest.mark.parametrize("unknown", [None, float("nan"), float("inf"), "NaN"])
def test_points_that_are_not_there_are_unknown(tmp_path, unknown):
    numbers = OPENPOSE.ravel().tolist()
    numbers[3:6] = [unknown] * 3
    numbers[8] = unknown
    people = [dict(pose_keypoints_2d=[]), dict(pose_keypoints_2d=numbers), dict(pose_keypoints_2d=[0] * 75)]
    (tmp_path / "a.json").write_text(json.dumps(dict(people=people)))
    (person,) = read_keypoints(tmp_path / "a.json")
    assert np.array_equal(person.body[1:3], np.zeros((2, 3)))
    assert np.allclose(np.delete(person.body, [1, 2], 0), np.delete(OPENPOSE, [1, 2], 0))


@pytest.mark.parametrize("key", ["pose_keypoints_2d", "pose_keypoints"])
def test_openposes_eighteen_points(tmp_path, key):
    "Its COCO model has no mid-hip and no feet; AlphaPose writes it a picture, older files without `_2d`."
    points = np.delete(OPENPOSE, [8, *range(19, 25)], 0)
    content = {"a.jpg": dict(version="AlphaPose", people=[{key: points.ravel().tolist()}])}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (person,) = read_keypoints(tmp_path / "a.json")
    expected = OPENPOSE.copy()
    expected[8] = [*OPENPOSE[[9, 12], :2].mean(0), OPENPOSE[[9, 12], 2].min()]
    expected[19:] = 0
    assert np.allclose(person.body, expected)


POINTS = [[9, 9, 1]] * 17
BODY = dict(pose_keypoints_2d=[9, 9, 1] * 25)
WHOLE = {f"{part}_kpts": [9, 9, 1] * count for part, count in dict(foot=6, face=68, lefthand=21, righthand=21).items()}
WHOLE |= dict(keypoints=[9, 9, 1] * 17)
LANDMARKS = [dict(x=0.1 + 0.02 * k, y=0.9 - 0.01 * k, z=0.0, visibility=0.9) for k in range(33)]


@pytest.mark.parametrize(
    "content,reason",
    [
        (LANDMARKS, "shares of the image's size; expected pixels"),
        (dict(pose_landmarks=[LANDMARKS]), "shares of the image's size; expected pixels"),
        (dict(keypoints=[[p["x"], p["y"], 0, 0.9] for p in LANDMARKS]), "expected pixels"),
        ([dict(image_id=k, keypoints=COCO.ravel().tolist()) for k in (1, 2)], "people of 2 images"),
        (dict(people=[dict(pose_keypoints_2d=[0] * 75)]), "no point of a body is known"),
        (dict(people=[dict(face_keypoints_2d=[5] * 210)]), "no point of a body is known"),
        (dict(people=[dict(pose_keypoints_2d=[], pose_keypoints_3d=[1] * 100)]), "no point of a body is known"),
        ([dict(keypoints=POINTS[:5] + [[1, 2]] + POINTS[6:])], "keypoints: point 5 has length 2, others 3"),
        (dict(people=[dict(pose_keypoints_2d=POINTS[:9] + [[9, 9]])]), "pose_keypoints_2d: point 9 has length 2"),
        ([WHOLE | dict(foot_kpts=[[9, 9, 1]] * 5 + [[9]])], "foot_kpts: point 5 has length 1, others 3"),
        ([WHOLE | dict(face_kpts=[9, 9, 1] * 67)], "face_kpts holds 67 points; expected 68"),
        ([INSTANCE | dict(keypoint_scores=[0.5] * 16)], "keypoint_scores holds 16 numbers and keypoints 17 points"),
        ([INSTANCE | dict(keypoint_scores=0.5)], "keypoint_scores holds 1 numbers and keypoints 17 points"),
        ([INSTANCE | dict(keypoint_scores=["sure"] * 17)], "keypoint_scores holds 'sure'; expected numbers"),
        ([dict(keypoints=[[9, "left", 1]] * 17)], "keypoints holds 'left'; expected numbers"),
        ([dict(keypoints=[[9, 9, 1, 1, 1]] * 17)], "keypoints: points of 5 numbers"),
        ([dict(keypoints="9 9 1")], "keypoints is '9 9 1'; expected a list of points"),
        ([dict(keypoints=dict(x=[9, 9], y=[9]))], "keypoints holds 2 of x, 1 of y; expected as many of each"),
        ([dict(keypoints={"0": POINTS})], "keypoints is a dictionary of 0"),
        ([dict(keypoints=[dict(x=9, y=9)] * 16 + [dict(x=9)])], "keypoints: point 16 is x; expected `x` and `y`"),
        ([dict(bbox=[1, 2], score=1)], "a person without keypoints (found: bbox, score)"),
        (dict(people=5), "a person without keypoints (found: 5)"),
        (dict(people=[BODY | dict(mediapipe_world_landmarks=[1, 2, 3])]), "landmarks holds 3 numbers; expected 99"),
        ([dict(keypoints=[1] * 50)], "keypoints holds 50 numbers"),
    ],
)
def test_keypoints_that_mean_no_points_of_one_photo_are_refused(tmp_path, content, reason):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(reason)) as refused:
        read_keypoints(tmp_path / "a.json")
    assert "\n" not in str(refused.value) and "a.json" in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        [COCO.tolist()],
        COCO.tolist(),
        [[COCO.tolist()]],
        [dict(keypoints=[COCO.tolist()])],
        dict(instances=dict(pred_keypoints=[COCO.tolist()], scores=[0.9])),
        dict(annots=[dict(personID=0, keypoints=COCO.tolist())]),
        dict(keypoints=[COCO[:, :2].tolist()], keypoints_scores=[COCO[:, 2].tolist()], scores=[0.9]),
        dict(keypoints=COCO[:, :2].ravel().tolist(), keypoint_scores=COCO[:, 2].tolist()),
        dict(kpts=COCO.tolist()),
        dict(data=[dict(joints2d=COCO.tolist())]),
    ],
)
def test_lists_of_points_under_every_name(tmp_path, content):
    "Bare lists, Detectron2, EasyMocap, torchvision, trackers."
    (tmp_path / "a.json").write_text(json.dumps(content))
    (person,) = read_keypoints(tmp_path / "a.json")
    assert np.allclose(person.body[BODY_25.index("right_ankle")], COCO[16])


def test_two_people_in_one_list_are_two(tmp_path):
    two = [(COCO + [k, 0, 0]).tolist() for k in (0, 50)]
    xy = [[row[:2] for row in one] for one in two]
    record = dict(keypoints=xy, keypoint_scores=[COCO[:, 2].tolist()] * 2)
    for content in (two, [two], dict(predictions=dict(keypoints=two)), record):
        (tmp_path / "a.json").write_text(json.dumps(content))
        first, second = read_keypoints(tmp_path / "a.json")
        assert np.allclose(first.body[4], COCO[10]) and np.allclose(second.body[4], COCO[10] + [50, 0, 0])


@pytest.mark.parametrize("unknown", [None, [], [None, None, 0]])
def test_rows_that_are_not_there_are_unknown_points(tmp_path, unknown):
    rows = COCO.tolist()
    rows[9] = unknown
    for content in ([dict(keypoints=rows)], dict(people=[dict(pose_keypoints_2d=OPENPOSE.tolist()[:24] + [unknown])])):
        (tmp_path / "a.json").write_text(json.dumps(content))
        (person,) = read_keypoints(tmp_path / "a.json")
        lost = BODY_25.index("left_wrist" if isinstance(content, list) else "right_heel")
        assert np.array_equal(person.body[lost], np.zeros(3)) and (person.body[:5, 2] > 0).all()


def test_landmarks_in_pixels_are_read(tmp_path):
    pixels = [p | dict(x=1000 * p["x"], y=1000 * p["y"]) for p in LANDMARKS]
    (tmp_path / "a.json").write_text(json.dumps(dict(poseLandmarks=pixels)))
    (person,) = read_keypoints(tmp_path / "a.json")
    assert np.allclose(person.body[BODY_25.index("left_wrist")], [pixels[15]["x"], pixels[15]["y"], 0.9])


def test_keypoints_of_another_photo_are_refused(tmp_path):
    strange = no_keypoints()
    strange.body[:] = [5000, 5000, 1]
    write_keypoints(tmp_path / "a.json", [strange])
    with pytest.raises(ValueError, match="another photo"):
        prepare(load_photo(EXAMPLES / "casual.png"), keypoints=tmp_path / "a.json")


def test_missing_weights_say_what_to_type(monkeypatch):
    from recon.photo import mediapipe, weights

    monkeypatch.setattr(weights, "weights_folder", lambda: Path("/nowhere"))
    mediapipe.network.cache_clear()
    with pytest.raises(FileNotFoundError, match="make photo"):
        mediapipe.network("pose_detection")


@needs_networks
def test_what_a_photo_costs_is_measured_step_by_step(tmp_path, capsys):
    "One person, from the true body down to the picture alone; a second run makes nothing again."
    from recon.build_dataset import BuildDataset
    from recon.build_dataset import main as build
    from recon.tools.bench_photo import GIVEN, PHOTO, BenchPhoto, main

    data, root = tmp_path/"people.h5", tmp_path/"bench"
    build(BuildDataset(data_root=str(data), num_people=1, num_test=1, seed=5005, size=512, nviews=2, nsamples=2000,
                       workers=1))
    bench = BenchPhoto(data_root=str(data), save_root=str(root), resolution=64)
    [person] = main(bench)
    fitted, painted = [*root.glob("*/fit/*.json")], [*root.glob("*/back_images/*_000.png")]
    assert {path.relative_to(root).parts[0] for path in fitted} == {"body", "photo"}
    assert {path.relative_to(root).parts[0] for path in painted} == {"back", "photo"}
    made = {path: path.stat().st_mtime_ns for path in fitted + painted}
    assert 0 < person[GIVEN]["p2s"] < person[PHOTO]["p2s"] < person["bare body, fitted"]["p2s"] < 60
    assert json.loads((root/"numbers.json").read_text()).popitem()[1] == person
    assert main(bench) == [person]
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert f"| {PHOTO} − {GIVEN} |" in capsys.readouterr().out
