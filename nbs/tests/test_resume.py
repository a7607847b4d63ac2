"Training against kills and interruptions: nothing is lost, nothing is different."

import json
import os
import signal
import tarfile
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from processes import Python, run_python

from recon.data.reader import ReconDataset
from recon.testing import TINY, make_balls, tiny_trainer

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return make_balls(tmp_path_factory.mktemp("balls"))


@pytest.mark.parametrize("workers", [0, 2])
def test_40_steps_with_kills_at_10_random_moments_are_the_same_to_the_last_bit(tmp_path, workers):
    """Weights, moments of the optimiser, schedule, random numbers, logged losses; three of the kills inside the
    writing of a checkpoint. Half a minute each."""
    script = [ROOT / "nbs" / "tests" / "training_kills.py", tmp_path, 10, workers]
    done = run_python(script, ROOT, ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    counted = json.loads(done.stdout)
    assert counted["kills"] == 10 and counted["while_writing"] >= 2
    assert counted["different"] == [] and counted["left_behind"] == 0, counted


def words(options):
    return [
        word
        for name, value in options.items()
        for word in (f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)]))
    ]


def lines(run) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def wait_for(run, count, alive):
    while lines(run) < count:
        assert alive() and not time.sleep(0.02)


def test_ctrl_c_ends_a_script_after_its_step_and_the_same_command_goes_on(balls, tmp_path):
    options = TINY | dict(data_root=balls, save_root=tmp_path, epochs=400)
    command = ["-m", "recon.train_normal", *words(options)]
    process = Python(command, ROOT, ENVIRONMENT)
    run = tmp_path / "01_train_normal"
    wait_for(run, 2, lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "saved. Run the same command again to go on from here." in said, (
        said + errors[-2000:]
    )
    step = lines(run)  # a line a step
    assert [path.name for path in (run / "checkpoints").glob("0*")] == [
        f"{step:07d}"
    ] and f"Stopped after step {step} of 800" in said
    again = Python(command, ROOT, ENVIRONMENT)
    wait_for(run, step + 2, lambda: again.poll() is None)
    again.send_signal(signal.SIGINT)
    said, errors = again.communicate(timeout=60)
    assert again.returncode == 0 and f"going on from step {step} of 800" in said, said + errors[-2000:]


def test_ctrl_c_ends_a_notebooks_training_after_its_step(balls, tmp_path):
    "The stop button of Jupyter: the cell ends without an error, the kernel and its variables stay."
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", env=ENVIRONMENT, cwd=str(tmp_path))
    told, replies = [], []

    def execute(code, meanwhile=lambda: None):
        asked = client.execute(code)
        meanwhile()
        while True:
            message = client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "stream":
                told.append(message["content"]["text"])
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while (reply := client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != asked:
            pass
        replies.append(reply["content"])

    def stop():
        wait_for(tmp_path / "01_train_normal", 2, manager.is_alive)
        manager.interrupt_kernel()

    try:
        options = TINY | dict(data_root=str(balls), save_root=str(tmp_path), epochs=400)
        execute(
            "from recon.train_normal import TrainNormal, main\n"
            f"cfg = TrainNormal.resolve({options!r})\nrun = main(cfg)",
            stop,
        )
        execute("print('still here:', run)")
    finally:
        manager.shutdown_kernel(now=True)
    assert [reply["status"] for reply in replies] == ["ok", "ok"], replies
    step = lines(tmp_path / "01_train_normal")
    said = "".join(told)
    assert (
        f"Stopped after step {step} of 800; saved. Run the same command again" in said and f"{step} steps)" in said
    ), said


def test_a_damaged_checkpoint_stops_the_run_and_the_newest_good_one_is_offered(balls, tmp_path):
    "Found before anything is trained or written, by a flipped bit in the middle of the weights."
    tiny_trainer(balls, tmp_path, stage=1, epochs=3, save_every=1, keep=3).fit()
    kept = sorted((tmp_path / "run" / "checkpoints").glob("0*"))
    assert [path.name for path in kept] == ["0000002", "0000004", "0000006"]
    for path in kept[1:]:
        content = bytearray((path / "model.safetensors").read_bytes())
        content[len(content) // 2] ^= 1
        (path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="damaged checkpoint") as error:
        tiny_trainer(balls, tmp_path, stage=1, epochs=5).resume()
    assert str(kept[2]) in str(error.value) and f"resume from {kept[0]} instead" in str(error.value)
    again = tiny_trainer(balls, tmp_path, stage=1, epochs=5, resume=str(kept[0])).resume()
    assert again.global_step == 2 and "with other options" in again.origin and "epochs 5, was 3" in again.origin
    assert sorted(path.name for path in (tmp_path / "run" / "set_aside" / "1").iterdir()) == ["0000004", "0000006"]


def test_other_data_and_a_later_stage_are_refused(balls, tmp_path):
    tiny_trainer(balls, tmp_path, stage=2, epochs=1).fit()
    others = make_balls(tmp_path / "others", names="abx")
    with pytest.raises(ValueError, match="trained on 4 subjects .* holds 3 others"):
        tiny_trainer(others, tmp_path, stage=2, epochs=1).resume()
    moved = make_balls(tmp_path / "moved")
    assert tiny_trainer(moved, tmp_path, stage=2, epochs=1).resume().global_step == 2  # the same data somewhere else
    with pytest.raises(ValueError, match="cannot resume from a later one"):
        tiny_trainer(balls, tmp_path, stage=1, epochs=1).resume()


def test_a_run_from_scratch_never_meets_what_an_earlier_one_left(balls, tmp_path):
    "The earlier run got further; resumed by itself, the new one goes on with its own."
    tiny_trainer(balls, tmp_path, stage=1, epochs=4).fit()
    fresh = tiny_trainer(balls, tmp_path, stage=1, epochs=4, resume="").resume()
    for _, parts in zip(range(3), fresh.batches()):
        fresh.update(parts)
    fresh.save()
    assert tiny_trainer(balls, tmp_path, stage=1, epochs=4).resume().global_step == 3
    aside = tmp_path / "run" / "set_aside" / "1"
    assert (aside / "0000008").exists() and len((aside / "metrics.jsonl").read_text().splitlines()) == 8


def test_siths_own_checkpoints_give_their_weights_and_a_step_of_ours_becomes_one(balls, tmp_path):
    "The colour field alone, at its published size; another size is refused by the tensors' names."
    import torch
    from recon.runs.sith import PUBLISHED_NETWORKS, load, save

    theirs = torch.nn.Module()
    theirs.rgb_decoder = PUBLISHED_NETWORKS["rgb_decoder"]()
    save(tmp_path / "model.pth", theirs, epoch=400, global_step=40_000)
    sizes = dict(feat_dim=16, rgb_hidden_dim=256, rgb_num_layers=4, rgb_skip=(2,))
    ours = tiny_trainer(balls, tmp_path, stage=2, resume=str(tmp_path / "model.pth"), **sizes).resume()
    assert ours.global_step == 0 and all(
        torch.equal(a, b) for a, b in zip(ours.model.rgb_decoder.parameters(), theirs.rgb_decoder.parameters())
    )
    for _, parts in zip(range(1), ours.batches()):
        ours.update(parts)
    save(tmp_path / "ours.pth", ours.model, networks=("rgb_decoder",))
    assert all(
        torch.equal(a, b)
        for a, b in zip(load(tmp_path / "ours.pth").rgb_decoder.parameters(), ours.model.rgb_decoder.parameters())
    )
    with pytest.raises(ValueError, match="tensors do not fit this configuration, rgb_decoder"):
        tiny_trainer(balls, tmp_path, stage=2, resume=str(tmp_path / "model.pth")).resume()


def test_the_first_line_after_a_resume_is_the_mean_of_its_own_steps(balls, tmp_path):
    "Stopped at step 17, with a line every 20 steps: the line of step 20 speaks of three steps."
    options = dict(stage=1, epochs=20, log_every=20)
    unbroken = tiny_trainer(balls, tmp_path / "unbroken", **options | dict(log_every=1)).fit()
    expected = sum(line["2D"] for line in unbroken.lines if 17 < line["step"] <= 20) / 3
    stopped = tiny_trainer(balls, tmp_path / "stopped", **options).resume()
    for _, micro_batches in zip(range(17), stopped.batches()):
        stopped.update(micro_batches)
    stopped.save()
    line = tiny_trainer(balls, tmp_path / "stopped", **options).fit().lines[0]
    assert line["step"] == 20 and line["2D"] == pytest.approx(expected, rel=1e-9)


def checkpoint_names(folder):
    return sorted(path.name for path in (folder / "run" / "checkpoints").glob("0*"))


@pytest.mark.parametrize("damage", ["metadata missing", "metadata empty", "best cut short"])
def test_a_damaged_run_stops_and_nothing_is_set_aside(balls, tmp_path, damage):
    "`resume=auto` starts from scratch where there is no run, and only there."
    options = dict(stage=1, save_every=1, keep=3)
    tiny_trainer(balls, tmp_path, epochs=3, **options).fit()
    checkpoints = tmp_path / "run" / "checkpoints"
    if damage == "best cut short":
        (checkpoints / "best.json").write_text('{"name": "validation", "val')
    elif damage == "metadata empty":
        (checkpoints / "0000006" / "card.json").write_text("")
    else:
        (checkpoints / "0000006" / "card.json").unlink()
    way = "delete it to go on" if damage == "best cut short" else f"resume from {checkpoints / '0000004'} instead"
    with pytest.raises(ValueError, match="damaged") as error:
        tiny_trainer(balls, tmp_path, epochs=4, **options).fit()
    assert way in str(error.value)
    assert (
        checkpoint_names(tmp_path) == ["0000002", "0000004", "0000006"]
        and not (tmp_path / "run" / "set_aside").exists()
    )
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize("where", ["a loss", "a weight"])
def test_numbers_that_are_not_finite_are_never_saved(balls, tmp_path, where):
    """A checkpoint after every epoch, a line every hundred steps: the run ends at the first save, names step and
    loss, and keeps the last good checkpoint."""
    import torch

    ready = tiny_trainer(balls, tmp_path, stage=2, epochs=6, save_every=1, log_every=100, keep=1)
    real = ready.update

    def update(micro_batches):
        if where == "a loss" and ready.global_step == 4:
            micro_batches[0]["rgb"][0, 0] = float("nan")
        found = real(micro_batches)
        if where == "a weight" and ready.global_step == 6:
            with torch.no_grad():
                ready.model.rgb_decoder.lout.bias[0] = float("inf")
        return found

    ready.update = update
    expected = (
        r"step 5: the loss rgb is not finite \(nan\)"
        if where == "a loss"
        else "step 6: the weights rgb_decoder.lout.bias are not finite"
    )
    with pytest.raises(ValueError, match=expected) as error:
        ready.fit()
    (kept,) = checkpoint_names(tmp_path)
    assert kept == "0000004" and f"the last good checkpoint is {tmp_path / 'run' / 'checkpoints' / kept}" in str(
        error.value
    )
    again = tiny_trainer(balls, tmp_path, stage=2, epochs=6, save_every=1, keep=1).fit()
    assert again.lines[-1]["step"] == 12 and all(value.isfinite().all() for value in again.last.weights().values())


def test_the_metadata_says_whether_the_predictor_is_trained(balls, tmp_path):
    "Not its biases: a trained one may have biases of zero, one from elsewhere may not."
    import torch

    first = tiny_trainer(balls, tmp_path, stage=1, epochs=1)
    first.fit()
    with torch.no_grad():
        for name, value in first.model.nrm_encoder.named_parameters():
            if name.endswith("bias"):
                value.zero_()
    first.global_step += 1
    first.save()
    (tmp_path / "run").rename(tmp_path / "stage1")
    second = tiny_trainer(balls, tmp_path, stage=2, epochs=1, resume=str(tmp_path / "stage1"))
    assert second.fit().last.predictor_trained
    (tmp_path / "run").rename(tmp_path / "stage2")
    untrained = tiny_trainer(balls, tmp_path, stage=2, epochs=1, resume="")
    torch.nn.init.ones_(untrained.model.nrm_encoder.model[-2].bias)
    assert not untrained.fit().last.predictor_trained


def test_data_with_one_other_colour_is_other_data(balls, tmp_path):
    "Same names, sizes, bodies and points; one colour of one point differs."
    import h5py

    from recon.data.writer import seal

    copy = make_balls(tmp_path / "copy")
    tiny_trainer(copy, tmp_path, stage=1, epochs=1).fit()
    assert tiny_trainer(copy, tmp_path, stage=1, epochs=1).resume().global_step == 2
    file = copy.parent / "balls" / "b.h5"
    with h5py.File(file, "r+") as opened:
        opened["b"]["rgb"][200, 0] = 0.123
    seal(file)
    with pytest.raises(ValueError, match="the same with other images, points or bodies"):
        tiny_trainer(copy, tmp_path, stage=1, epochs=1).resume()


def test_checkpoints_of_the_old_code_go_on(balls, tmp_path):
    "They name options as they were called, record the old fingerprint, and not whether the predictor is trained."
    from recon.runs.checkpoint import METADATA, _old_fingerprint, checksummed, find_checkpoint

    whole = tiny_trainer(
        balls, tmp_path / "whole", epochs=4, residual_sdf=True, drop_last=True, mask_pred_nrm=True
    ).fit()
    half = tiny_trainer(
        balls, tmp_path / "half", epochs=4, residual_sdf=True, drop_last=True, mask_pred_nrm=True
    ).resume()
    for _, micro_batches in zip(range(4), half.batches()):
        half.update(micro_batches)
    half.save()
    checkpoint = find_checkpoint(tmp_path / "half" / "run")
    metadata = checkpoint.metadata
    for options in (metadata["config"], metadata["model"]):
        options["residual"] = options.pop("residual_sdf")
        for name in ("drop_last", "mask_pred_nrm"):
            options.pop(name, None)
    del metadata["predictor_trained"], metadata["data"]["checksum"]
    metadata["data"]["fingerprint"] = _old_fingerprint(half.data)
    (checkpoint.folder / METADATA).write_text(checksummed(metadata))
    going_on = tiny_trainer(
        balls, tmp_path / "half", epochs=4, residual_sdf=True, drop_last=True, mask_pred_nrm=True
    ).resume()
    assert going_on.global_step == 4 and "with other options" not in going_on.origin
    last = going_on.fit().last
    assert all((value == whole.last.weights()[name]).all() for name, value in last.weights().items())
    assert (
        find_checkpoint(checkpoint.folder).options.residual_sdf
        and not find_checkpoint(checkpoint.folder).predictor_trained
    )


def test_the_best_on_training_subjects_is_called_that(balls, tmp_path, capsys):
    """A file without a split has the same subjects for training and validation; with `num_valid` it has others,
    and the best is chosen anew."""
    import h5py

    from recon.runs.checkpoint import best
    from recon.train_normal import TrainNormal, main

    alone = tmp_path / "alone.h5"
    with h5py.File(balls) as source, h5py.File(alone, "w", libver="latest") as file:
        for name in source:
            file[name] = h5py.ExternalLink(balls.parent / "balls" / f"{name}.h5", f"/{name}")
        file.attrs.update({name: value for name, value in source.attrs.items() if name != "split"})
    options = TINY | dict(data_root=str(alone), save_root=str(tmp_path), exp_name="run", valid_every=1)
    main(TrainNormal.resolve(options))
    assert (
        "has no subjects set aside" in capsys.readouterr().out
        and best(tmp_path / "run" / "checkpoints")["name"] == "training subjects"
    )
    main(TrainNormal.resolve(options | dict(exp_name="apart", num_valid=1)))
    assert (
        "has no subjects set aside" not in capsys.readouterr().out
        and best(tmp_path / "apart" / "checkpoints")["name"] == "validation"
    )


def test_a_file_of_sith_trains_all_three_stages(balls, tmp_path):
    "One file, no body's answers, no priors, no split, and the body as an OBJ file."
    import h5py
    import trimesh

    from recon.testing import ball_subject
    from recon.train_full import TrainFull, main as train_full
    from recon.train_normal import TrainNormal, main as train_normal

    theirs, entries = (
        tmp_path / "theirs.h5",
        "cam_azh cam_eva cam_rad cam_pos pts rgb nrm d smpl_v joints_3d vis rgb_img nrm_img uv_img".split(),
    )
    with h5py.File(balls) as source, h5py.File(theirs, "w") as file:
        for name in source:
            for entry in entries:
                source.copy(source[name][entry], file.require_group(name), name=entry)
    _, body = ball_subject(subdivisions=2)
    trimesh.Trimesh(body.canonical, body.faces, process=False).export(tmp_path / "body.obj")
    options = TINY | dict(
        data_root=str(theirs), save_root=str(tmp_path), valid=False, body_file=str(tmp_path / "body.obj"), num_valid=1
    )
    runs = [train_normal(TrainNormal.resolve(options))] + [
        train_full(TrainFull.resolve(options | dict(use_pred_nrm=later))) for later in (False, True)
    ]
    assert [run.last.stage for run in runs] == [1, 2, 3] and all(
        run.lines[-1]["step"] == 4 for run in runs
    )  # three subjects, two a step
    with pytest.raises(ValueError, match="name the body's OBJ file as body_file"):
        train_full(TrainFull.resolve(options | dict(body_file="", exp_name="bare")))


def test_a_data_set_and_a_run_of_the_first_layout_open_and_go_on(tmp_path):
    """Files as commit 87dd31d wrote them: two balls, and the run that trained on them for two of four steps.

    Today's code ends where it ends when it makes all four steps itself; to the bit on the machine of the files."""
    with tarfile.open(Path(__file__).with_name("written_by_87dd31d.tar.xz")) as files:
        files.extractall(tmp_path/"old", filter="data")
    small = dict(encoder_channels=8, color_channels=8, feat_dim=2, hidden_dim=8, nrm_channels=2)
    small |= dict(num_samples=32, epochs=4)
    went_on = tiny_trainer(tmp_path/"old"/"balls.h5", tmp_path/"old"/"runs", **small)
    assert went_on.resume().global_step == 2
    went_on.fit()
    afresh = tiny_trainer(tmp_path/"old"/"balls.h5", tmp_path/"new", **small)
    afresh.fit()
    for (name, found), expected in zip(went_on.model.state_dict().items(), afresh.model.state_dict().values()):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5, msg=name)
    made_today = make_balls(tmp_path, "ab", points=200, views=2)
    today = ReconDataset(made_today, split="train", num_samples=32)
    old = ReconDataset(tmp_path/"old"/"balls.h5", split="train", num_samples=32)
    for name, value in old[0].items():
        if isinstance(value, torch.Tensor): torch.testing.assert_close(value, today[0][name], msg=name)
