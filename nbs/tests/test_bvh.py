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
        ("Frames: 3\nFrame Time: 0.04\n0 95.0 0 ", "Frame Time: 0.04\n", "expected 2.9545"),
        ("Frame Time: 0.04", "", "no `Frames: ...` and `Frame Time: ...`"),
        ("Frames: 3", "Frames: 4", "expected 4 frames"),
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


PARTS = "Shoulder Arm ForeArm Hand UpLeg Leg Foot ToeBase".split()
TRUNK = "Hips Spine Spine1 Neck Head".split()
STUDIOS = {  # names of trunk and left side
    "xsens": ("Pelvis L5 T8 Neck Head", "{}Shoulder {}UpperArm {}ForeArm {}Hand {}UpperLeg {}LowerLeg {}Foot {}Toe"),
    "xsens with blanks": (
        "Pelvis L5 T8 Neck Head",
        "{}_Shoulder {}_Upper_Arm {}_Forearm {}_Hand {}_Upper_Leg {}_Lower_Leg {}_Foot {}_Toe",
    ),
    "rokoko": ("Hips Spine1 Spine2 Neck Head", "{}Shoulder {}Arm {}ForeArm {}Hand {}Thigh {}Shin {}Foot {}Toe"),
    "cmu": ("Hips LowerBack Spine Neck Head", "{}Shoulder {}Arm {}ForeArm {}Hand {}UpLeg {}Leg {}Foot {}ToeBase"),
    "poser": ("hip abdomen chest neck head", "{0}Collar {0}Shldr {0}ForeArm {0}Hand {0}Thigh {0}Shin {0}Foot {0}Toe"),
    "max": ("Hips Chest Chest2 Neck Head", "{}Collar {}Shoulder {}Elbow {}Wrist {}Hip {}Knee {}Ankle {}Toe"),
    "biped": (
        "Bip01 Bip01_Spine Bip01_Spine1 Bip01_Neck Bip01_Head",
        "Bip01_{0}_Clavicle Bip01_{0}_UpperArm Bip01_{0}_Forearm Bip01_{0}_Hand Bip01_{0}_Thigh Bip01_{0}_Calf "
        "Bip01_{0}_Foot Bip01_{0}_Toe0",
    ),
    "smpl": (
        "Pelvis Spine1 Spine2 Neck Head",
        "{0}_Collar {0}_Shoulder {0}_Elbow {0}_Wrist {0}_Hip {0}_Knee {0}_Ankle {0}_Foot",
    ),
    "amass": (
        "pelvis spine1 spine2 neck head",
        "{}_collar {}_shoulder {}_elbow {}_wrist {}_hip {}_knee {}_ankle {}_foot",
    ),
    "unreal": (
        "pelvis spine_01 spine_02 neck_01 head",
        "clavicle_{0} upperarm_{0} lowerarm_{0} hand_{0} thigh_{0} calf_{0} foot_{0} ball_{0}",
    ),
    "rigify": (
        "spine spine.001 spine.002 spine.004 head",
        "shoulder.{0} upper_arm.{0} forearm.{0} hand.{0} thigh.{0} shin.{0} foot.{0} toe.{0}",
    ),
    "vroid": (
        "J_Bip_C_Hips J_Bip_C_Spine J_Bip_C_Chest J_Bip_C_Neck J_Bip_C_Head",
        "J_Bip_{0}_Shoulder J_Bip_{0}_UpperArm J_Bip_{0}_LowerArm J_Bip_{0}_Hand J_Bip_{0}_UpperLeg J_Bip_{0}_LowerLeg "
        "J_Bip_{0}_Foot J_Bip_{0}_ToeBase",
    ),
    "character creator": (
        "CC_Base_Hip CC_Base_Waist CC_Base_Spine01 CC_Base_NeckTwist01 CC_Base_Head",
        "CC_Base_{0}_Clavicle CC_Base_{0}_Upperarm CC_Base_{0}_Forearm CC_Base_{0}_Hand CC_Base_{0}_Thigh "
        "CC_Base_{0}_Calf CC_Base_{0}_Foot CC_Base_{0}_ToeBase",
    ),
    "optitrack": ("Hip Ab Chest Neck Head", "{0}Shoulder {0}UArm {0}FArm {0}Hand {0}Thigh {0}Shin {0}Foot {0}Toe"),
    "unity": (
        "Hips Spine Chest Neck Head",
        "{}Shoulder {}UpperArm {}LowerArm {}Hand {}UpperLeg {}LowerLeg {}Foot {}Toes",
    ),
    "bandai": (
        "Hips Spine Chest Neck Head",
        "Shoulder_{0} UpperArm_{0} LowerArm_{0} Hand_{0} UpperLeg_{0} LowerLeg_{0} Foot_{0} Toes_{0}",
    ),
    "kinect": (
        "HipCenter Spine SpineShoulder ShoulderCenter Head",
        "Collar{} Shoulder{} Elbow{} Wrist{} Hip{} Knee{} Ankle{} Foot{}",
    ),
    "deepmotion": (
        "hips_JNT spine_JNT spine1_JNT neck_JNT head_JNT",
        "{0}_shoulder_JNT {0}_arm_JNT {0}_forearm_JNT {0}_hand_JNT {0}_upleg_JNT {0}_leg_JNT {0}_foot_JNT "
        "{0}_toebase_JNT",
    ),
    "maya": (
        "root_jnt spine_01_jnt spine_02_jnt neck_jnt head_jnt",
        "{0}_clavicle_jnt {0}_upperarm_jnt {0}_forearm_jnt {0}_wrist_jnt {0}_thigh_jnt {0}_knee_jnt {0}_ankle_jnt "
        "{0}_ball_jnt",
    ),
    "with numbers of a second character": (
        "mixamorig1:Hips mixamorig1:Spine mixamorig1:Spine1 mixamorig1:Neck mixamorig1:Head",
        " ".join(f"mixamorig1:{{}}{part}" for part in PARTS),
    ),
    "in a reference": (
        "Reference:Hips Reference:Spine Reference:Spine1 Reference:Neck Reference:Head",
        " ".join(f"Reference:{{}}{part}" for part in PARTS),
    ),
}
SIDES = dict(poser="lr", deepmotion="lr", maya="lr", unreal="lr", amass=("left", "right"))
LETTERS = {"biped", "smpl", "rigify", "vroid", "character creator", "optitrack", "bandai"}


