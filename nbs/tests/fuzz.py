"""Mutate valid files of every format that is read, and read them: `python fuzz.py COUNT SEED [FORMAT ...]`.
Each is read, or refused in one line that names a file; anything else (another error, a death, ten seconds of CPU time,
3 GB of memory, a file written) is a fault and is printed. One child takes many mutants and is started again where it
dies."""

import argparse
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10
MEMORY = 3 << 30
SPECIAL = [
    b"nan",
    b"-1",
    b"0",
    b"1e999",
    b"99999999999",
    b"1" * 30,
    b"x",
    b"1,5",
    b"",
    b"../../outside",
    b"/etc/passwd",
    b"\0",
    b"\xff\xfe",
    "\u00e9".encode(),
    b"<b>",
    b"A" * 5000,
    b"2147483648",
    b"-2147483649",
    b"1e-320",
]
VALUES = [
    None,
    -1,
    0,
    1e308,
    10**12,
    10**30,
    "x",
    "",
    [],
    {},
    True,
    "../../outside",
    "/etc/passwd",
    "A" * 5000,
    float("nan"),
    float("inf"),
    [[]],
    ["x"],
    {"x": 1},
    0.5,
    4294967295,
]


@dataclass
class Format:
    "Valid files of a format and what reads the one that is mutated."

    files: list  # dictionaries: name -> contents
    target: str
    mutate: object  # (contents, all contents, generator) -> contents
    read: object  # called with the folder


# Mutations


