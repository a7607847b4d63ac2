"Every option by its effect, on a tiny data set: one that is read and changes nothing would fail here."

import math

import numpy as np
import pytest
import torch
import yaml
from recon.nets.model import ModelOptions, Reconstructor
from recon.nets.mlp import LAYER_TYPES
from recon.testing import TINY, make_balls, tiny_trainer
from recon.train_full import TrainFull, fill_stage_defaults
from recon.train_normal import TrainNormal
from recon.training.losses import compute_losses, total_loss
from recon.training.optim import make_schedule

SITH = """
global: {save_root: ../checkpoints, exp_name: train-recon}
dataset: {data_root: ../data/dataset.h5, img_size: 1024, num_samples: 20480}
optimizer: {lr_decoder: 0.001, lr_encoder: 0.0001, beta1: 0.5, beta2: 0.999}
scheduler: {lr_scheduler: constant_with_warmup, lr_warmup_steps: 500}
train: {epochs: 5000, batch_size: 8, workers: 8, save_every: 50, log_every: 500}
network: {pos_dim: 8, num_layers: 5, hidden_dim: 512, skip: [2, 3, 4], activation: lrelu, layer_type: none}
embedder: {shape_freq: 0, color_freq: 0}
losses: {lambda_sdf: 10., lambda_rgb: 1., lambda_nrm: 1., lambda_2D: 1.}
validation: {valid: false, valid_folder: ../data/examples, valid_every: 50, subdivide: true, grid_size: 512,
             erode_iter: 0}
wandb: {wandb: false, wandb_name: train-recon}
"""  # its names, groups and values


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return make_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture
def make(balls, tmp_path):
    return lambda stage=2, **options: tiny_trainer(balls, tmp_path, stage, **dict(resume="") | options)


def batch_of(ready):
    return next(ready.batches())[0]


def trained(ready, steps=3):
    for _, micro_batches in zip(range(steps), ready.batches()):
        ready.update(micro_batches)
    return ready


# Where options come from --------------------------------------------------------------------------------------------


def ways(cls, options, folder):
    """One configuration given as a notebook, papermill's grouped file, the command line, a module's caller and a
    YAML file give it."""
    path = folder / "options.yaml"
    path.write_text(
        yaml.safe_dump({name: list(value) if isinstance(value, tuple) else value for name, value in options.items()})
    )
    words = [
        word
        for name, value in options.items()
        for word in (
            [f"--{name}" if value else f"--no_{name}"]
            if isinstance(value, bool)
            else [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]
        )
    ]
    return [
        cls.resolve({"__name__": "__main__", "In": []} | options),
        cls.from_args(words),
        cls.resolve(options),
        cls.resolve(dict(config=str(path))),
    ]


@pytest.mark.parametrize("cls", [TrainNormal, TrainFull])
def test_every_option_reads_the_same_from_notebook_script_module_and_yaml(cls, tmp_path):
    "Each with a value that is not its default."
    other, kinds = {}, cls.kinds()
    named = dict(
        preset="paper",
        mixed_precision="bf16",
        lr_scheduler="cosine",
        activation="relu",
        layer_type="spectral_norm",
        beta1=0.25,
        beta2=0.75,
        pos_dim=5,
    )
    for name, value in cls.resolve(dict(preset="paper")).asdict().items():
        if name == "config":
            continue
        if name in named:
            other[name] = named[name]
        elif isinstance(value, bool):
            other[name] = not value
        elif isinstance(value, tuple):
            other[name] = (1, 2)
        elif isinstance(value, str):
            other[name] = "other"
        else:
            other[name] = value + 1 if value is not None else 2
    found = [one.asdict() | dict(config="") for one in ways(cls, other, tmp_path)]
    for one in found:
        assert {name: one[name] for name in other} == {name: type(one[name])(value) for name, value in other.items()}
    assert set(other) == set(kinds) - {"config"}


