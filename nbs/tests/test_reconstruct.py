"""Stage 05 with a stand-in for the network: what is made anew, what is kept, and what a failure leaves.

The model gives a ball for everybody, so that a test takes a second."""
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from recon import reconstruct
from recon.config import SubjectsFailed
from recon.reconstruct import Reconstruct, main


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    "A checkpoint without a network."
    found = SimpleNamespace(
        folder=tmp_path/"run"/"checkpoints"/"0000003", stage=3, global_step=3, written=1., predictor_trained=True,
        config=dict(image_size=64), metadata=dict(files={"model.safetensors": "0a"}), model=lambda: None)
    monkeypatch.setattr("recon.runs.sith.choose_model", lambda path: (found, "the newest"))
    return found


@pytest.fixture
def made(monkeypatch):
    "The items that were reconstructed, in their order."
    ball = trimesh.creation.icosphere(3, .5)
    vertices, faces = torch.tensor(ball.vertices).float(), torch.tensor(ball.faces)
    items = []

    def reconstruct_mesh(cfg, model, item, body):
        items.append(item)
        maps = dict.fromkeys(("front_nrm", "back_nrm"), torch.zeros(3, 64, 64))
        scene = SimpleNamespace(rgb=lambda points: points*0 + .5, body=body)
        return scene, SimpleNamespace(vertices=vertices, faces=faces, colors=vertices*0 + .5, **maps)

    monkeypatch.setattr(reconstruct, "reconstruct_mesh", reconstruct_mesh)
    return items


def write_data(path, names=("one", "two"), color=None):
    "A dataset of balls."
    from recon.testing import ball_subject
    from recon.data.writer import write_index, write_subject

    files = []
    for name in names:
        subject, body = ball_subject(name)
        if color is not None: subject = replace(subject, colors=torch.full_like(subject.colors, color))
        files.append(path.with_suffix("")/f"{name}.h5")
        files[-1].unlink(missing_ok=True)
        write_subject(files[-1], subject, body, views=4, size=64, points=500)
    path.unlink(missing_ok=True)
    write_index(path, files, body, dict(test=list(names)))
    return path


@pytest.fixture
def cfg(tmp_path):
    return Reconstruct(data_root=str(write_data(tmp_path/"balls.h5")), save_root=str(tmp_path/"meshes"))


def test_a_second_run_keeps_all(cfg, checkpoint, made):
    assert set(main(cfg)) == {"one", "two"} and len(made) == 2
    assert set(main(cfg)) == {"one", "two"} and len(made) == 2


def test_a_dataset_that_changed_under_its_name_makes_new_meshes(cfg, checkpoint, made, tmp_path):
    main(cfg)
    write_data(tmp_path/"balls.h5", color=.2)
    main(cfg)
    assert len(made) == 4
    assert not torch.equal(made[2]["front_rgb_img"], made[0]["front_rgb_img"])


def test_a_dataset_that_only_moved_keeps_them(cfg, checkpoint, made, tmp_path):
    main(cfg)
    main(replace(cfg, data_root=str(write_data(tmp_path/"elsewhere.h5"))))
    assert len(made) == 2


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    "A prepared folder of one ball."
    import recon.data.subjects as module
    from recon.data.prepared import write_prepared
    from recon.data.reader import ReconDataset
    from recon.data.subjects import RestBody

    data = ReconDataset(write_data(tmp_path/"source.h5"), 64, 1)
    monkeypatch.setattr(module, "anny_body", lambda: RestBody(data.body_faces, data.canonical))
    write_prepared(tmp_path/"prepared", data, "one")
    return tmp_path/"prepared"


def test_an_image_that_changed_under_its_name_makes_a_new_mesh(cfg, checkpoint, made, prepared):
    cfg = replace(cfg, data_root=str(prepared))
    main(cfg)
    path = prepared/"images"/"one.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[32, 32, 0] ^= 16
    Image.fromarray(pixels).save(path)
    main(cfg)
    assert len(made) == 2
    main(cfg)
    assert len(made) == 2


def test_the_sheet_of_a_prepared_folder_shows_the_distances_to_its_scan(cfg, checkpoint, made, prepared):
    path = main(replace(cfg, data_root=str(prepared)))["one"].with_suffix(".jpg")
    with_scan = Image.open(path).width
    (prepared/"scans"/"one.ply").unlink()
    main(replace(cfg, data_root=str(prepared)))
    assert Image.open(path).width == with_scan - 322


@pytest.mark.parametrize("change", [dict(resolution=64), dict(texture_faces=99), dict(formats="glb,ply"),
                                    dict(refine_scale=0.)])
def test_other_options_make_new_meshes(cfg, checkpoint, made, change):
    main(cfg)
    main(replace(cfg, **change))
    assert len(made) == 4


def test_other_weights_make_new_meshes(cfg, checkpoint, made):
    main(cfg)
    checkpoint.metadata["files"]["model.safetensors"] = "0b"
    main(cfg)
    assert len(made) == 4