def of_bytes(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    "Change, remove, insert, splice and cut bytes."
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(7)
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        if kind == 0 and out:
            out[at % len(out)] = rng.randrange(256)
        if kind == 1:
            del out[at : at + rng.randrange(1, 9)]
        if kind == 2:
            out[at:at] = rng.randbytes(rng.randrange(1, 5))
        if kind == 3:
            out[at : at + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01", b"b"))
        if kind == 4:
            out[at:at] = other[start : start + rng.randrange(1, 40)]
        if kind == 5:
            out[at:at] = out[start : start + rng.randrange(1, 20)]
        if kind == 6 and rng.random() < 0.1:
            del out[at:]
    return bytes(out)


def of_text(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    "Change words and lines."
    if rng.random() < 0.2:
        return of_bytes(data, others, rng)
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        words = lines[at].split(b" ")
        word = rng.randrange(len(words))
        kind = rng.randrange(7)
        if kind in (0, 1):
            words[word] = rng.choice(SPECIAL)
        if kind == 2:
            del words[word]
        if kind == 3:
            words[word:word] = [rng.choice(rng.choice(others).split())] if rng.random() < 0.5 else [rng.choice(SPECIAL)]
        lines[at] = b" ".join(words)
        if kind == 4:
            del lines[at]
        if kind == 5:
            lines.insert(at, rng.choice(lines or [b""]))
        if kind == 6 and rng.random() < 0.2:
            lines = lines[:at]
        lines = lines or [b""]
    return b"\n".join(lines)


def of_tree(tree, rng: random.Random):
    "Change a value somewhere in lists and dictionaries, most of them deep."
    places = []

    def walk(node):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, (dict, list)):
                walk(value)

    walk(tree)
    for _ in range(rng.choice((1, 1, 2))):
        node, key = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0 and isinstance(node, dict):
            node.pop(key, None)
        elif kind == 1:
            other, name = rng.choice(places)
            value = other[name] if (name in other if isinstance(other, dict) else name < len(other)) else None
            if key in node if isinstance(node, dict) else key < len(node):
                node[key] = json.loads(json.dumps(value))
        elif isinstance(node, dict) or key < len(node):
            node[key] = rng.choice(VALUES)
    return tree


def of_json(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    "Change values, or the text."
    if rng.random() < 0.4:
        return of_text(data, others, rng)
    if rng.random() < 0.02:
        return b"[" * 100_000
    return json.dumps(of_tree(json.loads(data), rng)).encode()


def of_glb(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    "Change values of its JSON, or bytes."
    if rng.random() < 0.4:
        return of_bytes(data, others, rng)
    length = struct.unpack_from("<I", data, 12)[0]
    text = of_json(data[20 : 20 + length], [data[20 : 20 + length]], rng)
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    return (
        struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
        + struct.pack("<I4s", len(text), b"JSON")
        + text
        + rest
    )


def of_safetensors(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    "Change values of its header, or bytes."
    if rng.random() < 0.4:
        return of_bytes(data, others, rng)
    length = struct.unpack_from("<Q", data)[0]
    text = of_json(data[8 : 8 + length], [data[8 : 8 + length]], rng)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def of_hdf5(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    "Replace an entry by one of another shape or type, or change bytes."
    if rng.random() < 0.5:
        return of_bytes(data, others, rng)
    import h5py
    import numpy as np

    file = io.BytesIO(data)
    with h5py.File(file, "r+") as archive:
        subject = archive[rng.choice(list(archive))]
        name = rng.choice(list(subject))
        dtype = rng.choice(("f4", "u1", "i8", "S5", "f2", h5py.string_dtype()))
        shape = rng.choice(((), (0,), (1,), (3, 3), (0, 3), (10**10,), (10**6, 10**6), (4, 0)))
        kind = rng.randrange(4)
        if kind == 0:
            del subject[name]
        if kind == 1:
            del subject[name]
            subject.create_dataset(
                name, shape, dtype, chunks=tuple(min(n, 64) for n in shape) if np.prod(shape) > 0 else None
            )
        if kind == 2 and subject[name].shape and len(subject[name]):
            array = subject[name][...]
            del subject[name]
            subject[name] = array[: rng.randrange(len(array))]
        if kind == 3:
            where = rng.choice((archive, subject, subject[name])).attrs
            where[rng.choice([*where, "x"])] = rng.choice(
                ("x", -1, [], 1e300, "{", "[1]", '{"train": ["../../outside"]}')
            )
    return file.getvalue()


# Formats


def text_of_ball(image: bool) -> dict:
    "A tetrahedron as OBJ."
    obj = (
        b"mtllib p.mtl\n# four corners\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 0\nvt 0.5 1\nvn 0 0 1\ng a\n"
        b"usemtl skin\nf 1/1/1 3/3/1 2/2/1\nf 1/1 2/2 4/3\nusemtl red\nf -4 -1 -2\nf 2 3 4\n"
    )
    mtl = (
        b"newmtl skin\nKa 0 0 0\nmap_Kd -s 1 1 1 -o 0 0 -clamp off tex.png\nnewmtl red\nKd 0.8 0.1 0.1\nd 1\nillum 2\n"
    )
    plain = b"v 0 0 0 255 0 0\nv 1 0 0 0 255 0\nv 0 1 0 0 0 255\nv 0 0 1 9 9 9\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    return {"p.obj": obj, "p.mtl": mtl, "tex.png": png()} if image else {"p.obj": plain}


def png(mode: str = "RGB", kind: str = "PNG", **options) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    image = Image.radial_gradient("L").resize((24, 32)).convert(mode)
    image.save(file, kind, **options)
    return file.getvalue()


def mesh_formats() -> dict:
    import trimesh

    from recon.data.scan import load_mesh

    ball = trimesh.creation.icosphere(0)
    ball.visual.vertex_colors = (ball.vertices * 99 + 128).astype("u1")
    plies = [dict(zip(["p.ply"], [ball.export(file_type="ply", encoding=kind)])) for kind in ("ascii", "binary")]
    plies = [
        {name: data if isinstance(data, bytes) else data.encode() for name, data in files.items()} for files in plies
    ]
    uv = trimesh.visual.TextureVisuals(uv=ball.vertices[:, :2], image=image_of(png()))
    textured = trimesh.Trimesh(ball.vertices, ball.faces, visual=uv, process=False)
    glbs = [{"p.glb": mesh.export(file_type="glb")} for mesh in (ball, textured)]
    return dict(
        obj=Format(
            [text_of_ball(True), text_of_ball(False)], "p.obj", of_text, lambda folder: load_mesh(folder / "p.obj")
        ),
        mtl=Format([text_of_ball(True)], "p.mtl", of_text, lambda folder: load_mesh(folder / "p.obj")),
        ply=Format(plies, "p.ply", of_text, lambda folder: load_mesh(folder / "p.ply")),
        glb=Format(glbs, "p.glb", of_glb, lambda folder: load_mesh(folder / "p.glb")),
    )


def image_of(data: bytes):
    from PIL import Image

    return Image.open(io.BytesIO(data))


def image_formats() -> dict:
    from recon.data.images import read_image

    pngs = [png(mode) for mode in ("RGB", "RGBA", "P", "LA", "1", "I;16")] + [png("RGB", interlace=1)]
    jpegs = [png(mode, "JPEG") for mode in ("RGB", "L", "CMYK")] + [png("RGB", "JPEG", progressive=True)]
    others = [png("RGB", kind) for kind in ("WEBP", "TIFF", "BMP", "TGA", "GIF")]

    def read(folder):
        return read_image(folder / "p.img")

    return dict(
        png=Format([{"p.img": data} for data in pngs], "p.img", of_bytes, read),
        jpeg=Format([{"p.img": data} for data in jpegs], "p.img", of_bytes, read),
        images=Format([{"p.img": data} for data in others], "p.img", of_bytes, read),
    )


def body_formats() -> dict:
    import numpy as np

    from recon.body.bvh import check_clip, read_bvh
    from recon.body.pickles import load_npz, load_pickle
    from recon.data.formats.parameters import random_parameters, read_params
    from recon.testing import example_photo
    from recon.photo.keypoints import read_keypoints

    params = json.dumps({name: value.tolist() for name, value in random_parameters().items()}).encode()
    npz = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **random_parameters())
        npz.append({"p.npz": file.getvalue()})
    folder = Path(tempfile.mkdtemp())
    points = example_photo(folder).with_name("casual_keypoints.json").read_bytes()
    shutil.rmtree(folder)
    pairs, landmarks = [[9.5, 7]] * 17, [dict(x=9.5, y=7, visibility=0.9)] * 33
    mmpose = dict(keypoints=pairs, keypoint_scores=[0.9] * 17)
    files = [
        [dict(keypoints=[1.5, 2, 0.9] * 17)],
        dict(instance_info=[dict(instances=[mmpose])]),
        dict(predictions=[[mmpose | dict(keypoints=[pairs])]]),
        dict(pose_landmarks=[landmarks]),
        [dict(keypoints=dict(x=[9.5] * 17, y=[7] * 17, visible=[0.9] * 17))],
        [[[9.5, 7, 0.9]] * 17] * 2,
    ]
    others = [{"p.json": json.dumps(content).encode()} for content in files]
    return dict(
        bvh=Format([{"p.bvh": clip()}], "p.bvh", of_text, lambda folder: check_clip(read_bvh(folder / "p.bvh"))),
        json=Format([{"p.json": params}], "p.json", of_json, lambda folder: read_params(folder / "p.json")),
        npz=Format(npz, "p.npz", of_bytes, lambda folder: load_npz(folder / "p.npz")),
        pickle=Format(
            [{"p.pkl": data} for data in pickles()], "p.pkl", of_bytes, lambda folder: load_pickle(folder / "p.pkl")
        ),
        keypoints=Format(
            [{"p.json": points}, *others], "p.json", of_json, lambda folder: read_keypoints(folder / "p.json")
        ),
    )


def clip() -> bytes:
    "A small person of two frames."
    head, motion = ["HIERARCHY"], ["0 90 0 0 0 0"]

    def joint(name, offset, children=()):
        head.append(f"{'ROOT' if name == 'Hips' else 'JOINT'} {name}\n{{\nOFFSET {offset}")
        position = "6 Xposition Yposition Zposition" if name == "Hips" else "3"
        head.append(f"CHANNELS {position} Zrotation Xrotation Yrotation")
        if name != "Hips":
            motion.append("10 0 5")
        for child in children:
            joint(*child)
        if not children:
            head.append("End Site\n{\nOFFSET 0 5 0\n}")
        head.append("}")

    def limbs(side, x):
        arm = (f"{side}Arm", f"{x} 40 0", [(f"{side}ForeArm", f"{x} 0 0", [(f"{side}Hand", f"{x} 0 0")])])
        return [arm, (f"{side}UpLeg", f"{x} 0 0", [(f"{side}Leg", "0 -40 0", [(f"{side}Foot", "0 -40 0")])])]

    joint("Hips", "0 0 0", [("Spine", "0 20 0", [("Head", "0 40 0")]), *limbs("Left", 10), *limbs("Right", -10)])
    row = " ".join(motion)
    return "\n".join([*head, "MOTION", "Frames: 2", "Frame Time: 0.04", row, row, ""]).encode()


def pickles() -> list[bytes]:
    "Files of every kind that is admitted."
    import numpy as np
    import torch
    from scipy import sparse

    regressor = sparse.random(4, 9, 0.4, random_state=0)
    arrays = dict(
        pose=np.arange(6.0).reshape(2, 3),
        number=np.float32(2),
        text="male",
        names=["a", ("b", 1)],
        words=np.array(["x", "yz"]),
        csc=regressor.tocsc(),
        csr=regressor.tocsr(),
        coo=regressor.tocoo(),
        fortran=np.asfortranarray(np.ones((2, 3))),
    )
    pose = torch.linspace(0, 1, 3)[None]
    tensors = dict(pose=pose, betas=torch.arange(6).view(2, 3).T, learned=torch.nn.Parameter(torch.ones(2)))
    files = [pickle.dumps(arrays, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    files += [pickle.dumps(tensors, protocol) for protocol in (2, 4)]
    for new in (False, True):
        buffer = io.BytesIO()
        torch.save(tensors, buffer, _use_new_zipfile_serialization=new)
        files.append(buffer.getvalue())
    return files


def piece_formats() -> dict:
    from recon.synth.assets import load_asset
    from recon.synth.mhclo import write_example_piece

    folder = Path(tempfile.mkdtemp())
    write_example_piece(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)

    def read(folder):
        load_asset.cache_clear()
        return load_asset(folder / "flag.mhclo")

    return {
        kind: Format([files], f"flag.{suffix}", of_text, read)
        for kind, suffix in dict(mhclo="mhclo", mhmat="mhmat", piece="obj").items()
    }


def run_formats() -> dict:
    import hashlib

    from recon.config import Config, read_yaml
    from recon.data.reader import ReconDataset
    from recon.nets.model import ModelOptions, Reconstructor
    from recon.runs.checkpoint import Checkpoint, best, checksummed, save_checkpoint
    from recon.testing import make_balls
    from recon.train_full import TrainFull

    folder = Path(tempfile.mkdtemp())
    make_balls(folder, "a")
    data = (folder / "balls" / "a.h5").read_bytes()
    sizes = ModelOptions(
        nrm_channels=4, nrm_blocks=1, nrm_downsamplings=1, encoder_channels=8, color_channels=8, hidden_dim=8
    )
    metadata = dict(step=2, epoch=1, global_step=1, config=dict(image_size=64))
    place = save_checkpoint(folder / "checkpoints", Reconstructor(sizes), {}, metadata)
    files = {f"checkpoints/0000001/{path.name}": path.read_bytes() for path in place.iterdir()}
    options = folder / "options.yaml"
    TrainFull(preset="paper").save(options)
    grouped = (Path(sys.modules[Config.__module__].__file__).parent / "config.yaml").read_bytes()
    yamls = [{"p.yaml": options.read_bytes()}, {"p.yaml": grouped}]
    shutil.rmtree(folder)

    def read_data(folder):
        found = ReconDataset(folder / "p.h5", 32, 16)
        return [found[k] for k in range(len(found))]

    def read_options(folder):
        read_yaml(folder / "p.yaml")
        return TrainFull.resolve(dict(config=str(folder / "p.yaml")))

    def read_weights(folder):
        "As one who makes checkpoints would seal them."
        place = folder / "checkpoints" / "0000001"
        card = place / "card.json"
        try:
            found = json.loads(card.read_bytes())
            found.pop("sealed", None)
            found["files"] = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in found["files"]}
            card.write_text(checksummed(found))
        except (ValueError, AttributeError, TypeError, KeyError, OSError, RecursionError):
            pass
        return Checkpoint.read(place).model()

    return dict(
        hdf5=Format([{"p.h5": data}], "p.h5", of_hdf5, read_data),
        yaml=Format(yamls, "p.yaml", of_text, read_options),
        safetensors=Format([files], "checkpoints/0000001/model.safetensors", of_safetensors, read_weights),
        card=Format([files], "checkpoints/0000001/card.json", of_json, read_weights),
        best=Format(
            [{"best.json": b'{"name": "validation", "value": 0.5, "global_step": 20}'}], "best.json", of_json, best
        ),
    )


def formats() -> dict:
    "All formats by name."
    return mesh_formats() | image_formats() | body_formats() | piece_formats() | run_formats()


# One child


def verdict(read, folder: Path) -> str:
    "`read`, `refused`, or what is wrong."
    from recon.config import explain

    try:
        read(folder)
    except (ValueError, OSError) as error:
        message = explain(error)
        if "allocate" in message:
            return f"memory: {message:.200}"
        return (
            "refused" if str(folder) in message and "\n" not in message else f"{type(error).__name__}: {message!r:.300}"
        )
    except Exception as error:
        import traceback

        last = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"{type(error).__name__}: {error!s:.150} at {Path(last.filename).name}:{last.lineno} ({last.line!s:.100})"
        )
    return "read"


def tree(folder: Path) -> set:
    return {str(path) for path in folder.rglob("*")}


def child(first: int, count: int, seed: int, names: list[str], sandbox: Path):
    "Read mutants from `first` on; print a line for each fault; the last line counts verdicts."
    found = formats()
    names = names or list(found)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout, said = open(os.devnull, "w"), sys.stdout  # noqa: SIM115 (to the end of the process)
    counts = Counter()
    for k in range(first, count):
        name = names[k % len(names)]
        work = sandbox / "work"
        shutil.rmtree(work, ignore_errors=True)
        data = mutant(found[name], random.Random(f"{seed} {k} {name}"), work)
        before = tree(sandbox)
        (sandbox.parent / "at").write_text(f"{k} {name}")
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        result = verdict(found[name].read, work)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if tree(sandbox) != before:
            result = f"wrote {sorted(tree(sandbox) ^ before)[:3]}"
        counts[result if result in ("read", "refused") else "faults"] += 1
        if result not in ("read", "refused"):
            print(json.dumps(dict(k=k, format=name, fault=result, bytes=len(data))), file=said, flush=True)
        (sandbox.parent / "counts").write_text(json.dumps(counts))


def mutant(form: Format, rng: random.Random, work: Path) -> bytes:
    "Write one of the format's files, its target mutated."
    files = rng.choice(form.files)
    data = form.mutate(files[form.target], [other[form.target] for other in form.files], rng)
    for name, contents in (files | {form.target: data}).items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(contents)
    return data


# All of them


def fuzz(count: int, seed: int = 0, names=()) -> tuple[Counter, list[dict]]:
    "Verdicts and faults of `count` mutants."
    counts, faults = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Path(folder) / "sandbox"
        sandbox.mkdir()
        first = 0
        while first < count and len(faults) < 200:
            command = [
                sys.executable,
                __file__,
                str(count),
                str(seed),
                *names,
                "--first",
                str(first),
                "--sandbox",
                sandbox,
            ]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            faults += [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"k"')]
            at = Path(folder) / "at"
            if not at.exists():
                raise RuntimeError(done.stderr[-2000:])
            counts.update(
                json.loads((Path(folder) / "counts").read_text()) if (Path(folder) / "counts").exists() else {}
            )
            if done.returncode == 0:
                break
            k, name = at.read_text().split()
            died = signal.Signals(-done.returncode).name if done.returncode < 0 else done.stderr[-300:]
            faults.append(dict(k=int(k), format=name, fault=f"died: {died}"))
            first = int(k) + 1
    return counts, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("formats", nargs="*")
    parser.add_argument("--first", type=int)
    parser.add_argument("--sandbox", type=Path)
    given = parser.parse_args()
    if given.sandbox:
        return child(given.first, given.count, given.seed, given.formats, given.sandbox)
    counts, faults = fuzz(given.count, given.seed, given.formats)
    for fault in faults:
        print(re.sub(r"/tmp/\S*?/sandbox/work/", "", json.dumps(fault)))
    summary = f"{counts['read']} read, {counts['refused']} refused, {len(faults)} faults"
    print(f"{given.count} files, seed {given.seed}: {summary}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