@pytest.mark.parametrize("cls", [TrainNormal, TrainFull])
def test_siths_own_config_is_read_unchanged(cls, tmp_path):
    (tmp_path / "config.yaml").write_text(SITH)
    cfg, wanted = cls.resolve(dict(config=str(tmp_path / "config.yaml"), preset="paper")), {}
    for group in yaml.safe_load(SITH).values():
        wanted |= group
    wanted["image_size"], wanted["skip"] = wanted.pop("img_size"), tuple(wanted["skip"])
    known = cls.kinds()
    assert {name: getattr(cfg, name) for name in wanted if name in known} == {
        name: value for name, value in wanted.items() if name in known
    }
    assert cls is TrainNormal or set(wanted) <= set(known)
    assert ModelOptions.of(cfg) == ModelOptions()  # the published sizes
    (tmp_path / "config.yaml").write_text(SITH.replace("lr_decoder", "lr_decodr"))
    with pytest.raises(ValueError, match="no option 'lr_decodr'; the nearest is 'lr_decoder'"):
        cls.resolve(dict(config=str(tmp_path / "config.yaml")))


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("epochs", "inf", "int at least 0"),
        ("lr_decoder", "nan", "finite float at least 0"),
        ("beta1", 2, "below 1"),
        ("workers", -3, "at least 0"),
        ("valid_every", 0, "at least 1"),
        ("lr_scheduler", "cosin", "the nearest is 'cosine'"),
        ("activation", "leru", "one of lrelu"),
        ("layer_type", "spectral", "the nearest is 'spectral_norm'"),
        ("pos_dim", 4, "one of 1, 3, 5, 6, 8"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_name(name, value, expected):
    with pytest.raises(ValueError, match=f"{name} = .*{expected}"):
        TrainFull.resolve({"preset": "paper", name: value})


def test_renamed_options_are_accepted_under_their_old_names():
    old = dict(residual=False, wrap_body=False, encode_body=False, point_cues=False, blend_pixels=False, nrm_rate=0.3)
    cfg = TrainFull.resolve(dict(preset="demo") | old)
    assert (
        not any(
            (cfg.residual_sdf, cfg.silhouette_prior, cfg.body_depth_input, cfg.point_priors, cfg.pixel_color_blending)
        )
        and cfg.lr_predictor_scale == 0.3
    )
    assert TrainFull.from_args(["--preset", "demo", "--no_wrap_body", "--nrm_rate=.3"]).lr_predictor_scale == 0.3


@pytest.mark.parametrize("given", [dict(preset="paper"), dict(config="config.yaml")])
def test_the_published_training_is_that_of_sith(given):
    "Its weight decay is zero; each stage has its own epochs and rates, whether preset or YAML file is given."
    normal = TrainNormal.resolve(given)
    fields, full = (fill_stage_defaults(TrainFull.resolve(given | dict(use_pred_nrm=later))) for later in (False, True))
    assert (normal.epochs, normal.lr_encoder) == (600, 1e-4)
    assert (fields.epochs, fields.lr_decoder, fields.lr_encoder) == (400, 1e-3, 1e-4)
    assert (full.epochs, full.lr_decoder, full.lr_encoder, full.lr_predictor_scale) == (400, 1e-4, 1e-5, 0.01)
    for cfg in (normal, fields, full):
        assert (cfg.weight_decay, cfg.drop_last, cfg.mask_pred_nrm) == (0, False, False)
    for preset in ("demo", "small"):
        cfg = TrainFull.resolve(dict(preset=preset))
        assert (cfg.weight_decay, cfg.drop_last, cfg.mask_pred_nrm) == (0.01, True, True)


def test_drop_last_leaves_out_the_batch_that_is_not_full(make):
    "Four subjects in batches of three: every subject is seen in an epoch, or three of them."
    for drop_last, sizes in ((True, [3]), (False, [3, 1])):
        ready = make(1, batch_size=3, epochs=1, drop_last=drop_last)
        assert [len(parts[0]["front_mask"]) for parts in ready.batches()] == sizes
    alone = make(1, batch_size=3, epochs=1, drop_last=False, gradient_accumulation_steps=1)
    trained(alone, 2)
    assert alone.global_step == alone.order.total_steps == 2


def test_mask_pred_nrm_masks_what_the_encoder_sees_and_no_more(make):
    for mask_pred_nrm in (True, False):
        ready = make(3, mask_pred_nrm=mask_pred_nrm)
        batch = batch_of(ready)
        found = ready.model(batch, ready.template)
        outside = (batch["front_mask"] == 0).expand(-1, 3, -1, -1)
        assert (
            found.encoded.normals[:, :3][outside].any() != mask_pred_nrm and found.normal_maps["front"][outside].any()
        )


# Pictures -----------------------------------------------------------------------------------------------------------


def test_use_mask_changes_the_gradient_in_the_background_and_nowhere_else(make):
    "Of the predicted maps; without it every pixel counts."
    grads = {}
    for use_mask in (False, True):
        ready = make(1, use_mask=use_mask)
        batch = batch_of(ready)
        maps = {}
        real = ready.model.predict_normals

        def kept(images, body=None):
            maps[len(maps)] = out = real(images, body).detach().requires_grad_(True)  # noqa: B023 (called at once)
            return out

        ready.model.predict_normals = kept
        compute_losses(ready.model, batch, ready.cfg, 1)["2D"].backward()
        grads[use_mask] = [maps[k].grad for k in range(2)], [batch[f"{side}_mask"] > 0 for side in ("front", "back")]
    for with_mask, without, mask in zip(grads[True][0], grads[False][0], grads[True][1]):
        inside = mask.expand_as(without)
        assert (without != 0).all() and not with_mask[~inside].any()
        whole = (batch["front_mask"] == 1).expand_as(without)
        assert whole.any() and torch.equal(with_mask[whole], without[whole])


def test_white_bg_whitens_the_background_else_it_has_one_random_colour_on_both_sides(make):
    white, random = (make(1, white_bg=white_bg).data[0] for white_bg in (True, False))
    colours = []
    for side in ("front", "back"):
        outside = (white[f"{side}_mask"] == 0)[0]
        assert (white[f"{side}_rgb_img"][:, outside] == 1).all()
        colours.append(random[f"{side}_rgb_img"][:, outside])
        inside = (white[f"{side}_mask"] == 1)[0]
        assert torch.equal(*(item[f"{side}_rgb_img"][:, inside] for item in (white, random))) and inside.any()
    assert torch.equal(colours[0][:, :1], colours[1][:, :1]) and all(
        (colour == colour[:, :1]).all() for colour in colours
    )
    assert colours[0].std(dim=0).max() > 0.01  # a colour, not a grey
    inside = (white["front_mask"] == 1)[0]
    assert torch.equal(white["front_rgb_img"][:, inside], random["front_rgb_img"][:, inside])


def at(data, epoch, i):
    data.epoch = epoch
    return data[i]


@pytest.mark.parametrize(
    "jitter, expected",
    [
        ((1.3, 1, 1, 0), lambda x: (1.3 * x).clamp(0, 1)),  # brightness: a product, in [0, 1]
        ((1, 1, 0, 0), lambda x: x.amax(0, keepdim=True).expand_as(x)),  # no saturation: grey, as bright
        ((1, 1, 1, math.pi), lambda x: x.amax(0, keepdim=True) + x.amin(0, keepdim=True) - x),
    ],
)  # hue turned by half: the complement
def test_aug_jitter_by_known_numbers_is_the_same_in_front_and_back(make, monkeypatch, jitter, expected):
    "In [0, 1] colours: in [-1, 1] a product would darken what is dark."
    import recon.data.reader as reader

    real = reader.sample_augmentation
    plain, ready = make(1).data, make(1, aug_jitter=True).data
    before = at(plain, 0, 0)
    monkeypatch.setattr(
        reader, "sample_augmentation", lambda *a, **k: real(*a, **k) | dict(jitter=torch.tensor(jitter).float())
    )
    item = at(ready, 0, 0)
    for side in ("front", "back"):
        inside = (before[f"{side}_mask"] == 1)[0]
        found, was = (one[f"{side}_rgb_img"][:, inside] / 2 + 0.5 for one in (item, before))
        assert torch.allclose(found, expected(was), atol=2e-3), (found - expected(was)).abs().max()


def test_aug_jitter_draws_anew_each_time_and_leaves_truth_alone(make):
    plain, ready = make(1, white_bg=True).data, make(1, white_bg=True, aug_jitter=True).data
    seen = []
    for epoch in range(3):
        before, item = at(plain, epoch, 0), at(ready, epoch, 0)
        for name in ("front_nrm_img", "back_nrm_img", "front_mask", "pts", "rgb", "d"):
            assert torch.equal(item[name], before[name]), name
        outside = (before["front_mask"] == 0)[0]
        assert (item["front_rgb_img"][:, outside] == 1).all()
        seen.append((item["front_rgb_img"] - before["front_rgb_img"]).mean().item())
    assert len(set(seen)) == 3 and 0 not in seen


@pytest.mark.parametrize("size", [32, 64])
def test_image_size_num_samples_batch_size_and_seed(make, size):
    batch = batch_of(make(2, image_size=size, num_samples=30, batch_size=3))
    assert batch["front_rgb_img"].shape == (3, 3, size, size) and batch["pts"].shape == (3, 30, 3)
    same, other = (
        batch_of(make(2, image_size=size, num_samples=30, batch_size=3)),
        batch_of(make(2, image_size=size, num_samples=30, batch_size=3, seed=1)),
    )
    assert torch.equal(same["pts"], batch["pts"]) and not torch.equal(other["pts"], batch["pts"])
    first, second = (next(make(2, seed=seed).model.parameters()) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_workers_read_the_same(make):
    batches = [[parts[0] for parts in make(3, workers=workers, aug_jitter=True).batches()] for workers in (0, 2)]
    assert len(batches[0]) == len(batches[1]) == 4
    for a, b in zip(*batches):
        assert set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


# Networks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pos_dim, moves", [(1, "z"), (3, "xyz"), (5, "body"), (6, "body z"), (8, "body direction")])
def test_pos_dim_is_what_the_fields_see_of_a_point(make, pos_dim, moves):
    "The columns that change with the point, the body, and the direction to it; the fields take so many numbers."
    from recon.nets.body import body_features

    ready = make(2, pos_dim=pos_dim)
    batch = batch_of(ready)
    inputs = ready.model(batch, ready.template)
    body, nearest, points = inputs.body, inputs.nearest, batch["pts"]
    seen = body_features(points, nearest, body, pos_dim)
    assert (
        seen.shape[-1] == pos_dim
        and ready.model.sdf_decoder.layers[0].in_features
        == 2 * 4 + pos_dim
        == ready.model.rgb_decoder.layers[0].in_features
    )
    canonical = torch.nn.functional.normalize(
        batch["pts"] @ batch["R"], dim=-1
    )  # of a ball: the point's own direction in its rest pose
    if moves == "z":
        assert torch.equal(seen, points[..., 2:])
    if moves == "xyz":
        assert torch.equal(seen, points)
    if moves.startswith("body"):
        assert (torch.nn.functional.normalize(seen[..., :3], dim=-1) - canonical).norm(
            dim=-1
        ).max() < 0.35  # a coarse ball
        assert torch.allclose(
            seen[..., 3], points.norm(dim=-1) - 0.5, atol=0.02
        )  # signed distance to a ball of radius 0.5, cut coarsely
        assert set(seen[..., 7 if pos_dim == 8 else 4].unique().tolist()) <= {-1, 0, 1}
    if pos_dim == 6:
        assert torch.equal(seen[..., 5:], points[..., 2:])
    if pos_dim == 8:
        assert torch.allclose(seen[..., 4:7].norm(dim=-1), torch.ones(()), atol=1e-4)
    trained(ready, 1)


def outputs(model, batch, template):
    "Distances and colours of a batch on its own normal maps."
    with torch.no_grad():
        found = model(batch, template, predict=False)
        return found.sdf, found.rgb


@pytest.mark.parametrize(
    "option, value, changes",
    [
        ("activation", "relu", "both"),
        ("activation", "softplus", "both"),
        ("activation", "sin", "both"),
        ("layer_type", "spectral_norm", "both"),
        ("layer_type", "frobenius_norm", "both"),
        ("layer_type", "l_1_norm", "both"),
        ("layer_type", "l_inf_norm", "both"),
        ("shape_freq", 3, "sdf"),
        ("color_freq", 2, "rgb"),
        ("num_layers", 4, "both"),
        ("hidden_dim", 24, "sdf"),
        ("skip", (1, 2), "sdf"),
        ("feat_dim", 6, "both"),
        ("rgb_num_layers", 3, "rgb"),
        ("rgb_hidden_dim", 12, "rgb"),
    ],
)
def test_network_options_change_the_field_that_they_are_of(make, option, value, changes):
    "One option at a time, the weights of the other field being drawn alike; and a step of training goes through."
    plain, other = make(2), make(2, **{option: value})
    batch = batch_of(plain)
    for name in ("sdf_decoder", "rgb_decoder", "image_encoder", "high_res_encoder"):
        torch.manual_seed(7)
        for ready in (plain, other):
            torch.manual_seed(7)
            for parameter in getattr(ready.model, name).parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    (sdf, rgb), (sdf_too, rgb_too) = (outputs(ready.model.train(), batch, ready.template) for ready in (plain, other))
    changed = (not torch.allclose(sdf, sdf_too, atol=1e-4), not torch.allclose(rgb, rgb_too, atol=1e-4))
    assert changed == dict(both=(True, True), sdf=(True, False), rgb=(False, True))[changes]
    before = [p.detach().clone() for p in other.model.sdf_decoder.parameters()]
    trained(other, 2)
    assert all(torch.isfinite(p).all() for p in other.model.parameters()) and not all(
        torch.equal(p, q) for p, q in zip(before, other.model.sdf_decoder.parameters())
    )


def test_every_kind_of_layer_and_activation_is_refused_by_name_or_built():
    for kind in LAYER_TYPES:
        Reconstructor(
            ModelOptions(
                **{k: v for k, v in TINY.items() if k in ModelOptions.__dataclass_fields__} | dict(layer_type=kind)
            )
        )
    for option in ("layer_type", "activation"):
        with pytest.raises(ValueError, match=f"{option} is 'other'; expected one of"):
            Reconstructor(
                ModelOptions(
                    **{k: v for k, v in TINY.items() if k in ModelOptions.__dataclass_fields__} | {option: "other"}
                )
            )


# Training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, trains",
    [
        (1, {"nrm_encoder"}),
        (2, {"image_encoder", "high_res_encoder", "sdf_decoder", "rgb_decoder"}),
        (3, {"image_encoder", "high_res_encoder", "sdf_decoder", "rgb_decoder", "nrm_encoder"}),
    ],
)
def test_a_step_trains_its_own_networks_with_updates_of_known_size(make, step, trains):
    """AdamW's first update is as large as the rate, whatever the gradient: encoder 2e-3, decoders and the colour
    encoder 1e-3, predictor 0.05 × the encoder's."""
    ready = make(
        step,
        lr_scheduler="constant",
        lr_encoder=2e-3,
        lr_decoder=1e-3,
        lr_predictor_scale=0.05,
        weight_decay=0.0,
        fused_adamw=False,
    )
    before = {name: value.clone() for name, value in ready.model.named_parameters()}
    trained(ready, 1)
    largest = {}
    for name, value in ready.model.named_parameters():
        part = name.split(".")[0]
        largest[part] = max(largest.get(part, 0.0), (value.detach() - before[name]).abs().max().item())
    rate = dict(
        image_encoder=2e-3,
        high_res_encoder=1e-3,
        sdf_decoder=1e-3,
        rgb_decoder=1e-3,
        nrm_encoder=2e-3 if step == 1 else 1e-4,
    )
    assert {name for name, size in largest.items() if size} == trains
    for name in trains:
        assert largest[name] == pytest.approx(rate[name], rel=2e-2), name


def test_use_pred_nrm_lets_the_fields_gradients_reach_the_predictor_and_its_absence_does_not(make):
    for step, reached in ((2, False), (3, True)):
        ready = make(step)
        parts = compute_losses(ready.model, batch_of(ready), ready.cfg, step, ready.template)
        total_loss({name: value for name, value in parts.items() if name != "2D"}, ready.cfg).backward()
        assert reached == any(
            p.grad is not None and p.grad.abs().sum() > 0 for p in ready.model.nrm_encoder.parameters()
        )
        assert ("2D" in parts) == reached
    for use_pred_nrm, rate in ((False, 1e-3), (True, 1e-4)):  # the stage's own rates and folder for the step
        cfg = fill_stage_defaults(TrainFull.resolve(dict(preset="paper", use_pred_nrm=use_pred_nrm)))
        assert cfg.lr_decoder == rate and cfg.lr_encoder == rate / 10 and cfg.exp_name.endswith("pred") == use_pred_nrm


@pytest.mark.parametrize("name", ["sdf", "rgb", "nrm", "2D"])
def test_lambdas_weigh_their_loss_alone(make, name):
    ready = make(3)
    parts = compute_losses(ready.model, batch_of(ready), ready.cfg, 3, ready.template)
    plain = total_loss(parts, ready.cfg)
    setattr(ready.cfg, f"lambda_{name}", getattr(ready.cfg, f"lambda_{name}") + 3)
    assert torch.allclose(total_loss(parts, ready.cfg) - plain, 3 * parts[name], atol=1e-5)


def test_betas_decay_clipping_and_schedule_give_the_updates_of_the_textbook(make):
    "AdamW written out, fed with the gradients that the step leaves; each group's were cut to the norm asked for."
    ready = make(
        2,
        beta1=0.8,
        beta2=0.9,
        weight_decay=0.1,
        max_grad_norm=0.01,
        lr_scheduler="linear",
        lr_warmup_steps=1,
        lr_decoder=1e-2,
        epochs=3,
        fused_adamw=False,
    )
    weight = ready.model.sdf_decoder.lout.weight
    w, m, v = weight.detach().double().clone(), 0.0, 0.0
    for t, micro_batches in enumerate(ready.batches()):
        rate = ready.optim.schedule.get_last_lr()[1]
        assert rate == pytest.approx(1e-2 * (0, 1, 0.8, 0.6, 0.4, 0.2)[t])
        _, norms = ready.update(micro_batches)
        for group in ready.optim.optimizer.param_groups:
            norm = torch.stack([p.grad.norm() for p in group["params"]]).norm().item()
            assert norm == pytest.approx(min(0.01, norms[group["name"]].item()), rel=1e-3)
        g = weight.grad.double()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        w = w * (1 - rate * 0.1) - rate * (m / (1 - 0.8 ** (t + 1))) / ((v / (1 - 0.9 ** (t + 1))).sqrt() + 1e-8)
        assert torch.allclose(weight.detach().double(), w, atol=1e-7)


def transformers_factor(name, step, warmup, total, cycles, power):
    "The formulas of transformers' get_scheduler, with AdamW's default rate 1e-3 for `lr_init` and 1e-7 for `lr_end`."
    if name == "constant":
        return 1.0
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    if name == "constant_with_warmup":
        return 1.0
    if name == "linear":
        return max(0.0, (total - step) / max(1, total - warmup))
    if name == "cosine":
        return max(0.0, 0.5 * (1 + math.cos(math.pi * 0.5 * 2 * progress)))
    if name == "cosine_with_restarts":
        return 0.0 if progress >= 1 else max(0.0, 0.5 * (1 + math.cos(math.pi * ((cycles * progress) % 1))))
    if step > total:
        return 1e-7 / 1e-3
    return ((1e-3 - 1e-7) * (1 - progress) ** power + 1e-7) / 1e-3


@pytest.mark.parametrize(
    "name", ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
)
@pytest.mark.parametrize("warmup, cycles, power", [(0, 1, 1.0), (7, 3, 2.0)])
def test_schedules_are_those_of_transformers(name, warmup, cycles, power):
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.02)
    schedule = make_schedule(optimizer, name, warmup, 40, cycles, power)
    for step in range(41):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(
            0.02 * transformers_factor(name, step, warmup, 40, cycles, power), abs=1e-12
        ), step
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("linear", lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 40)),
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40)),
        ("constant", lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0, 40)),
    ],
)
def test_schedules_are_those_of_torch(name, theirs):
    rates = []
    for build in (lambda o: make_schedule(o, name, 0, 40), theirs):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.02)
        schedule, found = build(optimizer), []
        for _ in range(40):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        rates.append(found)
    assert np.allclose(*rates, atol=1e-12)


