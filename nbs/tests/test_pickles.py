"Pickles from other tools: what is admitted is read, everything else is refused, and no file ends the process."

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from recon.body.pickles import load_pickle

CASE = ROOT.parent / "shared" / "cases" / "13-parameters-from-torch"


def load_in_child(path: Path) -> subprocess.CompletedProcess:
    "Load a file in a process of its own."
    return subprocess.run(
        [sys.executable, "-c", f"from recon.body.pickles import load_pickle; load_pickle({str(path)!r})"],
        capture_output=True,
        text=True,
    )


class Rebuilt:
    "Pickles as a call of a function, with a state."

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


def test_a_type_of_objects_that_hides_its_objects_is_refused(tmp_path):
    "150 bytes: numpy took the number in them for the address of an object, and the process crashed."
    from numpy._core.multiarray import scalar

    hidden = Rebuilt(np.dtype, ("O8", False, True), (3, "|", None, None, None, 8, 8, 0))
    (tmp_path / "crash.pkl").write_bytes(pickle.dumps(Rebuilt(scalar, (hidden, b"ABCDEFGH")), 2))
    done = load_in_child(tmp_path / "crash.pkl")
    assert done.returncode == 1 and "an array of type 'O8'" in done.stderr, (done.returncode, done.stderr)


@pytest.mark.parametrize(
    "name,parts,message",
    [
        ("too short", (np._core.multiarray.scalar, (np.dtype("f8"), b"1234")), "4 bytes for an array"),
        ("an array from a class", (np.ndarray, ((2, 2),)), "not read"),
        ("a type of fields", (np.dtype, ([("a", "f8")],)), "not read"),
    ],
)
def test_arrays_have_exactly_their_bytes(tmp_path, name, parts, message):
    (tmp_path / "it.pkl").write_bytes(pickle.dumps(Rebuilt(*parts), 2))
    with pytest.raises(ValueError, match=message):
        load_pickle(tmp_path / "it.pkl")


def test_a_sparse_matrix_with_entries_beyond_its_shape_is_refused(tmp_path):
    "scipy writes them out of bounds."
    from scipy import sparse

    matrix = sparse.csc_matrix(np.eye(3))
    matrix.indices[:] = 1_000_000
    (tmp_path / "it.pkl").write_bytes(pickle.dumps(matrix, 2))
    with pytest.raises(ValueError, match="entries beyond its shape"):
        load_pickle(tmp_path / "it.pkl")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02(" + b"r\xff\xff\xff\x7f.",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f.",
        b"\x80\x05\x96" + b"\xff" * 6 + b"\0\0.",
    ],
)
def test_a_few_bytes_do_not_reserve_memory(tmp_path, data):
    (tmp_path / "it.pkl").write_bytes(data)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import resource; from recon.body.pickles import load_pickle; "
            "resource.setrlimit(resource.RLIMIT_AS, (4 << 30,)*2); "
            f"load_pickle({str(tmp_path / 'it.pkl')!r})",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "not read" in done.stderr and "MemoryError" not in done.stderr


@pytest.mark.campaign
def test_ten_thousand_mutated_pickles_are_read_or_refused():
    from fuzz import fuzz

    assert fuzz(10_000, 1, ["pickle"])[1] == []


def test_parameters_of_torch_are_read_as_numbers():
    if not CASE.exists():
        pytest.skip("no ../shared/cases")
    from recon.data.formats.parameters import read_params

    params = read_params(CASE / "smplx" / "0007" / "smplx_param.pkl")
    assert {
        name: len(value) for name, value in params.items() if name in ("body_pose", "betas", "global_orient")
    } == dict(body_pose=63, betas=10, global_orient=3)


@pytest.mark.parametrize("shape", [(1, 21, 3, 3), (21, 3, 3), (1, 189)])
def test_rotation_matrices_become_axis_angles(tmp_path, shape):
    import json

    import torch
    from scipy.spatial.transform import Rotation

    from recon.data.formats.parameters import read_params

    turns = Rotation.random(21, random_state=0)
    pose = turns.as_matrix().reshape(shape)
    (tmp_path / "params.pkl").write_bytes(
        pickle.dumps(dict(body_pose=torch.tensor(pose), global_orient=np.eye(3), betas=np.zeros(10)), 4)
    )
    (tmp_path / "params.json").write_text(
        json.dumps(dict(body_pose=pose.tolist(), betas=[0] * 10)), encoding="utf-8-sig"
    )  # with a byte order mark
    for name in ("params.pkl", "params.json"):
        params = read_params(tmp_path / name)
        assert np.allclose(
            Rotation.from_rotvec(params["body_pose"].reshape(21, 3)).as_matrix(), turns.as_matrix(), atol=1e-6
        )
    assert np.allclose(read_params(tmp_path / "params.pkl")["global_orient"], 0)
    (tmp_path / "params.json").write_text(json.dumps(dict(body_pose=(2 * pose).tolist())))
    with pytest.raises(ValueError, match="body_pose: 21 matrices of 3 x 3 that are not rotations"):
        read_params(tmp_path / "params.json")