def studio_names(studio: str) -> dict:
    "Our names and theirs."
    trunk, parts = STUDIOS[studio]
    sides = SIDES.get(studio, "LR" if studio in LETTERS else ("Left", "Right"))
    names = dict(zip(TRUNK, trunk.split()))
    for ours, theirs in zip(("Left", "Right"), sides):
        names |= {f"{ours}{part}": name.format(theirs) for part, name in zip(PARTS, parts.split())}
    return names


def assert_as_the_file(path, places, to_ours=None, limit=0.1):
    (clip,) = load_clips(path)
    to_ours = np.eye(3) if to_ours is None else to_ours
    order = [list(SKELETON).index(name) for name in written_order()]
    above = np.zeros((len(clip.joints) - len(order), 3))    # joints above the hips
    assert len(clip) == len(places)
    for frame in range(len(clip)):
        angles = limb_angles(clip, np.r_[above, places[frame][order]], to_ours, frame)
        assert max(angles.values()) < limit, angles


@pytest.mark.parametrize("studio", STUDIOS)
def test_names_of_joints_of_every_studio(tmp_path, studio):
    names = studio_names(studio)
    text, places = random_clip(3, rest="any", rename=names.get)
    (tmp_path / "clip.bvh").write_text(text)
    assert_as_the_file(tmp_path / "clip.bvh", places)


def whole_turns(text: str) -> str:
    head, motion = text.split("Frame Time: 0.04\n")
    rows = [row.split() for row in motion.splitlines()]
    rows = [row[:3] + [str(float(x) + 720) for x in row[3:]] for row in rows]
    return head + "Frame Time: 0.04\n" + "\n".join(" ".join(row) for row in rows) + "\n"