@pytest.mark.parametrize(
    "options, kept, lines",
    [
        (dict(epochs=6, save_every=2, keep=0, log_every=3), [4, 8, 12], [3, 6, 9, 12]),
        (dict(epochs=6, save_every=2, keep=1, log_every=5), [12], [5, 10, 12]),
        (dict(epochs=3, save_every=50, save_steps=2, keep=2, log_every=1), [4, 6], [1, 2, 3, 4, 5, 6]),
    ],
)
def test_epochs_save_every_save_steps_keep_and_log_every(make, options, kept, lines):
    run = make(1, **options).fit()
    assert [int(path.name) for path in sorted((run.folder / "checkpoints").glob("0*"))] == kept
    assert [line["step"] for line in run.lines] == lines


# Validation ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validated(balls, tmp_path_factory):
    "Runs of step 2 that validate on a prepared folder of three balls."
    from recon.data.prepared import write_prepared
    from recon.data.reader import ReconDataset
    from recon.train_full import main

    folder, data = tmp_path_factory.mktemp("valid"), ReconDataset(balls, 32, 10)
    for name in "abc":
        write_prepared(folder / "people", data, name)

    def run(name, **options):
        shared = TINY | dict(
            data_root=str(balls),
            save_root=str(folder),
            exp_name=name,
            resume="",
            residual_sdf=True,
            valid=True,
            valid_folder=str(folder / "people"),
            grid_size=24,
            num_valid_samples=1,
        )
        return main(TrainFull.resolve(shared | options))

    return run