POSE = np.linspace(-0.4, 0.4, 63)
ONE = dict(body_pose=POSE, betas=np.arange(10) / 10, global_orient=np.ones(3) / 3)


def write_params(path: Path, params: dict):
    "By the file's suffix."
    import json

    if path.suffix == ".npz":
        np.savez(path, **params)
    elif path.suffix == ".json":
        path.write_text(json.dumps({name: np.asarray(value).tolist() for name, value in params.items()}))
    else:
        path.write_bytes(pickle.dumps(params))
    return path


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".json", ".NPZ"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x[None],
        lambda x: x[None, None],
        lambda x: x.astype("f4"),
        lambda x: x.astype(">f8"),
        lambda x: x.reshape(-1, 3) if len(x) != 10 else x,
        lambda x: x.reshape(1, -1, 3) if len(x) != 10 else x[:, None],
    ],
)
def test_parameters_of_one_body_in_every_shape(tmp_path, suffix, change):
    from recon.data.formats.parameters import read_params

    path = tmp_path / f"smplx_param{suffix.lower()}"
    write_params(path, {name: change(value) for name, value in ONE.items()} | dict(gender=np.array("male")))
    path = path.rename(path.with_suffix(suffix))
    found = read_params(path)
    assert set(found) == set(ONE)
    for name, value in ONE.items():
        assert np.allclose(found[name], value, atol=1e-6)


def test_parameters_of_half_precision_and_of_lists(tmp_path):
    import torch

    from recon.data.formats.parameters import read_params

    for value in (
        torch.tensor(POSE).half(),
        POSE.astype("f2"),
        list(POSE),
        torch.nn.Parameter(torch.tensor(POSE)[None]),
    ):
        found = read_params(write_params(tmp_path / "p.pkl", dict(body_pose=value, betas=None, extra={"a": [1]})))
        assert list(found) == ["body_pose"] and np.allclose(found["body_pose"], POSE, atol=1e-3)


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".json"])
@pytest.mark.parametrize(
    "change,words",
    [
        (dict(body_pose=np.stack([POSE, POSE])), "body_pose has 126 numbers, of shape (2, 63); expected 63"),
        (dict(betas=np.zeros((2, 10))), "betas has shape (2, 10); expected one row"),
        (dict(body_pose=np.zeros(69)), "body_pose has 69 numbers"),
        (dict(left_hand_pose=np.zeros(90)), "left_hand_pose has 90 numbers"),
        (dict(body_pose=np.full(63, np.nan)), "body_pose NaN"),
        (dict(body_pose=np.array("text")), "body_pose"),
        (dict(pose=POSE), "no `body_pose`"),
    ],
)
def test_parameters_of_no_single_body_are_refused_by_name(tmp_path, suffix, change, words):
    from recon.data.formats.parameters import read_params

    params = ONE | change
    if "pose" in change:
        del params["body_pose"]
    with pytest.raises(ValueError) as refused:
        read_params(write_params(tmp_path / f"p{suffix}", params))
    assert str(refused.value).startswith(str(tmp_path)) and words in str(refused.value)
    assert "\n" not in str(refused.value)


ESTIMATORS = {  # the words of their outputs for body_pose, betas and global_orient
    "OSX": lambda pose, betas, turn: dict(smplx_root_pose=turn, smplx_body_pose=pose, smplx_shape=betas, bbox=[0, 1]),
    "Hand4Whole": lambda pose, betas, turn: dict(root_pose=[turn], body_pose=[pose], shape=[betas], focal=9),
    "AMASS": lambda pose, betas, turn: dict(root_orient=turn, pose_body=pose, betas=betas, gender="male"),
    "below a name": lambda pose, betas, turn: dict(meta=dict(a=1), smplx=named(pose, betas, turn)),
    "a list of one": lambda pose, betas, turn: [dict(person_id=0, params=named(pose, betas, turn))],
    "predicted": lambda pose, betas, turn: dict(
        pred_smpl_params=dict(pred_body_pose=pose, pred_betas=betas, pred_global_orient=turn)
    ),
}


def named(pose, betas, turn) -> dict:
    return dict(body_pose=pose, betas=betas, global_orient=turn)


@pytest.mark.parametrize("suffix", [".pkl", ".json"])
@pytest.mark.parametrize("write", ESTIMATORS.values(), ids=ESTIMATORS.keys())
def test_parameters_in_the_words_of_an_estimator(tmp_path, write, suffix):
    import json

    from recon.data.formats.parameters import read_params

    values = write(*(value.tolist() for value in ONE.values()))
    path = tmp_path / f"p{suffix}"
    path.write_bytes(json.dumps(values).encode() if suffix == ".json" else pickle.dumps(values))
    found = read_params(path)
    assert set(found) == set(ONE)
    for name, value in ONE.items():
        assert np.allclose(found[name], value)


