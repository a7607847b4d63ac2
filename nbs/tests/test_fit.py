"""Fits: known bodies come back, corrections go where they point, a folder is worked through, and what is said of
bad input."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import trimesh
from conftest import ROOT
from PIL import Image
from processes import Python, run_python

from recon.body.anny import load_anny
from recon.body.pose import sample_pose
from recon.config import SubjectsFailed
from recon.fit import Fit, fit_all, list_photos, main
from recon.fitting.lifter import project, sample_bodies
from recon.fitting.photo import (
    DISTANCE,
    Correction,
    Evidence,
    find_starts,
    fit_photo,
    from_dict,
    make_evidence,
    mend,
    to_dict,
)
from recon.fitting.prior import anny_age, average_shape, limit_penalty, pose_prior
from recon.fitting.skeleton import angle_count, exponential, limits, point_body, slices, to_anny_pose
from recon.fitting.smplx import anny_as_smplx
from recon.geometry.query import MeshQuery
from recon.photo.keypoints import no_keypoints, write_keypoints
from recon.tools.bench_fit import procrustes

EXAMPLES = ROOT / "data" / "examples"


def seen_body(seed: int, hints: bool = True):
    "Evidence of a drawn body with true keypoints, and its joints in the camera's frame, metres."
    bodies = sample_bodies(1, torch.Generator().manual_seed(seed))
    scale = 1.6 / float(bodies.keypoints[0, :, 1].max() - bodies.keypoints[0, :, 1].min())
    seen = project(bodies.keypoints, torch.tensor([DISTANCE]))[0] * scale
    given = bodies.evidence.hints[0] if hints else torch.zeros(23, 3)
    return Evidence(seen, torch.ones(23), torch.zeros(2, 21, 3), given, None), bodies.keypoints[0]


def pa_error(fit, truth) -> float:
    "PA-MPJPE in mm of a fit without the camera's distortion."
    with torch.no_grad():
        posed = load_anny().pose(fit.pose(), fit.phenotype())
    own = posed.joints @ fit.best.rotation[0].T
    return 1000 * float((procrustes(own[:17], truth[:17]) - truth[:17]).norm(dim=1).mean())


def test_known_bodies_come_back():
    "With true keypoints and hints, the median of drawn bodies of all kinds and sides."
    errors = [pa_error(fit_photo(evidence), truth) for evidence, truth in map(seen_body, range(10, 13))]
    assert np.median(errors) < 60, errors


def test_fits_stay_within_the_limits_of_joints():
    "Knees and elbows bend the right way, even for keypoints that belong to nobody."
    evidence, _ = seen_body(3)
    points = evidence.points + 0.2 * torch.randn(23, 2, generator=torch.Generator().manual_seed(0))
    fit = fit_photo(Evidence(points, evidence.confidence, evidence.hands, evidence.hints, None))
    low, high = limits()
    excess = (low - fit.best.angles[0]).clamp(min=0) + (fit.best.angles[0] - high).clamp(min=0)
    assert torch.rad2deg(excess).max() < 8


def test_a_fit_is_the_same_twice_and_from_its_file():
    evidence, _ = seen_body(4)
    first, again = fit_photo(evidence, steps=(20, 10)), fit_photo(evidence, steps=(20, 10))
    assert torch.equal(first.best.angles, again.best.angles)
    kept = from_dict(json.loads(json.dumps(to_dict(first))))
    assert (kept.body()[0] - first.body()[0]).abs().max() < 5e-3
    broken = to_dict(first)
    broken["angles"].pop("knee.L")
    with pytest.raises(ValueError, match="knee.L"):
        from_dict(broken)


def test_what_the_user_knows_wins():
    evidence, _ = seen_body(5)
    fit = fit_photo(evidence, steps=(30, 20), known=dict(gender=1.0, age=anny_age(6), height=1.15))
    assert fit.phenotype()["gender"] > 0.95 and abs(fit.phenotype()["age"] - anny_age(6)) < 0.01
    rest = load_anny().pose(None, fit.phenotype()).vertices[:, 1]
    assert abs(float(rest.max() - rest.min()) - 1.15) < 0.08


def test_kept_groups_stay_as_they_start():
    "SiTH's options: without opt_pose no angle moves."
    evidence, _ = seen_body(5)
    starts = find_starts(evidence)
    fit = fit_photo(evidence, steps=(5, 5), rates=dict(angles=0.0))
    assert min((fit.best.angles - start).abs().max() for start in starts.angles) == 0


@pytest.mark.parametrize("limb,start,end", [("left_arm", 5, 9), ("right_arm", 6, 10)])
def test_a_limb_goes_where_a_person_says(limb, start, end):
    evidence, _ = seen_body(10, hints=False)
    fit = fit_photo(evidence, steps=(40, 20))
    for is_front in (True, False):
        mended, _ = mend(fit, evidence, Correction(front={limb: is_front}))
        joints = mended.body()[1]
        assert (joints[end] - joints[start])[2] > 0 if is_front else (joints[end] - joints[start])[2] < 0
        assert (joints[end, :2] - evidence.points[end]).norm() < .12  # an arm behind the back may not reach


def test_locked_parts_stay_and_moved_keypoints_pull():
    evidence, _ = seen_body(7)
    fit = fit_photo(evidence, steps=(40, 20))
    wrist = evidence.points[9] + torch.tensor([0.1, 0.05])
    mended, changed = mend(
        fit, evidence, Correction(moved=dict(left_wrist=tuple(wrist.tolist())), lock=("right_leg", "left_leg"))
    )
    for joint in ("hip.L", "knee.R"):
        assert torch.allclose(mended.best.angles[0, slices()[joint]], fit.best.angles[0, slices()[joint]])
    assert (mended.body()[1][9, :2] - wrist).norm() < (fit.body()[1][9, :2] - wrist).norm()
    assert torch.equal(changed.points[10], evidence.points[10])


def test_a_keypoint_that_a_person_moves_far_pulls_as_well():
    "A detector's point this far off would be taken for wrong."
    evidence, _ = seen_body(7)
    fit = fit_photo(evidence, steps=(40, 20))
    wrist = evidence.points[9] + torch.tensor([0.2, 0.2])
    mended, _ = mend(fit, evidence, Correction(moved=dict(left_wrist=tuple(wrist.tolist()))))
    before, after = (float((one.body()[1][9, :2] - wrist).norm()) for one in (fit, mended))
    assert after < 0.35 * before


def test_a_correction_may_say_height_and_build_while_the_pose_goes_on():
    evidence, _ = seen_body(5)
    fit = fit_photo(evidence, steps=(30, 20))
    mended, _ = mend(fit, evidence, Correction(), known=dict(weight=0.9, height=1.45))
    assert abs(mended.phenotype()["weight"] - 0.9) < 0.01
    rest = load_anny().pose(None, mended.phenotype()).vertices[:, 1]
    assert abs(float(rest.max() - rest.min()) - 1.45) < 0.08
    moved = (mended.body()[1] - fit.body()[1])[:, :2].norm(dim=1)
    assert moved.max() < 0.15, "the keypoints stay where the photo shows them"


def test_swapped_sides_are_exchanged():
    evidence, _ = seen_body(8)
    _, changed = mend(fit_photo(evidence, steps=(5, 5)), evidence, Correction(swap=("arms",)), steps=2)
    assert torch.equal(changed.points[9], evidence.points[10]) and torch.equal(changed.points[15], evidence.points[15])


def test_too_few_keypoints_are_refused():
    body = np.zeros((25, 3))
    body[:4] = 1
    with pytest.raises(ValueError, match="needs 6"):
        make_evidence(body)


def test_the_prior_tells_likely_from_unlikely():
    low, high = limits()
    assert limit_penalty(pose_prior().mean[None]) == 0
    assert pose_prior()(high[None]) > 5 * pose_prior()(pose_prior().mean[None]) + 1


def photo_folder(folder, names=("casual", "dress")):
    "Cut-outs with keypoints beside them: no networks are needed."
    from recon.body.anny import load_anny
    folder.mkdir(parents=True)
    regressor = load_anny().keypoints.regression_weights[:, :13380]
    from recon.fitting.lifter import FROM_BODY_25

    for name in names:
        shutil.copy(EXAMPLES / "images" / f"{name}.png", folder / f"{name}.png")
        vertices = torch.tensor(
            np.asarray(trimesh.load(EXAMPLES / "body" / f"{name}.ply", process=False).vertices)
        ).float()
        points = no_keypoints()
        places = ((regressor @ vertices)[:, :2] * torch.tensor([1.0, -1]) + 1).numpy() * 128
        points.body[FROM_BODY_25] = np.c_[places, np.ones(23)]
        points.body[[15, 16]] = 0  # eyes are no part of the skin
        for row, pair in {1: (2, 5), 8: (9, 12)}.items():
            points.body[row] = points.body[list(pair)].mean(0)
        write_keypoints(folder / f"{name}_keypoints.json", [points])
    return folder


def test_a_folder_becomes_a_prepared_folder_and_nothing_is_made_twice(tmp_path, capsys):
    photos = photo_folder(tmp_path / "photos")
    (photos / "broken.jpg").write_text("no photo")
    cfg = Fit(photos=str(photos), data_root=str(tmp_path / "out"))
    made, failed = fit_all(cfg)
    assert made == {"casual": ["casual"], "dress": ["dress"]}
    assert list(failed) == ["broken"] and "broken: " in capsys.readouterr().out
    for name in ("casual", "dress"):
        image = np.asarray(Image.open(tmp_path / "out" / "images" / f"{name}.png"))
        assert image.shape == (1024, 1024, 4)
        record = json.loads((tmp_path / "out" / "fit" / f"{name}.json").read_text())
        assert record["score"]["error"] < 0.06 and record["score"]["inside"] > 0.9
        from_dict(record["parameters"])
        assert (tmp_path / "out" / "fit" / f"{name}.jpg").exists() and (
            tmp_path / "out" / "keypoints" / f"{name}.json"
        ).exists()
        assert max(Image.open(tmp_path / "out" / "photos" / f"{name}.jpg").size) <= 1024
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.*")}
    fit_all(cfg)
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.*")}
    (tmp_path / "out" / "body" / "dress.ply").unlink()  # as a killed run leaves it
    with pytest.raises(SubjectsFailed, match="1 of 3 photos failed:\n  broken: "):
        main(cfg)
    assert (tmp_path / "out" / "body" / "dress.ply").exists()


def test_bodies_of_the_folder_fit_the_true_ones(tmp_path):
    "A procedural person of the examples: fitted vertices beside the true ones, in the frame of the cube."
    photos = photo_folder(tmp_path / "photos", ["casual"])
    main(Fit(photos=str(photos), data_root=str(tmp_path / "out")))
    fitted, true = (
        np.asarray(trimesh.load(folder / "body" / "casual.ply", process=False).vertices)
        for folder in (tmp_path / "out", EXAMPLES)
    )
    centered = [vertices - vertices.mean(0) for vertices in (fitted, true)]
    scale = np.ptp(centered[1][:, 1]) / np.ptp(centered[0][:, 1])
    assert np.linalg.norm(centered[0] * scale - centered[1], axis=1).mean() < 0.07


@pytest.mark.parametrize(
    "options,reason",
    [(dict(photos="/nowhere"), "no such photo"), (dict(gender="x"), "female or male"), (dict(height=180.0), "metres")],
)
def test_wrong_options_say_what_is_expected(options, reason):
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        main(Fit(**options))


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(ValueError, match="no photos"):
        list_photos(tmp_path)


def test_siths_command_line(tmp_path):
    "`python fit.py -i photos -o out` in recon/; a photo that fails ends with an exit code and one line."
    (tmp_path / "a.jpg").write_text("no photo")
    command = ["fit.py", "-i", tmp_path, "-o", tmp_path / "out", "--size", 512]
    done = run_python(command, ROOT / "recon")
    assert done.returncode == 1 and "not an image" in done.stderr and "Traceback" not in done.stderr


def test_a_killed_folder_goes_on(tmp_path):
    "Killed once the first person is there: the next run makes the second and leaves the first as it is."
    photos, out = photo_folder(tmp_path / "photos"), tmp_path / "out"
    running = Python(["-m", "recon.fit", "--photos", photos, "--data_root", out], ROOT)
    while not (out / "fit" / "photos.json").exists():
        assert running.poll() is None, "it ended before the first person was there"
        time.sleep(0.02)
    running.kill()
    running.wait()
    first = (out / "body" / "casual.ply").stat().st_mtime_ns
    assert not (out / "body" / "dress.ply").exists()
    assert main(Fit(photos=str(photos), data_root=str(out))) == {"casual": ["casual"], "dress": ["dress"]}
    assert (out / "body" / "dress.ply").exists() and (out / "body" / "casual.ply").stat().st_mtime_ns == first
    assert not list(out.rglob("*.partial*"))


def test_time_and_memory_are_printed(tmp_path):
    "Of a process of its own: this one holds what other tests have left."
    options = ["--photos", str(photo_folder(tmp_path / "photos", ["casual"])), "--data_root", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "recon.fit", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    last = done.stdout.strip().splitlines()[-1]
    seconds, memory = (float(word) for word in last.split() if word.replace(".", "").isdigit())
    assert "s a photo" in last and 0 < seconds < 120 and 0 < memory < 1.5


def standing_evidence(pitch: float, knees: float = 0.0, hint_tilt: float = 0.0):
    "Evidence of a body that stands before a camera that looks down by `pitch` degrees; hints tilt away from the truth."
    body = point_body(2)
    angles = torch.zeros(1, angle_count())
    for side in "LR":
        angles[:, slices()[f"knee.{side}"]] = np.deg2rad(knees)
        angles[:, slices()[f"hip.{side}"].start] = -np.deg2rad(knees) / 2
    points = body(angles, average_shape()[None]).keypoints[0]
    points = points @ exponential(torch.tensor([np.deg2rad(pitch), 0.0, 0.0]).float()).T
    scale = 1.6 / float(points[:, 1].max() - points[:, 1].min())
    tilted = points @ exponential(torch.tensor([np.deg2rad(hint_tilt), 0.0, 0.0]).float()).T
    seen = project(points[None], torch.tensor([DISTANCE]))[0] * scale
    return Evidence(seen, torch.ones(23), torch.zeros(2, 21, 3), tilted, None), points


def angle_to_ground(fit) -> float:
    "Degrees between the camera's up and the body's, from the ankles to the shoulders."
    joints = fit.best.to_metres(fit.body()[1][None])[0]
    axis = joints[[5, 6]].mean(0) - joints[[15, 16]].mean(0)
    up, ahead = fit.best.vertical()
    return float(torch.rad2deg(torch.atan2((axis * ahead[0, 0]).sum(), (axis * up[0, 0]).sum())))


@pytest.mark.parametrize("hint_tilt", [0.0, 12.0])
def test_somebody_who_stands_stands(hint_tilt):
    "Knees straight, weight over the feet, also where the 3D hints lean."
    evidence, _ = standing_evidence(5.0, hint_tilt=hint_tilt)
    fit = fit_photo(evidence)
    for side in "LR":
        assert abs(float(fit.best.angles[0, slices()[f"knee.{side}"]].rad2deg())) < 10
    assert abs(angle_to_ground(fit)) < 5


def test_a_body_in_clothes_has_a_modest_chest():
    "Where nothing is known of gender, and a woman's where it is."
    evidence, _ = standing_evidence(5.0)
    assert fit_photo(evidence, steps=(5, 5)).phenotype()["cupsize"] < 0.15
    assert 0.15 < fit_photo(evidence, steps=(5, 5), known=dict(gender=1.0)).phenotype()["cupsize"] < 0.4


@pytest.mark.parametrize("side", "LR")
def test_fingers_curl_towards_the_thumb(side):
    "On both hands, in the fit and in the poses of procedural people."
    body = load_anny()
    heads = dict(zip(body.bone_names, body.pose().heads.numpy()))
    poses = [sample_pose(np.random.default_rng(seed), heads, "relaxed")[0] for seed in range(4)]

    def distance(pose):
        posed = body.pose(torch.as_tensor(pose).float())
        rows = [body.bone_names.index(f"finger{finger}-3.{side}") for finger in (1, 3)]
        ends = (posed.bones[rows, :3, :3] @ posed.heads[rows][..., None])[..., 0] + posed.bones[rows, :3, 3]
        return float((ends[0] - ends[1]).norm())

    open_hand = distance(np.tile(np.eye(4), (163, 1, 1)))
    assert np.mean([distance(pose) for pose in poses]) < open_hand
    assert distance(to_anny_pose(pose_prior().means[1])) < open_hand


def test_a_correction_that_cannot_be_is_refused():
    evidence, _ = seen_body(4)
    fit = fit_photo(evidence, steps=(2, 2))
    for wrong, reason in (
        (dict(height=180.0), "metres"),
        (dict(gender="x"), "female or male"),
        (dict(build=dict(tail=0.5)), "no 'tail'"),
        (dict(moved=dict(nose=(900.0, 20.0))), "in the cube"),
        (dict(swap=("ears",)), "no 'ears'"),
    ):
        with pytest.raises(ValueError, match=reason):
            mend(fit, evidence, Correction(**wrong))


def test_smplx_beside_anny_and_other_regressors_parameters(tmp_path):
    "With a model file, here a stand-in of the same structure, the fit is written in it, and given parameters are used."
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **anny_as_smplx())
    photos, given = photo_folder(tmp_path / "photos", ["casual"]), tmp_path / "given"
    options = dict(photos=str(photos), body_file=str(tmp_path / "SMPLX_NEUTRAL.npz"))
    main(Fit(data_root=str(tmp_path / "out"), **options))
    faces = load_anny().model.faces
    written = np.loadtxt((tmp_path / "out/smplx/casual_smplx.obj").read_text().splitlines()[:13380], usecols=(1, 2, 3))
    fitted = trimesh.load(tmp_path / "out/body/casual.ply", process=False).vertices
    apart = MeshQuery(torch.tensor(np.asarray(fitted)).float(), faces).closest(torch.tensor(written).float())[0]
    assert apart.mean() < 0.02 and np.linalg.norm(written - fitted, axis=1).mean() < 0.07  # a child
    given.mkdir()
    np.savez(given / "casual.npz", global_orient=[[np.pi, 0, 0]], body_pose=np.zeros((1, 63)), betas=np.zeros((1, 10)))
    cfg = Fit(data_root=str(tmp_path / "two"), parameters=str(given), parameters_as_fit=True, **options)
    main(cfg)
    arms = np.loadtxt((tmp_path / "two/smplx/casual_smplx.obj").read_text().splitlines()[:13380], usecols=(1, 2, 3))
    rest = load_anny().model.canonical.numpy()
    shape = (rest - rest.mean(0)) / np.ptp(rest[:, 1])
    assert np.abs((arms - arms.mean(0)) / np.ptp(arms[:, 1]) - shape).max() < 0.01, "the given pose as it is"
    with pytest.raises(ValueError, match="needs"):
        main(Fit(data_root=str(tmp_path / "three"), photos=str(photos), parameters_as_fit=True))
    with pytest.raises(FileNotFoundError, match="body_file"):
        main(Fit(data_root=str(tmp_path / "three"), photos=str(photos), body_file=str(tmp_path / "none")))