def meshes(run, epoch):
    import trimesh

    return {
        path.stem: trimesh.load(path, force="mesh")
        for path in sorted((run.folder / "valid" / f"{epoch:04d}").glob("*.glb"))
    }


def test_valid_every_num_valid_samples_grid_size_subdivide_and_erode_iter(validated):
    often = validated("often", epochs=3, valid_every=2, num_valid_samples=2)
    assert sorted(path.name for path in (often.folder / "valid").iterdir()) == [
        "0002",
        "0003",
    ]  # every second, and the last
    assert [line["epoch"] for line in often.lines if "valid" in line] == [2, 3]
    assert list(meshes(often, 3)) == ["a", "b"]
    coarse, fine, cut, eroded = (
        meshes(validated(name, epochs=1, valid_every=1, **options), 1)["a"]
        for name, options in dict(
            coarse={}, fine=dict(grid_size=48), cut=dict(subdivide=True), eroded=dict(erode_iter=2)
        ).items()
    )
    assert 3 < len(fine.faces) / len(coarse.faces) < 5 and len(cut.faces) == 4 * len(coarse.faces)
    assert eroded.vertices.shape != coarse.vertices.shape or not np.allclose(eroded.vertices, coarse.vertices)
    none = validated("none", epochs=1, valid_every=1, valid=False)
    assert not (none.folder / "valid").exists()


