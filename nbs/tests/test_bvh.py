"""Motion capture of other people's tools: limbs point where the file's own kinematics point them, or the file is
refused before any work."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.spatial.transform import Rotation

from recon.body.bvh import LIMBS, bvh_pose, find_roles, load_clips
from recon.synth.template import load_template

CASES = ROOT.parent / "shared" / "cases"
Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # to y up
SKELETON = {  # joint -> parent, offset of a person who stands
    "Hips": (None, (0, 95, 0)),
    "Spine": ("Hips", (0, 12, 0)),
    "Spine1": ("Spine", (0, 20, 0)),
    "Neck": ("Spine1", (0, 20, 0)),
    "Head": ("Neck", (0, 10, 0)),
    **{
        f"{side}{name}": (f"{side}{parent}" if parent not in ("Hips", "Spine1") else parent, (sign * x, y, z))
        for side, sign in (("Left", 1), ("Right", -1))
        for name, parent, (x, y, z) in (
            ("Shoulder", "Spine1", (5, 15, 0)),
            ("Arm", "Shoulder", (12, 0, 0)),
            ("ForeArm", "Arm", (20, -20, 0)),
            ("Hand", "ForeArm", (18, -15, 5)),
            ("UpLeg", "Hips", (10, -3, 0)),
            ("Leg", "UpLeg", (1, -43, 0)),
            ("Foot", "Leg", (0, -42, -2)),
            ("ToeBase", "Foot", (0, -5, 14)),
        )
    },
}


def random_clip(
    seed: int, unit: float = 1.0, rest: str = "any", up=None, order: str = "ZXY", rename=lambda name: name
) -> tuple[str, np.ndarray]:
    "A BVH file of three random poses with a rest pose of its own, and the places (T,J,3) of its joints in its world."
    up = np.eye(3) if up is None else up
    rng = np.random.default_rng(seed)
    names = list(SKELETON)
    offsets = np.array([SKELETON[name][1] for name in names], float) @ up
    parents = [names.index(SKELETON[name][0]) if SKELETON[name][0] else -1 for name in names]
    world = np.empty((3, len(names), 3, 3))
    for frame in range(3):
        for number, parent in enumerate(parents):
            own = Rotation.from_rotvec(rng.normal(size=3) * (0.1 if parent < 0 else 0.3)).as_matrix()
            world[frame, number] = (world[frame, parent] if parent >= 0 else np.eye(3)) @ own
    # the same places from another rest pose: bone by bone its direction is turned, and the joints are turned back
    twist = [np.eye(3) if rest == "person" else rest_turn(rng, rest) for _ in names]
    if rest == "along x":
        twist = [first_to_x(offsets, parents, number) for number in range(len(names))]
    rests = np.array(
        [
            offsets[number] if parents[number] < 0 else twist[parents[number]].T @ offsets[number]
            for number in range(len(names))
        ]
    )
    joints = world @ np.array(twist)
    places = np.zeros((3, len(names), 3))
    for number, parent in enumerate(parents):
        if parent >= 0:
            places[:, number] = places[:, parent] + joints[:, parent] @ rests[number]
    children = {number: [k for k, parent in enumerate(parents) if parent == number] for number in range(len(names))}
    columns = []

    def write(number):
        channels = "".join(f" {axis}rotation" for axis in order)
        head = f"ROOT {rename(names[number])}" if parents[number] < 0 else f"JOINT {rename(names[number])}"
        columns.append(number)
        position = "6 Xposition Yposition Zposition" if parents[number] < 0 else "3"
        inside = "\n".join(write(child) for child in children[number]) or f"End Site {{ OFFSET {unit} 0 0 }}"
        return (
            f"{head}\n{{ OFFSET {' '.join(map(str, unit * rests[number]))}\nCHANNELS {position}{channels}\n{inside}\n}}"
        )

    text = "HIERARCHY\n" + write(0) + "\nMOTION\nFrames: 3\nFrame Time: 0.04\n"
    for frame in range(3):
        row = ["0", str(95 * unit), "0"]
        for number in columns:
            above = joints[frame, parents[number]] if parents[number] >= 0 else np.eye(3)
            row += map(str, Rotation.from_matrix(above.T @ joints[frame, number]).as_euler(order, degrees=True))
        text += " ".join(row) + "\n"
    return text, places


def rest_turn(rng, rest: str) -> np.ndarray:
    return Rotation.random(random_state=int(rng.integers(1 << 31))).as_matrix() if rest == "any" else np.eye(3)


def first_to_x(offsets, parents, number) -> np.ndarray:
    "Turns +x to where the bone of this joint points, so that its rest direction is +x."
    child = next((k for k, parent in enumerate(parents) if parent == number and np.linalg.norm(offsets[k]) > 0), None)
    if child is None:
        return np.eye(3)
    direction = offsets[child] / np.linalg.norm(offsets[child])
    return Rotation.align_vectors([direction], [[1.0, 0, 0]])[0].as_matrix()


def limb_angles(clip, places: np.ndarray, to_ours: np.ndarray, frame: int) -> dict:
    "Degrees between each limb of the free body and the file's."
    template, roles = load_template(), find_roles(clip)
    pose = bvh_pose(clip, template, frame)
    assert np.isfinite(pose).all() and np.allclose(np.linalg.det(pose[:, :3, :3]), 1, atol=1e-4)
    posed = template.body.pose(torch.as_tensor(pose), dict(age=0.62))
    heads = {
        bone: (motion[:3, :3] @ head + motion[:3, 3]).double().numpy()
        for bone, motion, head in zip(template.body.bone_names, posed.bones, posed.heads)
    }
    angles = {}
    for role, (bone, tip, following) in LIMBS.items():
        for side in "LR" if role in ("upperarm", "forearm", "thigh", "shin") else "":
            theirs = to_ours @ (places[roles[f"{following}.{side}"]] - places[roles[f"{role}.{side}"]])
            ours = heads[f"{tip}.{side}"] - heads[f"{bone}.{side}"]
            angles[f"{role}.{side}"] = np.rad2deg(
                np.arccos(np.clip(theirs @ ours / np.linalg.norm(theirs) / np.linalg.norm(ours), -1, 1))
            )
    return angles


def unreal(name: str) -> str:
    "A name of another studio."
    side = "_l" if name.startswith("Left") else "_r"
    bare = name.removeprefix("Left").removeprefix("Right")
    parts = dict(
        Shoulder="clavicle",
        Arm="upperarm",
        ForeArm="lowerarm",
        Hand="hand",
        UpLeg="thigh",
        Leg="calf",
        Foot="foot",
        ToeBase="ball",
    )
    return (
        parts[bare] + side
        if bare in parts
        else dict(Hips="pelvis", Spine="spine_01", Spine1="spine_02").get(bare, bare.lower())
    )


@pytest.mark.parametrize(
    "options,to_ours",
    [
        (dict(rest="person"), np.eye(3)),
        (dict(rest="any"), np.eye(3)),
        (dict(rest="along x"), np.eye(3)),
        (dict(rest="any", unit=0.01), np.eye(3)),
        (dict(rest="along x", unit=39.4, order="XYZ"), np.eye(3)),
        (dict(rest="any", order="YXZ", rename=unreal), np.eye(3)),
        (dict(rest="person", up=Z_UP), Z_UP),
        (dict(rest="along x", up=Z_UP, order="ZYX", rename=lambda name: f"Character1_{name}"), Z_UP),
        (dict(rest="any", rename=lambda name: f"mixamorig:{name}", order="XZY"), np.eye(3)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_limbs_point_where_the_files_own_kinematics_point_them(tmp_path, options, to_ours, seed):
    text, places = random_clip(seed, **options)
    (tmp_path / "clip.bvh").write_text(text)
    (clip,) = load_clips(tmp_path / "clip.bvh")
    order = [list(SKELETON).index(name) for name in written_order()]
    for frame in range(3):
        angles = limb_angles(clip, places[frame][order], to_ours, frame)
        assert max(angles.values()) < 0.1, angles


def written_order() -> list[str]:
    "Names of the joints in the order of a file, children after their parents."

    def below(name):
        return [name, *(k for child, (parent, _) in SKELETON.items() if parent == name for k in below(child))]

    return below("Hips")


@pytest.mark.parametrize("case", ["14-bvh-rokoko", "15-bvh-rest-along-x"])
def test_clips_whose_rest_pose_is_no_person(case):
    "Bones along +x at rest, y up in the world: one gave a linear-algebra error, the other a person who lies."
    path = CASES / case / "clip.bvh"
    if not path.exists():
        pytest.skip("no ../shared/cases")
    (clip,) = load_clips(path)
    for frame in range(len(clip)):
        places = np.stack(kinematics(clip, frame))
        assert max(limb_angles(clip, places, np.eye(3), frame).values()) < 0.1


def kinematics(clip, frame):
    "Places of the joints by 4 x 4 matrices."
    world = []
    for joint in clip.joints:
        values = dict(zip(joint.channels, clip.motion[frame, joint.column :]))
        order = "".join(name[0] for name in joint.channels if name.endswith("rotation"))
        local = np.eye(4)
        if order:
            local[:3, :3] = Rotation.from_euler(
                order, [values[f"{axis}rotation"] for axis in order], degrees=True
            ).as_matrix()
        local[:3, 3] = joint.offset
        world.append((world[joint.parent] if joint.parent >= 0 else np.eye(4)) @ local)
    return [matrix[:3, 3] for matrix in world]


@pytest.mark.parametrize(
    "old,new,message",
    [
        ("CHANNELS 6", "CHANNELS 99999999999", "expected 0 to 6"),
        ("Zrotation", "Zrotations", "channels"),
        ("Frames: 3", "Frames: 99999999999", "expected 99999999999 frames"),
        ("Frames: 3", "Frames: -3", "expected -3 frames"),
        ("Frames: 3", "Frames: x", "damaged"),
        ("Frame Time: 0.04", "", "damaged"),
        ("MOTION", "", "damaged"),
        ("OFFSET 0", "OFFSET 1e999", "damaged"),
        ("End Site", "Site", "damaged"),
        ("0 95.0 0 ", "0 nan 0 ", "not finite"),
        ("0 95.0 0 ", "0 inf 0 ", "not finite"),
        ("0 95.0 0 ", "0 9,5 0 ", "damaged"),
        ("0 95.0 0 ", "", "numbers of motion"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, old, new, message):
    text, _ = random_clip(0)
    assert old in text
    (tmp_path / "clip.bvh").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f"clip.bvh: .*{re.escape(message)}"):
        load_clips(tmp_path / "clip.bvh")


def test_a_negative_number_of_channels_does_not_loop_for_ever(tmp_path):
    (tmp_path / "clip.bvh").write_text(random_clip(0)[0].replace("CHANNELS 6", "CHANNELS -2"))
    program = f"from recon.body.bvh import load_clips; load_clips({str(tmp_path / 'clip.bvh')!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "a joint of -2 channels" in done.stderr


@pytest.mark.parametrize("joint", ["LeftLeg", "RightForeArm"])
def test_a_limb_without_length_is_refused_before_any_work(tmp_path, joint):
    text, _ = random_clip(0)
    head, tail = text.split(f"JOINT {joint}\n{{ OFFSET ", 1)
    (tmp_path / "clip.bvh").write_text(f"{head}JOINT {joint}\n{{ OFFSET 0 0 0\n{tail.split(chr(10), 1)[1]}")
    with pytest.raises(ValueError, match="has no length in frame 0"):
        load_clips(tmp_path / "clip.bvh")
