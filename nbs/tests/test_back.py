"The back view: what stage 04 keeps, refuses and repeats; what training resumes."

import os
import shutil
import signal
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from processes import run_python
from safetensors.torch import load_file, save_file

from recon.back.folder import BackFiles, read_record, read_rgba
from recon.back.generators import Mirror, Small
from recon.back.network import BackNet
from recon.config import SubjectsFailed
from recon.data.reader import ReconDataset
from recon.data.subjects import open_subjects
from recon.hallucinate import Hallucinate, cli, hallucinate_all, main, parse_choice
from recon.runs.run import Run
from recon.testing import TINY, make_balls
from recon.train_diffusion import TrainDiffusion
from recon.train_diffusion import main as train_diffusion
from recon.train_hallucinate import TrainHallucinate
from recon.train_hallucinate import main as train
from recon.training.back import BackTrainer, save_weights
from recon.training.backs import draw_share
from recon.training.loop import Trainer
from recon.training.options import TrainOptions


@pytest.fixture
def prepared(tmp_path):
    "The examples without their backs."
    for sub in ("images", "body"):
        shutil.copytree(ROOT / "data/examples" / sub, tmp_path / "people" / sub)
    return tmp_path / "people"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    "An untrained network at 64 pixels."
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(BackNet(widths=(16, 16)), path, image_size=64)
    return path


def options(folder, **more):
    return Hallucinate.resolve(dict(data_root=str(folder), pretrained_model_name_or_path="mirror") | more)


def pixels_of(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "back_images").rglob("*.png"))}


def test_reconstruction_opens_what_stage_04_writes(prepared):
    main(options(prepared))
    subjects = open_subjects(prepared, image_size=128)
    assert subjects.names == ["casual", "dress", "jacket"]
    for name in subjects.names:
        item = subjects.inputs(name)
        assert torch.equal(item["front_mask"], item["back_mask"])  # one silhouette
        inside = item["front_mask"][0] == 1
        same = (item["front_rgb_img"] - item["back_rgb_img"]).abs().amax(0) < 1 / 64
        assert same[inside].float().mean() > 0.9  # a mirror; only the head differs
        assert not same[inside].all()


def test_siths_names_hold_the_back_as_its_camera_sees_it(prepared):
    main(options(prepared))
    files = BackFiles(prepared / "back_images", "casual")
    used = read_rgba(files.used)
    for path in (files.sith, files.sample(0)):
        assert np.array_equal(read_rgba(path)[:, ::-1], used)
    assert files.strip.exists()


def test_the_same_seed_gives_the_same_bytes_and_a_second_run_paints_nothing(prepared, weights, capsys):
    cfg = options(prepared, pretrained_model_name_or_path=str(weights))
    main(cfg)
    before = pixels_of(prepared)
    shutil.rmtree(prepared / "back_images")
    main(cfg)
    assert pixels_of(prepared) == before
    capsys.readouterr()
    main(cfg)
    assert capsys.readouterr().out.count("finished already") == 3 and pixels_of(prepared) == before


def test_a_given_back_is_kept_under_our_name_and_under_siths(prepared, capsys):
    back = prepared / "back_images"
    back.mkdir()
    shutil.copy(ROOT / "data/examples/back_images/casual.png", back / "casual.png")
    flipped = read_rgba(ROOT / "data/examples/back_images/dress.png")[:, ::-1]
    Image.fromarray(np.ascontiguousarray(flipped)).save(back / "dress_000.png")
    main(options(prepared))
    said = capsys.readouterr().out
    assert said.count("was there before and is used") == 2 and "jacket: 1 of 1 painted by mirror" in said
    assert (back / "casual.png").read_bytes() == (ROOT / "data/examples/back_images/casual.png").read_bytes()
    assert np.array_equal(read_rgba(back / "dress.png")[:, ::-1], flipped)


def test_a_back_that_was_retouched_by_hand_is_kept(prepared):
    main(options(prepared))
    path = prepared / "back_images" / "casual.png"
    pixels = read_rgba(path).copy()
    pixels[100:110, 100:110, :3] = 0
    Image.fromarray(pixels).save(path)
    main(options(prepared, seed=1))
    assert np.array_equal(read_rgba(path), pixels)
    main(options(prepared, seed=1, overwrite=True))
    assert not np.array_equal(read_rgba(path), pixels)


