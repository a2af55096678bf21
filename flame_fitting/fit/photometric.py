"""The photometric stages: first-order refinement of all parameters against the pictures, with geometry kept in play.

The texture is not optimised: it is baked from the pictures at the current geometry and smoothed inside each region of
the head, so that what pulls is where regions (lips, lids, brows, skin, hair) begin and end, and a texture cannot
explain a misalignment away. Random replacement of colours by region acts before antialiasing, as in VHAP.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flame_fitting.fit.losses.photometric import perturb_by_region, photometric_l1
from flame_fitting.fit.losses.robust import geman_mcclure
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.parametric import PriorWeights
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.texture import bake, complete, region_smoothed
from flame_fitting.fit.views import ViewSet
from flame_fitting.head.model import HeadModel
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.mesh import clip_positions
from flame_fitting.render.shading import vertex_normals
from flame_fitting.render.texturing import TexelMap, uv_to_texture
from flame_fitting.render.winding import front_faces


@dataclass
class PhotometricWeights:
    """Balance of the photometric stages; every term is a mean, so weights do not depend on views or resolution."""

    photo: float = 100.0
    """Photometric L1 in sRGB."""
    silhouette: float = 10.0
    """Area of the head outside the avatar, and of bare skin not covered by the head."""
    landmark: float = 1.0
    """Landmarks, in squared standard deviations."""
    surface: float = 30.0
    """Point-to-plane distance to the avatar, in squared millimetres."""
    prior: float = 0.02
    """Gaussian priors of shape, expression and joints, in squared standard deviations."""


@dataclass
class PhotometricConfig:
    """One photometric stage."""

    steps: int = 40
    """Adam steps."""
    views_per_step: int = 8
    """Pictures drawn in one step."""
    downsample: int = 2
    """Whole factor by which pictures are reduced."""
    rebake: int = 25
    """Steps between two bakes of the texture and two searches of correspondences."""
    texture_resolution: int = 512
    """Texels along an edge of the texture used while optimising."""
    smooth: float = 0.03
    """Blur inside a region, as a share of the texture's edge."""
    disturb_rate_fg: float = 0.5
    """Share of the head's pixels whose colour is drawn at random from the same region."""
    disturb_rate_bg: float = 0.5
    """The same for the background."""
    lr: tuple[tuple[str, float], ...] = (
        ("shape", 4e-3),
        ("expr", 4e-3),
        ("neck_pose", 5e-4),
        ("jaw_pose", 5e-4),
        ("eyes_pose", 2e-3),
        ("placement", 1e-4),
    )
    """Adam's step size of each parameter that moves."""


def render_head(
    rasterizer: Rasterizer,
    head: HeadModel,
    vertices: Tensor,
    views: ViewSet,
    texture: Tensor,
    background: Tensor,
    topology: object,
    cluster_of_face: Tensor | None = None,
    disturb: Callable[[Tensor, Tensor], Tensor] | None = None,
    mipmap: bool = True,
) -> dict[str, Tensor]:
    """Draws the posed head (1 or B, V, 3) over `background` (B, H, W, 3) with `texture` (1, R, R, 3).

    Returns color (B, H, W, 3), alpha (B, H, W), rast and cluster (B, H, W). Back faces are culled.
    """
    points = vertices.float().expand(len(views.views), -1, -1)
    pos = clip_positions(points, views.clip).contiguous()
    faces, uv_faces = head.faces.int(), head.uv_faces.int()
    rast, rast_db = rasterizer.rasterize(pos, faces, views.resolution, front_faces(pos, faces))
    uv = uv_to_texture(head.uv.float())[None].contiguous()
    at, at_da = rasterizer.interpolate(uv, rast, uv_faces, rast_db, "all" if mipmap else None)
    levels = int(np.log2(texture.shape[1])) - 2
    color = rasterizer.texture(texture, at, at_da if mipmap else None, max_mip_level=levels if mipmap else None)
    drawn = rast[..., 3:] > 0
    color = torch.where(drawn, color, background)
    cluster = rast[..., 3].long()
    if cluster_of_face is not None:
        cluster = torch.where(drawn[..., 0], cluster_of_face[(cluster - 1).clamp_min(0)], torch.zeros_like(cluster))
        if disturb is not None:
            color = disturb(color, cluster)
    painted = torch.cat([color, drawn.float()], dim=-1).contiguous()
    painted = rasterizer.antialias(painted, rast, pos, faces, topology)
    return {"color": painted[..., :3], "alpha": painted[..., 3], "rast": rast, "cluster": cluster}


CLUSTERS = ("skin", "scalp", "neck", "ears", "lips_tight", "eyelids", "sclerae", "irises", "lip_inside", "teeth")
"""Regions with an appearance of their own; later ones overwrite earlier ones."""


def cluster_table(head: HeadModel) -> Tensor:
    """(F,) cluster of each triangle, from 1; -1 for triangles in none."""
    out = torch.full((head.faces.shape[0],), -1, dtype=torch.long)
    for number, name in enumerate(CLUSTERS, start=1):
        out[head.face_mask(name)] = number
    return out