def test_a_lost_file_is_made_again(cfg, checkpoint, made):
    meshes = main(replace(cfg, formats="glb,ply"))
    meshes["one"].with_suffix(".ply").unlink()
    main(replace(cfg, formats="glb,ply"))
    assert len(made) == 3 and meshes["one"].with_suffix(".ply").exists()


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyError("pts"), MemoryError()])
def test_any_failure_of_one_leaves_the_others_and_ends_with_an_error(cfg, checkpoint, made, monkeypatch, capsys, error):
    working = reconstruct.reconstruct_mesh

    def failing(cfg, model, item, body):
        if not made:
            made.append(None)
            raise error
        return working(cfg, model, item, body)

    monkeypatch.setattr(reconstruct, "reconstruct_mesh", failing)
    with pytest.raises(SubjectsFailed, match="1 of 2 subjects failed:\n  one: " + type(error).__name__): main(cfg)
    assert [path.name for path in Path(cfg.save_root).glob("*.glb")] == ["two.glb"]
    made.clear()
    with pytest.raises(SystemExit) as exit:
        reconstruct.cli(["--data_root", cfg.data_root, "--save_root", cfg.save_root])
    assert exit.value.code == 1 and f"one: {type(error).__name__}" in capsys.readouterr().err


def test_a_failure_leaves_no_older_mesh_behind(cfg, checkpoint, made, monkeypatch):
    main(cfg)
    monkeypatch.setattr(reconstruct, "write_meshes", lambda *_: 1/0)
    with pytest.raises(SubjectsFailed): main(replace(cfg, resolution=64))
    assert not list(Path(cfg.save_root).glob("*.*"))


@pytest.mark.parametrize("name", ["../out", "..", "/tmp/out", "a\\b"])
def test_no_name_leads_out_of_the_folder(cfg, checkpoint, made, monkeypatch, tmp_path, name):
    opened = reconstruct.open_inputs

    def renamed(cfg, config):
        subjects = opened(cfg, config)
        inputs = subjects.inputs
        subjects.names = [name, "two"]
        subjects.inputs = lambda one: inputs("one" if one == name else one)
        subjects.scan = lambda one: None
        return subjects

    monkeypatch.setattr(reconstruct, "open_inputs", renamed)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(SubjectsFailed, match="cannot name a file"): main(cfg)
    new = set(tmp_path.rglob("*")) - before
    assert all(path == Path(cfg.save_root) or path.parent == Path(cfg.save_root) for path in new)
    assert (Path(cfg.save_root)/"two.glb").exists()


def test_a_process_of_a_cluster_refuses_other_weights(cfg, checkpoint):
    metadata = reconstruct.build_metadata(cfg, checkpoint)
    assert callable(reconstruct.open_work(cfg, metadata | dict(data="by another path")))
    checkpoint.metadata["files"]["model.safetensors"] = "0b"
    with pytest.raises(ValueError, match="this process finds other weights"): reconstruct.open_work(cfg, metadata)


def test_a_predictor_that_never_learned_is_named(cfg, checkpoint, made, capsys):
    main(cfg)
    assert "never trained" not in capsys.readouterr().out
    checkpoint.predictor_trained = False
    main(cfg)
    assert "normal predictor of this model was never trained" in capsys.readouterr().out
    main(replace(cfg, true_normals=True))
    assert "never trained" not in capsys.readouterr().out


def test_one_subject_by_name(cfg, checkpoint, made):
    assert set(main(replace(cfg, subject="two"))) == {"two"}
    with pytest.raises(ValueError, match="the nearest is 'two'"): main(replace(cfg, subject="twa"))
    assert set(main(Reconstruct.resolve(dict(data_root=cfg.data_root, save_root=cfg.save_root, most=1)))) == {"one"}


def test_the_card_says_what_evaluation_needs(cfg, checkpoint, made):
    card = json.loads(main(cfg)["one"].with_suffix(".json").read_text())
    assert card["view"] == 0 and card["true_normals"] is False and card["stage"] == 3


def test_the_best_checkpoint_of_a_run_is_taken_and_named(tmp_path, capsys):
    from recon.nets.model import ModelOptions, Reconstructor
    from recon.runs.checkpoint import mark_best, save_checkpoint

    sizes = ModelOptions(nrm_channels=4, nrm_blocks=1, encoder_channels=16, color_channels=16, hidden_dim=8,
                         rgb_hidden_dim=8)
    folder = tmp_path/"run"/"checkpoints"
    for step in (1, 2, 3):
        record = dict(step=3, global_step=step, epoch=step, config=dict(image_size=64), predictor_trained=True)
        save_checkpoint(folder, Reconstructor(sizes), {}, record)
    opened = reconstruct.open_model(Reconstruct(model=str(tmp_path/"run")))
    assert opened.global_step == 3 and "nothing was validated" in capsys.readouterr().out
    mark_best(folder, 2, .25, "p2s")
    opened = reconstruct.open_model(Reconstruct(model=str(tmp_path/"run")))
    said = capsys.readouterr().out
    assert opened.global_step == 2 and "step 2: the best of its run, p2s 0.25; the newest is of step 3" in said
    assert reconstruct.open_model(Reconstruct(model=str(folder/"0000003"))).global_step == 3