def test_parameters_of_several_persons_are_refused_by_name(tmp_path):
    from recon.data.formats.parameters import read_params

    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps({"0": ONE, "1": ONE}))
    with pytest.raises(ValueError, match="p.pkl: parameters of 2 bodies; expected one"):
        read_params(path)
    path.write_bytes(pickle.dumps(dict(smpl_thetas=np.zeros(72), smpl_betas=np.zeros(10))))
    with pytest.raises(ValueError, match="p.pkl: no `body_pose` .found: smpl_thetas, smpl_betas."):
        read_params(path)


def test_an_npz_is_checked_before_memory_is_taken(tmp_path):
    "A header that promises 3.6 GB in 150 bytes; a pickle among the arrays; a compressed one."
    import io
    import tracemalloc
    import zipfile

    from recon.body.pickles import load_npz

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, dict(descr="<f8", fortran_order=False, shape=(450_000_000,)))
    with zipfile.ZipFile(tmp_path / "it.npz", "w") as archive:
        archive.writestr("betas.npy", header.getvalue() + bytes(80))
    tracemalloc.start()
    with pytest.raises(ValueError, match="it.npz: damaged .*promises"):
        load_npz(tmp_path / "it.npz")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    np.savez_compressed(tmp_path / "it.npz", a=np.ones(3), b=np.array([Rebuilt(print, ("ran",))], object))
    assert list(load_npz(tmp_path / "it.npz")) == ["a"]


WRITTEN = {
    "arrays under the suffix of a pickle": ("p.pkl", lambda path: np.savez(path.open("wb"), **ONE)),
    "a pickle under the suffix of JSON": ("p.json", lambda path: path.write_bytes(pickle.dumps(ONE))),
    "JSON under the suffix of a pickle": ("p.pkl", lambda path: path.write_text(text_of(lambda x: x.tolist()))),
    "numbers as text": ("p.json", lambda path: path.write_text(text_of(lambda x: [str(number) for number in x]))),
    "names in capitals": ("p.json", lambda path: path.write_text(text_of(lambda x: x.tolist(), str.title))),
    "names of a script": ("p.json", lambda path: path.write_text(text_of(lambda x: x.tolist(), camel))),
    "UTF-16": ("p.json", lambda path: path.write_bytes(text_of(lambda x: x.tolist()).encode("utf-16"))),
    "all joints of SMPL-X": ("p.npz", lambda path: np.savez(path, poses=joints(99)[None], betas=ONE["betas"])),
    "all joints of SMPL-H": ("p.npz", lambda path: np.savez(path, fullpose=joints(90), betas=ONE["betas"])),
    "joints without hands": ("p.pkl", lambda path: path.write_bytes(pickle.dumps(ONE_ROW | dict(poses=joints(0))))),
}
ONE_ROW = dict(betas=ONE["betas"])


def text_of(change, name=str) -> str:
    import json

    return json.dumps({name(key): change(value) for key, value in ONE.items()})


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.title, rest))


def joints(more: int) -> np.ndarray:
    return np.concatenate([ONE["global_orient"], ONE["body_pose"], np.zeros(more)])


@pytest.mark.parametrize("name,write", WRITTEN.values(), ids=WRITTEN.keys())
def test_parameters_however_they_are_written(tmp_path, name, write):
    from recon.data.formats.parameters import read_params

    write(tmp_path / name)
    found = read_params(tmp_path / name)
    for key, value in ONE.items():
        assert np.allclose(found[key], value), key


@pytest.mark.parametrize(
    "data,words",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a pointer of Git LFS"),
        (b"<html>Not found</html>", "a web page"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"-0.1 0.2\n", "no pickle, or cut off (begins with b'-0.1 0.2')"),
        (b"", "no pickle, or cut off"),
        (pickle.dumps(ONE | dict(tags={"a"})), "holds empty set"),
        (pickle.dumps(ONE | dict(body_pose=np.degrees(POSE))), "Is it in degrees?"),
        (pickle.dumps(ONE | dict(body_pose=np.zeros(69))), "has 69 numbers, of shape (69,) (23 joints"),
    ],
)
def test_what_are_no_parameters_is_said(tmp_path, data, words):
    from recon.data.formats.parameters import read_params

    (tmp_path / "p.pkl").write_bytes(data)
    with pytest.raises(ValueError) as refused:
        read_params(tmp_path / "p.pkl")
    message = str(refused.value)
    assert message.startswith(str(tmp_path)) and words in message and "\n" not in message, message