def refine(
    rasterizer: Rasterizer,
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    views: ViewSet,
    surface: SurfaceWeights,
    prior: PriorWeights,
    weights: PhotometricWeights,
    config: PhotometricConfig,
    texels: TexelMap,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> FitParameters:
    """Adam on pictures, silhouette, landmarks, geometry and priors. `head` and `parameters` are double precision.

    Light needs no model here: it stands still in the head's frame and shading is diffuse, so it is part of the texture.
    """
    views = views.downsampled(config.downsample)
    generator = torch.Generator().manual_seed(seed)
    clusters = cluster_table(head)
    labels = torch.where(texels.covered, clusters[texels.face.clamp_min(0)], torch.full_like(texels.face, -1))
    topology = rasterizer.topology(head.faces.int())
    moving = {name: getattr(parameters, name).clone().requires_grad_() for name, _ in config.lr}
    optimizer = torch.optim.Adam([{"params": [moving[name]], "lr": lr} for name, lr in config.lr])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps, eta_min=0.0)
    target_images = views.images.permute(0, 2, 3, 1).contiguous()
    order: list[int] = []
    texture = torch.zeros(0)
    planes: list[tuple[Tensor, Tensor, Tensor, Tensor] | None] = []
    averaged: dict[str, Tensor] = {}
    averaged_from = int(config.steps * 0.7)
    for step in range(config.steps):
        now = replace(parameters, **moving)
        vertices = now.vertices(head)
        if step % config.rebake == 0:
            with torch.no_grad():
                baked = bake(rasterizer, head, vertices[0], views, texels)
                filled = complete(baked, head, texels)
                smoothed = region_smoothed(filled, baked.weight, labels, config.smooth * texels.face.shape[0])
                texture = smoothed[None].contiguous()
                planes = [_planes(vertices[t], head, target, surface) for t, target in enumerate(targets)]
        if len(order) < config.views_per_step:
            order += torch.randperm(len(views.views), generator=generator).tolist()
        chosen, order = order[: config.views_per_step], order[config.views_per_step :]
        batch = views.subset(chosen)
        target = target_images[chosen]

        def disturb(color: Tensor, cluster: Tensor, target: Tensor = target) -> Tensor:
            donors = torch.where(cluster[..., None] > 0, color, target)
            return perturb_by_region(color, cluster, donors, config.disturb_rate_fg, config.disturb_rate_bg, generator)

        drawn = render_head(
            rasterizer, head, vertices[batch.timestep], batch, texture, target, topology, clusters, disturb
        )
        loss = weights.photo * photometric_l1(drawn["color"], target, (drawn["alpha"].detach() > 0).float())
        outside = (drawn["alpha"] * (1 - batch.alphas)).mean() / batch.alphas.mean()
        loss = loss + weights.silhouette * outside
        for timestep, frame in enumerate(targets):
            marks = frame.landmarks
            if len(marks.index):
                squared = (marks.model_points(vertices[timestep]) - marks.points).square().sum(-1) / marks.sigma**2
                loss = loss + weights.landmark * (marks.weight * geman_mcclure(squared, 4.0)).mean()
            plane = planes[timestep]
            if plane is not None:
                ids, point, normal, weight = plane
                distance = 1000 * ((vertices[timestep][ids] - point) * normal).sum(-1)
                loss = loss + weights.surface * (weight * geman_mcclure(distance.square(), 3.0)).sum() / weight.sum()
        loss = loss + weights.prior * _prior(now, prior)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            if "jaw_pose" in moving:
                moving["jaw_pose"][:, 0].clamp_(min=-0.02)
            if step >= averaged_from:  # the perturbation is noise; the mean of the last iterates is steadier
                for name, value in moving.items():
                    averaged[name] = averaged.get(name, torch.zeros_like(value)) + value.detach()
        if report is not None:
            report(step, float(loss.detach()))
    count = max(config.steps - averaged_from, 1)
    return replace(parameters, **{name: total / count for name, total in averaged.items()}).clone()


def _planes(
    vertices: Tensor, head: HeadModel, target: FrameTarget, surface: SurfaceWeights
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    if target.surface is None:
        return None
    normals = vertex_normals(vertices[None], head.faces)[0]
    active = surface.active
    index, found = target.surface.closest(vertices[active].numpy(), normals[active].numpy(), max_distance=0.008)
    ids, index = active[found], index[found]
    point, normal = torch.as_tensor(target.surface.points[index]), torch.as_tensor(target.surface.normals[index])
    return ids, point.to(vertices), normal.to(vertices), surface.vertex[ids]


def _prior(parameters: FitParameters, prior: PriorWeights) -> Tensor:
    jaw = parameters.jaw_pose / (torch.tensor([1, 1 / 3, 1 / 3]).to(parameters.jaw_pose) * prior.jaw)
    eyes = parameters.eyes_pose
    return (
        (parameters.shape / prior.shape).square().sum()
        + (parameters.expr / prior.expr).square().sum()
        + (parameters.neck_pose / prior.neck).square().sum()
        + jaw.square().sum()
        + (eyes / prior.eyes).square().sum()
        + ((eyes[:, :3] - eyes[:, 3:]) / prior.vergence).square().sum()
    )