def test_a_second_photo_is_laid_over_the_front(prepared, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    true = read_rgba(ROOT / "data/examples/back_images/casual.png")
    Image.fromarray(np.ascontiguousarray(true[:, ::-1])).resize((400, 400)).save(tmp_path / "photos" / "casual.png")
    main(options(prepared, back_photos=str(tmp_path / "photos")))
    assert "casual.png is used" in capsys.readouterr().out
    used = read_rgba(prepared / "back_images" / "casual.png")
    inside = used[..., 3] == 255
    assert np.abs(used[inside].astype(int) - true[inside]).mean() < 8
    assert np.array_equal(used[..., 3], read_rgba(prepared / "images" / "casual.png")[..., 3])


class Dice(Mirror):
    "A generator whose samples differ: the mirror in a random shade."

    name, deterministic = "dice", False

    def __call__(self, view, seeds):
        shades = [torch.rand(3, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return [super(Dice, self).__call__(view, [0])[0] * shade[:, None, None] for shade in shades]


@pytest.fixture
def dice(monkeypatch):
    import recon.back.generators

    monkeypatch.setattr(recon.back.generators, "open_generator", lambda *args, **options: Dice())


def test_samples_differ_and_one_is_chosen_without_painting_again(prepared, dice, capsys):
    main(options(prepared, num_images=4))
    files = BackFiles(prepared / "back_images", "casual")
    samples = [read_rgba(files.sample(k)) for k in range(4)]
    assert len({sample.tobytes() for sample in samples}) == 4
    assert np.array_equal(read_rgba(files.used)[:, ::-1], samples[0])
    made = [files.sample(k).stat().st_mtime_ns for k in range(4)]
    main(options(prepared, choose="casual:3"))
    assert np.array_equal(read_rgba(files.used)[:, ::-1], samples[3])
    assert np.array_equal(read_rgba(files.sith), samples[3])
    assert [files.sample(k).stat().st_mtime_ns for k in range(4)] == made
    main(options(prepared, num_images=4))  # a later run keeps the choice
    assert np.array_equal(read_rgba(files.used)[:, ::-1], samples[3])
    main(options(prepared, num_images=6))  # more samples: the first four stay
    assert [files.sample(k).stat().st_mtime_ns for k in range(4)] == made and files.sample(5).exists()


def test_what_was_lost_is_painted_again_with_the_same_pixels(prepared, dice):
    main(options(prepared, num_images=3, batch_size=2))
    before = pixels_of(prepared)
    files = BackFiles(prepared / "back_images", "dress")
    for path in (files.sample(1), files.used, files.strip):
        path.unlink()
    files.sample(2).write_bytes(files.sample(2).read_bytes()[:500])  # cut off
    main(options(prepared, num_images=3, batch_size=2))
    assert pixels_of(prepared) == before


def test_kill_in_the_middle_goes_on_with_the_same_pixels(prepared, weights):
    command = [
        sys.executable,
        "-m",
        "recon.hallucinate",
        "-i",
        str(prepared),
        "--pretrained_model_name_or_path",
        str(weights),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not (prepared / "back_images" / "all_images" / "casual_000.png").exists():
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    main(options(prepared, pretrained_model_name_or_path=str(weights)))
    killed = pixels_of(prepared)
    shutil.rmtree(prepared / "back_images")
    main(options(prepared, pretrained_model_name_or_path=str(weights)))
    assert killed == pixels_of(prepared)


def test_the_default_is_the_small_network_that_comes_with_the_project(prepared, capsys):
    "It keeps what lies below the head near the mirror, and paints another head."
    main(Hallucinate.resolve(dict(data_root=str(prepared))))
    assert "backs by small" in capsys.readouterr().out
    for name in ("casual", "dress", "jacket"):
        front, back, true = (
            read_rgba(folder / f"{name}.png")
            for folder in (prepared / "images", prepared / "back_images", ROOT / "data/examples/back_images")
        )
        assert np.array_equal(front[..., 3], back[..., 3])
        inside = front[..., 3] > 250
        errors = [((image[inside][:, :3].astype(float) - true[inside][:, :3]) ** 2).mean() for image in (front, back)]
        assert errors[1] < errors[0], name  # nearer to the truth than the front is


# Bad input -------------------------------------------------------------------------------------------------------


def refused(folder, capsys, **more):
    "What is said about a figure, while the others get their backs and the command ends with an error."
    backs, failed = hallucinate_all(options(folder, **more))
    assert set(backs) == {"dress", "jacket"} and set(failed) == {"casual"}
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("casual: "))
    with pytest.raises(SubjectsFailed, match="1 of 3 figures failed:\n  casual: "):
        main(options(folder, **more))
    return said


def test_no_body(prepared, capsys):
    (prepared / "body" / "casual.ply").unlink()
    assert "no body for casual; expected body/casual.ply" in refused(prepared, capsys)


def test_a_body_elsewhere(prepared, capsys):
    import trimesh

    path = prepared / "body" / "casual.ply"
    cloud = trimesh.load(path, process=False)
    trimesh.PointCloud(cloud.vertices + [0.7, 0, 0]).export(path)
    assert "of the body lies on the figure; expected at least 50 %" in refused(prepared, capsys)


def test_a_body_of_another_model(prepared, capsys):
    import trimesh

    trimesh.PointCloud(np.zeros((6890, 3))).export(prepared / "body" / "casual.ply")
    said = refused(prepared, capsys)
    assert "6890 vertices; the model was trained with a body of 13380; this is one of smpl" in said


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda path: Image.open(path).convert("RGB").save(path), "no alpha channel"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "damaged"),
        (lambda path: Image.open(path).save(path.with_suffix(".webp")), "two files for one front image"),
    ],
)
def test_a_front_that_is_no_cut_out(prepared, capsys, change, message):
    change(prepared / "images" / "casual.png")
    assert message in refused(prepared, capsys)