WRITTEN = {
    "lines of windows": lambda text: text.replace("\n", "\r\n"),
    "lines of old macs": lambda text: text.replace("\n", "\r"),
    "tabs": lambda text: re.sub(" +", "\t", text),
    "braces on the line": lambda text: text.replace("\n{", " {"),
    "a mark of byte order": lambda text: "\ufeff" + text,
    "blank lines": lambda text: "\n\n" + text.replace("\n", "\n\n"),
    "one line": lambda text: text.replace("\n", " "),
    "capitals": lambda text: text.replace("Frames", "FRAMES").replace("Frame Time", "FRAME TIME"),
    "small letters": lambda text: (
        text.replace("JOINT", "Joint").replace("ROOT", "Root").replace("rotation", "Rotation")
    ),
    "blanks before colons": lambda text: text.replace("Frames:", "Frames :").replace("Time:", "Time :"),
    "exponents": lambda text: re.sub(r"(?<=\s)(-?\d+\.\d+)(?=\s)", lambda found: f"{float(found[1]):.9e}", text),
    "turns beyond a circle": whole_turns,
    "blanks in names": lambda text: re.sub(r"(ROOT|JOINT) (\w+)", r"\1 My Person_\2", text),
    "names in quotes": lambda text: re.sub(r"(ROOT|JOINT) (\w+)", r'\1 "\2"', text),
    "a comment first": lambda text: "# exported by a tool\n" + text,
    "comments on lines of their own": lambda text: text.replace("JOINT LeftUpLeg", "// left { leg\nJOINT LeftUpLeg"),
    "comments after numbers": lambda text: re.sub(r"(OFFSET [^\n]*)", r"\1 ; rest", text.replace(" }\n", "\n}\n")),
    "comments among frames": lambda text: text.replace("Time: 0.04\n", "Time: 0.04\n# frame 0\n"),
    "no number of frames": lambda text: text.replace("Frames: 3\n", ""),
    "a number of frames with a point": lambda text: text.replace("Frames: 3", "Frames: 3.0"),
    "no colons": lambda text: text.replace("Frames:", "Frames").replace("Time:", "Time"),
    "decimal commas": lambda text: text.replace(".", ","),
    "commas between numbers": lambda text: re.sub(r"(?m)^(0 95.0 .*)$", lambda row: row[1].replace(" ", ", "), text),
    "an end of DOS": lambda text: text + "\x1a",
    "zero bytes at the end": lambda text: text + "\0\0\0",
    "named ends": lambda text: text.replace("End Site", "End Site the tip"),
    "ends in one word": lambda text: text.replace("End Site", "EndSite"),
    "ends with channels": lambda text: text.replace("{ OFFSET 1.0 0 0 }", "{ OFFSET 1 0 0 CHANNELS 0 }"),
    "a root above the hips": lambda text: (
        text.replace("ROOT Hips", "ROOT Armature { OFFSET 0 0 0 CHANNELS 0 JOINT Hips").replace("MOTION", "}\nMOTION")
    ),
}


@pytest.mark.parametrize("change", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_file_however_it_is_written(tmp_path, change):
    text, places = random_clip(1)
    (tmp_path / "clip.bvh").write_bytes(change(text).encode())
    assert_as_the_file(tmp_path / "clip.bvh", places)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_text_of_every_encoding(tmp_path, encoding):
    text, places = random_clip(1)
    (tmp_path / "clip.bvh").write_bytes(text.encode(encoding))
    assert_as_the_file(tmp_path / "clip.bvh", places)


def test_positions_of_every_joint(tmp_path):
    "Some tools write three positions a joint, which repeat its offset."
    text, places = random_clip(2, rest="any")
    head, motion = text.split("Frame Time: 0.04\n")
    offsets = re.findall(r"(?:ROOT|JOINT) \w+\n\{ OFFSET ([^\n]*)", head)
    head = head.replace("CHANNELS 3", "CHANNELS 6 Xposition Yposition Zposition")
    rows = []
    for row in map(str.split, motion.splitlines()):
        joints = [row[3 + 3 * k : 6 + 3 * k] for k in range(len(offsets))]
        rows.append(
            " ".join(
                row[:3]
                + joints[0]
                + [word for offset, turns in zip(offsets[1:], joints[1:]) for word in (*offset.split(), *turns)]
            )
        )
    (tmp_path / "clip.bvh").write_text(head + "Frame Time: 0.04\n" + "\n".join(rows) + "\n")
    assert_as_the_file(tmp_path / "clip.bvh", places)


@pytest.mark.parametrize(
    "text", ["", "HIERARCHY", "no clip", "\0" * 50, "HIERARCHY\nROOT Hips\n", "\n".join(["{"] * 9000)]
)
def test_what_is_no_clip_is_refused_by_name(tmp_path, text):
    (tmp_path / "clip.bvh").write_text(text)
    with pytest.raises(ValueError, match="clip.bvh: ") as refused:
        load_clips(tmp_path / "clip.bvh")
    assert "\n" not in str(refused.value)


def test_a_skeleton_of_another_kind_is_refused_by_name(tmp_path):
    "A horse, and a person without a right arm."
    text, _ = random_clip(0, rename=lambda name: f"Horse{SKELETON[name][1][0]}_{len(name)}")
    (tmp_path / "horse.bvh").write_text(text)
    with pytest.raises(ValueError, match="horse.bvh: no joint for head"):
        load_clips(tmp_path / "horse.bvh")
    text, _ = random_clip(0, rename=lambda name: name.replace("RightForeArm", "Prop"))
    (tmp_path / "arm.bvh").write_text(text)
    with pytest.raises(ValueError, match="arm.bvh: no joint for forearm.R"):
        load_clips(tmp_path / "arm.bvh")
