"""Mutate valid pickles and load them: `python pickle_fuzz.py COUNT SEED`. Prints how many were read and refused;
anything else ends it."""

import io
import pickle
import random
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from recon.body.pickles import load_pickle


def valid_files() -> list[bytes]:
    "Files of every kind that is admitted."
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
    tensors = dict(
        pose=torch.randn(1, 3), betas=torch.arange(6).view(2, 3).T, learned=torch.nn.Parameter(torch.ones(2))
    )
    files = [pickle.dumps(arrays, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    files += [pickle.dumps(tensors, protocol) for protocol in (2, 4)]
    for new in (False, True):
        buffer = io.BytesIO()
        torch.save(tensors, buffer, _use_new_zipfile_serialization=new)
        files.append(buffer.getvalue())
    return files


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    "Change, remove, insert and splice bytes."
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[at % len(out)] = rng.randrange(256)
        if kind == 1:
            del out[at : at + rng.randrange(1, 9)]
        if kind == 2:
            out[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5)))
        if kind == 3:
            out[at:at] = rng.choice(
                (b"\xff\xff\xff\x7f", b"\0\0\0\0\1", b"b", b"R", b"0", b"2", b"u", b"\x81", b"N", b"t")
            )
        if kind == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            out[at:at] = other[start : start + rng.randrange(1, 40)]
        if kind == 5:
            start = rng.randrange(len(out) + 1)
            out[at:at] = out[start : start + rng.randrange(1, 20)]
    return bytes(out)


def main(count: int, seed: int):
    "Load `count` mutated files within 8 GB; ValueError is the one allowed error."
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    rng = random.Random(seed)
    files = valid_files()
    read = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.pkl"
        for _ in range(count):
            path.write_bytes(mutate(rng.choice(files), files, rng))
            try:
                load_pickle(path)
                read += 1
            except ValueError:
                refused += 1
    print(f"{read} read, {refused} refused")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
