"""The loss of a step against an implementation of its own in float64: written from the paper's formulas, from the
weights by their names, without the project's networks, features or losses.
Convolutions are torch's; lookup under a pixel, nearest point of the body (by brute force over its triangles), inside
and outside (by solid angles), fields and means are NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recon.testing import make_balls, tiny_trainer
from recon.training.losses import compute_losses, total_loss

OPTIONS = dict(num_layers=4, skip=(2, 3), rgb_num_layers=3, num_samples=150, resume="")


# The networks, by the names of SiTH's checkpoints -------------------------------------------------------------


def conv(p, name, x, **how):
    return F.conv2d(x, p[f"{name}.weight"], p.get(f"{name}.bias"), **how)


def normed(x, groups, weight=1.0, bias=0.0):
    "Group norm; with as many groups as channels, instance norm."
    rows = x.reshape(len(x), groups, -1)
    rows = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    def scale(v):
        return v[None, :, None, None] if isinstance(v, torch.Tensor) else v

    return rows.view_as(x) * scale(weight) + scale(bias)


def predictor(p, image, downs, blocks):
    "pix2pixHD's global generator."

    def bend(x):
        return F.relu(normed(x, x.shape[1]))

    x, at = bend(conv(p, "model.1", F.pad(image, (3,) * 4, "reflect"))), 4
    for _ in range(downs):
        x, at = bend(conv(p, f"model.{at}", x, stride=2, padding=1)), at + 3
    for _ in range(blocks):
        y = bend(conv(p, f"model.{at}.conv_block.1", F.pad(x, (1,) * 4, "reflect")))
        y = conv(p, f"model.{at}.conv_block.5", F.pad(y, (1,) * 4, "reflect"))
        x, at = x + normed(y, y.shape[1]), at + 1
    for _ in range(downs):
        x, at = (
            bend(
                F.conv_transpose2d(
                    x, p[f"model.{at}.weight"], p[f"model.{at}.bias"], stride=2, padding=1, output_padding=1
                )
            ),
            at + 3,
        )
    return torch.tanh(conv(p, f"model.{at + 1}", F.pad(x, (3,) * 4, "reflect")))


def block(p, name, x, groups):
    "PIFu's residual block: 1/2, 1/4 and 1/4 of the channels, each from the one before."

    def step(k, y):
        return conv(
            p,
            f"{name}.conv{k}",
            F.relu(normed(y, groups, p[f"{name}.bn{k}.weight"], p[f"{name}.bn{k}.bias"])),
            padding=1,
        )

    a = step(1, x)
    b = step(2, a)
    c = step(3, b)
    if f"{name}.downsample.2.weight" in p:
        x = conv(p, f"{name}.downsample.2", F.relu(normed(x, groups, p[f"{name}.bn4.weight"], p[f"{name}.bn4.bias"])))
    return torch.cat([a, b, c], 1) + x


def encoder(p, image, groups, depth=4):
    "One-stack hourglass."

    def level(k, x):
        low = block(p, f"m0.b2_{k}", F.avg_pool2d(x, 2), groups)
        low = block(p, f"m0.b3_{k}", level(k - 1, low) if k > 1 else block(p, "m0.b2_plus_1", low, groups), groups)
        return block(p, f"m0.b1_{k}", x, groups) + F.interpolate(
            low, scale_factor=2, mode="bicubic", align_corners=True
        )

    x = F.relu(normed(conv(p, "conv1", image, stride=2, padding=3), groups, p["bn1.weight"], p["bn1.bias"]))
    for name in ("conv2", "conv3", "conv4"):
        x = block(p, name, x, groups)
    x = conv(p, "conv_last0", block(p, "top_m_0", level(depth, x), groups))
    x = F.relu(normed(x, groups, p["bn_end0.weight"], p["bn_end0.bias"]))
    return conv(p, "l0", x) + conv(p, "skip_conv", image, stride=2, padding=1)


def field(p, x, layers, skip):
    "Leaky ReLU of slope 0.01 after every hidden layer; the input again before those in `skip`."
    h = x
    for i in range(layers):
        h = (np.concatenate([x, h], -1) if i and i in skip else h) @ p[f"layers.{i}.weight"].numpy().T + p[
            f"layers.{i}.bias"
        ].numpy()
        h = np.where(h > 0, h, 0.01 * h)
    return h @ p["lout.weight"].numpy().T + p["lout.bias"].numpy()


# Points -------------------------------------------------------------------------------------------------------------


def under(maps, points):
    "Bilinear lookup in maps (C,H,W) at (x, -y), corners on the corners: (N,C)."
    C, H, W = maps.shape
    x, y = (np.clip(points[:, 0], -1, 1) + 1) / 2 * (W - 1), (1 - np.clip(points[:, 1], -1, 1)) / 2 * (H - 1)
    i, j = np.minimum(y.astype(int), H - 2), np.minimum(x.astype(int), W - 2)
    u, v = x - j, y - i
    return (
        (1 - v) * ((1 - u) * maps[:, i, j] + u * maps[:, i, j + 1])
        + v * ((1 - u) * maps[:, i + 1, j] + u * maps[:, i + 1, j + 1])
    ).T


def on_triangle(p, a, b, c):
    "Weights (...,3) of the point of each triangle nearest to each point: inside, else the nearest of the three edges'."

    def along(u, v):
        return np.clip(((p - u) * (v - u)).sum(-1) / ((v - u) ** 2).sum(-1), 0, 1)

    t, s, r, zero = along(a, b), along(b, c), along(c, a), np.zeros(np.broadcast_shapes(p.shape, a.shape)[:-1])
    edges = [np.stack([1 - t, t, zero], -1), np.stack([zero, 1 - s, s], -1), np.stack([r, zero, 1 - r], -1)]
    n = np.cross(b - a, c - a)

    def share(u, v):
        return (np.cross(u - p, v - p) * n).sum(-1) / (n * n).sum(-1)

    flat = np.stack([share(b, c), share(c, a), share(a, b)], -1)
    corners = np.stack(np.broadcast_arrays(a, b, c), -2)
    gaps = [np.linalg.norm((w[..., None] * corners).sum(-2) - p, axis=-1) for w in edges]
    best = np.choose(np.argmin(gaps, 0)[..., None], edges)
    return np.where((flat >= 0).all(-1, keepdims=True), flat, best)


def inside(points, triangles):
    "Whether points lie inside a closed mesh: the solid angles of its triangles add up to 4π."
    a, b, c = (triangles[None, :, k] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    above = (a * np.cross(b, c)).sum(-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return np.abs(2 * np.arctan2(above, below).sum(-1)) > 2 * np.pi


def body_features(points, face, triangles, rest, visible):
    "The eight numbers of each point, by its face: rest place, signed distance, direction, visibility."
    weight = on_triangle(points, *(triangles[face][:, k] for k in range(3)))[..., None]
    place, canonical = (weight * triangles[face]).sum(1), (weight * rest[face]).sum(1)
    gap = np.linalg.norm(place - points, axis=-1, keepdims=True)
    sign = np.where(inside(points, triangles), -1, 1)[:, None]
    return np.concatenate([canonical, sign * gap, (place - points) / np.maximum(gap, 1e-6), visible[face]], 1)


def nearest_face(points, stored, triangles):
    "By brute force; where faces meet, the one the data set names, if none is nearer."
    weight = on_triangle(points[:, None], *(triangles[None, :, k] for k in range(3)))
    gaps = np.linalg.norm((weight[..., None] * triangles[None]).sum(2) - points[:, None], axis=-1)
    tied = gaps[np.arange(len(points)), stored] < gaps.min(1) + 1e-6
    return np.where(tied, stored, gaps.argmin(1))


# The loss -----------------------------------------------------------------------------------------------------------


def reference(model, batch, step, faces, rest, use_mask=False, search=False):
    """Unweighted losses by name. With `search`, the nearest face of a point that has moved is looked for anew;
    else it is that of the point, as in the product."""
    o, weights = (
        model.options,
        {name: {k: v.detach().double() for k, v in part.state_dict().items()} for name, part in model.named_children()},
    )
    data = {k: v.double() for k, v in batch.items()}
    back_true = data["back_nrm_img"] * torch.tensor([1.0, 1.0, -1.0]).view(3, 1, 1)
    true = dict(front=data["front_nrm_img"], back=back_true)
    maps, parts = true, {}
    if step != 2:
        maps = {
            side: predictor(weights["nrm_encoder"], data[f"{side}_rgb_img"], o.nrm_downsamplings, o.nrm_blocks)
            for side in true
        }

        def area(side):
            return data[f"{side}_mask"] if use_mask else torch.ones_like(data[f"{side}_mask"])

        parts["2D"] = sum(float(((maps[side] - true[side]).abs() * area(side)).mean()) for side in true)
        if step == 1:
            return parts
        if o.mask_pred_nrm:
            maps = {side: maps[side] * data[f"{side}_mask"] for side in maps}

    def groups(width):
        return min(32, width // 8)

    geometry = torch.cat(
        [
            encoder(
                weights["image_encoder"],
                torch.cat([data[f"{side}_rgb_img"], maps[side]], 1),
                groups(o.encoder_channels),
            )
            for side in maps
        ],
        1,
    ).numpy()
    colour = torch.cat(
        [encoder(weights["high_res_encoder"], data[f"{side}_rgb_img"], groups(o.color_channels)) for side in maps], 1
    ).numpy()
    errors = dict(sdf=[], rgb=[], nrm=[])
    for i, points in enumerate(data["pts"].numpy()):
        triangles = data["smpl_v"][i].numpy()[faces]
        face = nearest_face(points, batch["body_face"][i].numpy(), triangles)

        def features(at):
            own = nearest_face(at, face, triangles) if search else face  # noqa: B023 (called at once)
            return body_features(at, own, triangles, rest[faces], data["vis_class"][i].numpy())  # noqa: B023 (called at once)

        def sdf(at):
            return field(
                weights["sdf_decoder"], np.concatenate([under(geometry[i], at), features(at)], 1), o.num_layers, o.skip  # noqa: B023 (called at once)
            )

        rgb = field(
            weights["rgb_decoder"],
            np.concatenate([under(colour[i], points), features(points)], 1),
            o.rgb_num_layers,
            o.rgb_skip,
        )
        here = sdf(points)
        slope = np.concatenate([sdf(points + 1e-3 * axis) - here for axis in np.eye(3)], 1) / 1e-3
        normal = slope / np.linalg.norm(slope, axis=1, keepdims=True)
        errors["sdf"].append(np.abs(here - data["d"][i].numpy()))
        errors["rgb"].append(np.abs(1 / (1 + np.exp(-rgb)) - data["rgb"][i].numpy()))
        errors["nrm"].append(1 - (normal * data["nrm"][i].numpy()).sum(1))
    return parts | {name: float(np.mean(values)) for name, values in errors.items()}


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return make_balls(tmp_path_factory.mktemp("balls"), "ab")


def fixed(balls, folder, step, **options):
    "A trainer whose networks are not as they begin, where much cancels, and one batch."
    ready = tiny_trainer(balls, folder, step, **OPTIONS | options)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in ready.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return ready, next(ready.batches())[0]


@pytest.mark.parametrize(
    "step, use_mask, masked",
    [(1, False, False), (1, True, False), (2, False, False), (3, False, False), (3, True, True)],
)
def test_the_loss_of_a_step_agrees_with_an_independent_implementation(balls, tmp_path, step, use_mask, masked):
    """To 1e-5 in float64, and for all but the surface normals 1e-8. As trained, in float32, the normals agree to
    1e-4: they are differences over 0.001 of distances with seven digits."""
    ready, batch = fixed(balls, tmp_path, step, use_mask=use_mask, mask_pred_nrm=masked)
    rest = ready.data.canonical.double().numpy()
    expected = reference(ready.model, batch, step, ready.data.body_faces.numpy(), rest, use_mask)
    lambdas = dict(sdf=10, rgb=1, nrm=1) | {"2D": 1}
    total = sum(lambdas[name] * value for name, value in expected.items())
    with torch.no_grad():
        single = compute_losses(ready.model, batch, ready.cfg, step, ready.template)
    assert set(single) == set(expected) == {1: {"2D"}, 2: {"sdf", "rgb", "nrm"}, 3: {"sdf", "rgb", "nrm", "2D"}}[step]
    for name, value in expected.items():
        assert abs(float(single[name]) - value) < (1e-4 if name == "nrm" else 1e-5), (name, float(single[name]), value)
    wide = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    shared = ready.template and ready.template._replace(canonical=ready.template.canonical.double())
    with torch.no_grad():
        double = compute_losses(ready.model.double(), wide, ready.cfg, step, shared)
    for name, value in expected.items():
        assert abs(float(double[name]) - value) < (1e-5 if name == "nrm" else 1e-8), (name, float(double[name]), value)
    assert abs(float(total_loss(double, ready.cfg)) - total) < 1e-5


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_gradient_of_each_network_is_the_slope_of_the_loss(balls, tmp_path, step):
    """Along a random direction in the weights of one network at a time, by central differences in float64.

    The step is small, so that no ReLU and no nearest face changes within it."""
    ready, batch = fixed(balls, tmp_path, step)
    model, shared = (
        ready.model.double(),
        ready.template and ready.template._replace(canonical=ready.template.canonical.double()),
    )
    wide = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}

    def value():
        return total_loss(compute_losses(model, wide, ready.cfg, step, shared), ready.cfg)

    model.zero_grad()
    value().backward()
    generator = torch.Generator().manual_seed(1)
    for group in ready.optim.optimizer.param_groups:
        way = [
            torch.randn(p.shape, generator=generator, dtype=torch.float64) * p.detach().abs().mean()
            for p in group["params"]
        ]
        slope = sum((p.grad * w).sum().item() for p, w in zip(group["params"], way))

        def moved(by):
            with torch.no_grad():
                for p, w in zip(group["params"], way):  # noqa: B023 (called at once)
                    p.add_(w, alpha=by)
                return value().item()

        far, near = moved(1e-8), moved(-2e-8)
        moved(1e-8)
        assert abs((far - near) / 2e-8 - slope) < 1e-3 * abs(slope) + 1e-6, (group["name"], (far - near) / 2e-8, slope)


def test_gradients_of_the_fields_pass_gradcheck(balls, tmp_path):
    "Distances, colours and normals as functions of the feature maps that they look up."
    ready, batch = fixed(balls, tmp_path, 2, num_samples=3)
    from recon.nets.body import Body
    from recon.nets.model import Encoded, find_nearest

    model = ready.model.double().requires_grad_(False)
    wide = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    body = Body(wide["smpl_v"], ready.template.faces, ready.template.canonical.double(), wide["vis_class"])
    nearest, points = find_nearest(wide, body), wide["pts"]
    maps = [
        torch.randn(
            len(points), 8, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(k), requires_grad=True
        )
        for k in range(2)
    ]

    def fields(geometry, colour):
        seen = Encoded(geometry, colour, None)
        distance = model.sdf(seen, points, nearest, body)
        return distance, model.rgb(seen, points, nearest, body), model.normals(seen, points, nearest, body, distance)

    assert torch.autograd.gradcheck(fields, maps, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_normals_hardly_depend_on_keeping_the_nearest_face(balls, tmp_path):
    """The product looks for a moved point's nearest place on the face of the point itself. An implementation that
    searches all faces again, by brute force, gives another normal only where a face ends within the step of 0.001: the
    loss stays the same to a hundredth, and distances and colours do not change at all."""
    ready, batch = fixed(balls, tmp_path, 2)
    wide = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    template = ready.template._replace(canonical=ready.template.canonical.double())
    with torch.no_grad():
        found = compute_losses(ready.model.double(), wide, ready.cfg, 2, template)
    searched = reference(
        ready.model, batch, 2, ready.data.body_faces.numpy(), ready.data.canonical.double().numpy(), search=True
    )
    assert abs(float(found["nrm"]) - searched["nrm"]) < 1e-2 * searched["nrm"], (float(found["nrm"]), searched["nrm"])
    assert abs(float(found["nrm"]) - searched["nrm"]) > 0, "no face ends anywhere near: this test shows nothing"
    for name in ("sdf", "rgb"):
        assert abs(float(found[name]) - searched[name]) < 1e-8


@pytest.mark.parametrize("side, towards", [("front", 1), ("back", -1)])
def test_surface_points_have_the_colour_under_them_as_training_looks_it_up(tmp_path, side, towards):
    """With the networks' own lookup (corners on the corners), points of the visible surface find their colours;
    moved by one pixel in any direction they find them less well."""
    from recon.data.reader import ReconDataset
    from recon.nets.features import pixel_features

    data = ReconDataset(make_balls(tmp_path, "a", size=128, points=4000), 128, 4000)
    item = data.read("a", 0, 1)
    seen = (item["d"][:, 0].abs() < 2e-3) & (item["nrm"][:, 2] * towards > 0.6)
    points, colours = item["pts"][seen], item["rgb"][seen]

    def error(dx, dy):
        shift = torch.tensor([dx, dy, 0.0]) * 2 / 128
        under = pixel_features(item[f"{side}_rgb_img"][None], (points + shift)[None])[0]
        return float((under / 2 + 0.5 - colours).abs().mean())

    here = error(0, 0)
    around = [error(dx, dy) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    assert seen.sum() > 200 and here < 0.01 and 1.5 * here < min(around), (here, around)