def test_a_narrow_front_of_another_kind_gets_the_same_back(prepared):
    main(options(prepared))
    expected = read_rgba(prepared / "back_images" / "casual.png")
    path = prepared / "images" / "casual.png"
    Image.open(path).crop((20, 0, 236, 256)).save(path.with_suffix(".webp"), lossless=True, exact=True)
    path.unlink()
    shutil.rmtree(prepared / "back_images")
    main(options(prepared))
    found = read_rgba(prepared / "back_images" / "casual.png")
    assert np.array_equal(found[..., 3], expected[..., 3])
    inside = expected[..., 3] > 250
    assert np.abs(found[inside].astype(int) - expected[inside]).mean() < 0.5


def test_folders_and_weights_that_are_none(prepared, tmp_path, weights):
    with pytest.raises(FileNotFoundError, match="no figures; expected images/NAME.png"):
        main(options(tmp_path))
    with pytest.raises(FileNotFoundError, match="no weights of a back network"):
        main(options(prepared, pretrained_model_name_or_path=str(tmp_path / "none.safetensors")))
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cut off"):
        main(options(prepared, pretrained_model_name_or_path=str(tmp_path / "cut.safetensors")))
    save_file({"other.weight": torch.eye(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="weights of another network; expected a header with `config`"):
        main(options(prepared, pretrained_model_name_or_path=str(tmp_path / "foreign.safetensors")))
    assert not (prepared / "back_images").exists()  # nothing was begun


def test_what_the_memory_cannot_hold_is_refused_before_anything_is_painted(prepared, weights, tmp_path):
    with pytest.raises(ValueError, match=r"painting at 65536 pixels takes about .* It would fit with resolution=384"):
        main(options(prepared, pretrained_model_name_or_path=str(weights), resolution=65536))
    assert not (prepared / "back_images").exists()
    cfg = dict(data_root=str(make_balls(tmp_path, size=32)), save_root=str(tmp_path), image_size=2048, batch_size=512)
    with pytest.raises(ValueError, match=r"a step of 512 at 2048 pixels takes about .* are free"):
        train(TrainHallucinate.resolve(cfg))
    assert not (tmp_path / "02_train_hallucinate").exists()


def test_choices_that_are_none(prepared):
    assert parse_choice("a:1, b:20") == dict(a=1, b=20)
    for text in ("a", "a:b", ":"):
        with pytest.raises(ValueError, match="expected NAME:SAMPLE"):
            parse_choice(text)
    with pytest.raises(ValueError, match="choose names nobody; there are casual, dress, jacket"):
        main(options(prepared, choose="nobody:1"))


def test_siths_command_line(prepared, capsys):
    cli(
        [
            "-i",
            str(prepared),
            "-o",
            str(prepared / "elsewhere"),
            "--seed",
            "3",
            "--num_validation_images",
            "2",
            "--pretrained_model_name_or_path",
            "mirror",
        ]
    )
    assert read_record(prepared / "elsewhere" / "casual.png")["seed"] == 3
    with pytest.raises(SystemExit):
        cli(["-i", str(prepared), "--num_image", "2"])
    assert "the nearest is --num_images" in capsys.readouterr().err


# Training --------------------------------------------------------------------------------------------------------


def test_training_resumes_exactly_and_learns(tmp_path, monkeypatch):
    data = make_balls(tmp_path, names="abc", size=32)

    def cfg(name, steps, **more):
        return TrainHallucinate.resolve(
            dict(
                preset="demo",
                data_root=str(data),
                save_root=str(tmp_path),
                exp_name=name,
                image_size=32,
                batch_size=2,
                steps=steps,
                views=4,
                save_every=3,
                log_every=1,
                lighting=0.0,
            )
            | more
        )

    whole = train(cfg("whole", 8))
    state = torch.load(whole / "state.pt", weights_only=True)
    assert state["step"] == 8
    real = BackTrainer.update

    def dying(trainer, batch):
        if trainer.global_step == 5:
            raise KeyboardInterrupt
        return real(trainer, batch)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(BackTrainer, "update", dying)
        train(cfg("cut", 8))
    train(cfg("cut", 8))
    resumed = torch.load(tmp_path / "cut" / "state.pt", weights_only=True)
    for part in ("net", "average"):
        for name, value in state[part].items():
            assert torch.equal(resumed[part][name], value), name
    assert (tmp_path / "cut" / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert Small(whole / "model.safetensors").resolution == 32
    before = (whole / "model.safetensors").read_bytes()
    train(cfg("whole", 8))  # finished: nothing is done again
    assert (whole / "model.safetensors").read_bytes() == before

    def interrupt(line):
        if line["step"] == 4:
            signal.raise_signal(signal.SIGINT)

    train(cfg("asked", 8), on_log=interrupt)  # Ctrl-C saves the step in hand, between two checkpoints
    assert torch.load(tmp_path / "asked" / "state.pt", weights_only=True)["step"] == 4
    train(cfg("asked", 8))
    resumed = torch.load(tmp_path / "asked" / "state.pt", weights_only=True)
    for part in ("net", "average"):
        for name, value in state[part].items():
            assert torch.equal(resumed[part][name], value), name


def test_training_logs_to_wandb(tmp_path, monkeypatch):
    sent = []
    session = SimpleNamespace(
        log=lambda values, step: sent.append((step, values)),
        log_artifact=lambda artifact: sent.append(artifact.name),
        finish=lambda: sent.append("finish"),
    )
    stand_in = ModuleType("wandb")
    stand_in.init = lambda **options: sent.append(options["id"]) or session
    stand_in.Settings = type("Settings", (), dict(model_fields=(), __init__=lambda self, **options: None))
    stand_in.Artifact = lambda name, type: SimpleNamespace(name=name, add_file=lambda path: None)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = dict(preset="demo", data_root=str(make_balls(tmp_path, size=32)), save_root=str(tmp_path), wandb=True)
    options |= dict(image_size=32, batch_size=1, steps=2, views=2, log_every=1)
    shown = []
    train(TrainHallucinate.resolve(options), on_log=lambda line: shown.append((line["step"], line["color"])))
    assert [step for step, _ in shown] == [1, 2] and sent[-1] == "finish"
    assert [(step, values["color"]) for step, values in sent[1:3]] == shown
    train(TrainHallucinate.resolve(options | dict(steps=3)))
    assert sent[0] == next(entry for entry in sent[5:] if isinstance(entry, str))  # goes on: the same run there


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path, monkeypatch):
    "The same examples, the same losses over all of them, the same weights but for rounding; one of them writes."
    for name, value in dict(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)).items():
        monkeypatch.setenv(name, value)
    data = make_balls(tmp_path, names="abc", size=32)
    common = dict(preset="demo", data_root=str(data), save_root=str(tmp_path), image_size=32, views=4, log_every=1)
    lines = dict(one=[], two=[])
    for name, sizes in dict(one=dict(batch_size=4), two=dict(batch_size=2, num_processes=2)).items():
        cfg = TrainHallucinate.resolve(common | dict(exp_name=name, steps=3) | sizes)
        train(cfg, on_log=lines[name].append)
    assert [line["step"] for line in lines["two"]] == [1, 2, 3]
    for one, two in zip(*lines.values()):
        assert one == {name: pytest.approx(value, rel=1e-4) for name, value in two.items()}
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in lines)
    for name, value in one["net"].items():
        torch.testing.assert_close(value, two["net"][name], atol=2e-3, rtol=1e-2, msg=name)
    assert len((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_validation_leaves_pictures_of_people_held_out(tmp_path):
    data = make_balls(tmp_path, names="abc", size=128, split=dict(train=["a", "b"], valid=["c"]))
    options = dict(preset="demo", data_root=str(data), save_root=str(tmp_path), batch_size=1, steps=2, views=2)
    shown = []
    train(TrainHallucinate.resolve(options | dict(image_size=128, log_every=1, valid_every=2)), on_log=shown.append)
    judged = [line for line in shown if "valid" in line]
    assert [line["step"] for line in judged] == [2] and judged[0]["mirror_psnr"] > 0
    with Image.open(f"{judged[0]['valid']}/preview.jpg") as picture:
        assert picture.width > 6 * 100


# Fields on generated backs ---------------------------------------------------------------------------------------


def tiny_run(data, folder, name, **more):
    cfg = TINY | dict(use_pred_back=0.5, pred_back="mirror", epochs=4, lighting=0.8, aug_jitter=True) | more
    places = dict(data_root=str(data), save_root=str(folder), exp_name=name)
    return Trainer(TrainOptions.resolve(cfg | places), 2, torch.device("cpu"))


def test_a_share_of_the_items_has_generated_backs(tmp_path):
    data = make_balls(tmp_path)
    trainer, plain = tiny_run(data, tmp_path, "share"), tiny_run(data, tmp_path, "plain", use_pred_back=0.0)
    generated, expected = [], []
    for (batch,), (true,), indices in zip(trainer.batches(), plain.batches(), trainer.order.sample_indices(0)):
        generated += (batch["back_rgb_img"] != true["back_rgb_img"]).flatten(1).any(1).tolist()
        expected += [draw_share(trainer.cfg.seed, epoch, index, 0.5) for epoch, index in indices]
        for name in set(batch) - {"back_rgb_img", "priors"}:
            assert torch.equal(batch[name], true[name]), name
    assert generated == expected and 0 < sum(generated) < len(generated)


def test_a_run_on_generated_backs_resumes_exactly(tmp_path):
    data = make_balls(tmp_path)
    unbroken = tiny_run(data, tmp_path, "unbroken", resume="")
    unbroken.fit()
    plain = tiny_run(data, tmp_path, "plain", resume="", use_pred_back=0.0)
    plain.fit()
    for _ in range(unbroken.order.total_steps // 2):
        broken = tiny_run(data, tmp_path, "broken")
        broken.resume()
        for _, batches in zip(range(2), broken.batches()):
            broken.update(batches)
        broken.save()
    assert broken.global_step == unbroken.order.total_steps
    weights = [trainer.model.state_dict() for trainer in (unbroken, broken, plain)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())


def test_generated_backs_are_refused_where_they_cannot_be_made(tmp_path):
    data = make_balls(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such weights"):
        tiny_run(data, tmp_path, "run", pred_back=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="use_pred_back"):
        tiny_run(data, tmp_path, "run", use_pred_back=1.5)
    assert not (tmp_path / "run").exists()


# The published diffusion ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "A folder in diffusers' layout with a tiny random model."
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from recon.back.sith import tiny_sith

    folder = tmp_path_factory.mktemp("sith") / "tiny"
    tiny_sith().save(folder)
    return folder


def diffusion(prepared, tiny, **more):
    return options(prepared, pretrained_model_name_or_path=str(tiny), resolution=64, num_inference_steps=2, **more)


def test_diffusion_paints_samples_that_resume_with_the_same_pixels(prepared, tiny):
    main(diffusion(prepared, tiny, num_images=2))
    before = pixels_of(prepared)
    files = BackFiles(prepared / "back_images", "jacket")
    assert not np.array_equal(read_rgba(files.sample(0)), read_rgba(files.sample(1)))
    files.sample(1).unlink()
    main(diffusion(prepared, tiny, num_images=2))
    assert pixels_of(prepared) == before
    main(diffusion(prepared, tiny, num_images=2, guidance_scale=1.0, overwrite=True))
    assert pixels_of(prepared) != before
    main(diffusion(prepared, tiny, num_images=3, batch_size=2))
    before = pixels_of(prepared)
    files.sample(1).unlink()
    main(diffusion(prepared, tiny, num_images=3, batch_size=2))  # painted with its neighbour again
    assert pixels_of(prepared) == before


def test_a_diffusion_folder_that_lacks_parts_is_named(prepared, tmp_path):
    (tmp_path / "half" / "unet").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="it lacks scheduler, vae, image_encoder, controlnet, projection"):
        main(options(prepared, pretrained_model_name_or_path=str(tmp_path / "half")))
    with pytest.raises(FileNotFoundError, match="Nothing is fetched by itself"):
        main(options(prepared, pretrained_model_name_or_path="hohs/SiTH_diffusion"))
    assert not (prepared / "back_images").exists()


def test_foreign_weights_of_the_projection_are_refused(tiny, tmp_path):
    from recon.back.sith import SithModel

    folder = tmp_path / "foreign"
    shutil.copytree(tiny, folder)
    save_file({"other.weight": torch.eye(2)}, folder / "projection" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="expected projection.weight alone; found other.weight"):
        SithModel.load(folder)


def test_a_diffusion_that_the_memory_cannot_hold_is_refused(prepared, tiny, diffusion_run, monkeypatch):
    import recon.training.back_estimate as estimate

    monkeypatch.setattr(estimate, "free_on", lambda device: 50e6)
    with pytest.raises(ValueError, match=r"painting at 512 pixels takes about .* It would fit with .*resolution=\d+"):
        main(options(prepared, pretrained_model_name_or_path=str(tiny)))
    monkeypatch.setattr(estimate, "free_on", lambda device: 1e6)
    with pytest.raises(ValueError, match=r"a step of 2 at 64 pixels takes about .* are free"):
        train_diffusion(diffusion_run("run"))
    assert not (prepared / "back_images").exists()


@pytest.fixture
def diffusion_run(tiny, tmp_path, monkeypatch):
    "Options of a run on three balls, whose body has texture coordinates."
    import recon.body.anny

    data = make_balls(tmp_path, "abc")
    faces = len(ReconDataset(data, 32, 1).body_faces)
    uv = torch.rand(faces, 3, 2, generator=torch.Generator().manual_seed(0))
    body = SimpleNamespace(model=SimpleNamespace(uv=uv))
    monkeypatch.setattr(recon.body.anny, "load_anny", lambda: body)

    def configure(name, **more):
        cfg = dict(data_root=str(data), save_root=str(tmp_path), exp_name=name, image_size=64, batch_size=2, steps=4)
        rates = dict(lr_controlnet=1e-3, lr_attention=1e-3, dropout=0.5, save_every=2, log_every=1)
        return TrainDiffusion.resolve(dict(pretrained_model_name_or_path=str(tiny)) | cfg | rates | more)

    return configure


def test_diffusion_trains_resumes_exactly_and_is_opened_by_stage_04(diffusion_run, prepared, tmp_path, monkeypatch):
    whole = train_diffusion(diffusion_run("whole"))
    train_diffusion(diffusion_run("cut", steps=2))
    (tmp_path / "cut" / ".checkpoint-3").mkdir()  # killed while it wrote the next
    resumed = train_diffusion(diffusion_run("cut"))
    for part in ("unet", "controlnet", "projection"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), part
        assert (tmp_path / "whole" / "checkpoint-4" / name).read_bytes() == (whole / name).read_bytes()
    assert [path.name for path in sorted((tmp_path / "whole").glob("checkpoint-*"))] == ["checkpoint-2", "checkpoint-4"]
    assert (tmp_path / "cut" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()

    def interrupt(line):
        if line["step"] == 3:
            signal.raise_signal(signal.SIGINT)

    train_diffusion(diffusion_run("stopped", keep=1), on_log=interrupt)  # Ctrl-C saves the step in hand
    assert [path.name for path in (tmp_path / "stopped").glob("checkpoint-*")] == ["checkpoint-3"]
    assert not (tmp_path / "stopped" / "model").exists()
    resumed = train_diffusion(diffusion_run("stopped"))
    for part in ("unet", "controlnet", "projection"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), part
    monkeypatch.undo()  # the true body again
    assert len(main(diffusion(prepared, whole))) == 3


@pytest.fixture(scope="module")
def bare_people(tmp_path_factory):
    "A data set of two people who wear nothing; their body has texture coordinates, in every process."
    from recon.body.anny import load_anny
    from recon.data.scan import Subject
    from recon.data.writer import write_index, write_subject
    from recon.testing import place_colors, posed_body

    folder, body, files = tmp_path_factory.mktemp("bare"), load_anny().model, []
    for style in ("apose", "walk"):
        vertices = posed_body(style)
        subject = Subject(style, vertices, body.faces, place_colors(vertices), vertices)
        files.append(folder / "people" / f"{style}.h5")
        write_subject(files[-1], subject, body, views=2, size=64, points=100)
    write_index(folder / "people.h5", files, body, dict(train=["apose", "walk"]))
    return folder / "people.h5"


def test_two_processes_of_accelerate_train_the_diffusion_as_one_with_twice_the_batch(tiny, bare_people, tmp_path):
    "The same losses over both subjects, the same weights but for rounding."
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    surroundings = os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(paths))
    common = dict(pretrained_model_name_or_path=tiny, data_root=bare_people, save_root=tmp_path, image_size=64, steps=3)
    common |= dict(lr_controlnet=1e-3, lr_attention=1e-3, dropout=0.5, log_every=1)
    accelerate = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    for name, launcher, size in ("one", [], 2), ("two", accelerate, 1):
        given = common | dict(exp_name=name, batch_size=size)
        words = [f"--{option}={value}" for option, value in given.items()]
        done = run_python([*launcher, "-m", "recon.train_diffusion", *words], tmp_path, surroundings)
        assert done.returncode == 0 and "steps of 2, on cpu" in done.stdout, done.stdout + done.stderr[-3000:]
    one, two = (Run.open(tmp_path / name).lines for name in ("one", "two"))
    assert [line["step"] for line in two] == [1, 2, 3]
    for expected, found in zip(one, two):
        assert found == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}
    for part in ("unet", "controlnet", "projection"):
        file = f"model/{part}/diffusion_pytorch_model.safetensors"
        expected, found = (load_file(tmp_path / name / file) for name in ("one", "two"))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=f"{part}: {name}")


def test_diffusion_training_without_a_start_or_a_body_is_refused(diffusion_run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="pretrained_model_name_or_path is empty"):
        train_diffusion(diffusion_run("run", pretrained_model_name_or_path=""))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="have texture coordinates"):
        train_diffusion(diffusion_run("run"))
    assert not (tmp_path / "run").exists()