def test_erode_iter_draws_the_masks_in(validated, balls):
    from recon.data.prepared import erode_mask
    from recon.data.reader import ReconDataset

    mask = ReconDataset(balls, 64, 10).read("a", 0, 0)["front_mask"]
    radii = [math.sqrt(erode_mask(mask, pixels).sum() / math.pi) for pixels in (0, 3)]
    assert 2 < radii[0] - radii[1] < 4


@pytest.mark.parametrize(
    "start, given, spins",
    [
        (["-m", "recon.train_normal", "--help"], {}, 0),
        (
            ["-c", "import sys; from recon.threads import train_full; sys.argv = ['', '--help']; train_full()"],
            dict(OMP_WAIT_POLICY="ACTIVE"),
            30_000_000_000,
        ),
        (
            ["-c", "import os, recon, recon.config; assert 'OMP_WAIT_POLICY' not in os.environ; import torch"],
            {},
            300_000,
        ),
    ],
)
def test_openmp_is_told_to_sleep_before_torch_loads_it(start, given, spins):
    """How often a waiting thread spins, as OpenMP itself reports when it is loaded; the user's own setting wins,
    and importing the package sets nothing."""
    import os
    import subprocess
    import sys

    from conftest import ROOT

    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | dict(
        OMP_DISPLAY_ENV="VERBOSE", PYTHONPATH=str(ROOT)
    )
    done = subprocess.run([sys.executable, *start], cwd=ROOT, env=plain | given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr, done.stderr[-2000:]
