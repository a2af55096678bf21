"""The photometric stages: first-order refinement of all parameters against the pictures, with geometry kept in play.

By default the texture is not optimised: it is baked from the pictures at the current geometry and smoothed inside each
region of the head, so that what pulls is where regions (lips, lids, brows, skin, hair) begin and end, and a texture
cannot explain a misalignment away. A residual texture and static offsets are optimised as well where they have a step
size. Random replacement of colours by region acts before antialiasing, as in VHAP.

One step: the head model once (`GeometryStep`), then its vertices through all views in chunks whose gradients add up,
then back through the head model, then Adam.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from flame_fitting.fit.adam import Adam
from flame_fitting.fit.geometry_step import GeometryStep, GeometryWeights
from flame_fitting.fit.losses.photometric import (
    ColorPools,
    add_total_variation,
    color_pools,
    kernels,
    picture_loss,
    root_with_slopes,
)
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.parametric import PriorWeights
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.rendering import HeadRenderer
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.texture import bake, complete, region_smoothed
from flame_fitting.fit.views import ViewSet
from flame_fitting.fusion import reference_only
from flame_fitting.head.model import HeadModel
from flame_fitting.render.culling import local_triangle_ids
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.texturing import TexelMap


@dataclass
class PhotometricWeights:
    """Balance of the photometric stages; every term is a mean, so weights do not depend on views or resolution."""

    photo: float = 100.0
    """Photometric L1 in sRGB."""
    silhouette: float = 10.0
    """Area of the head outside the avatar, and of bare skin not covered by the head."""
    texture_variation: float = 100.0
    """Squared differences of neighbouring texels, where the texture is optimised."""
    geometry: GeometryWeights = field(default_factory=GeometryWeights)
    """Terms that look at vertices and parameters alone."""


@dataclass
class PhotometricConfig:
    """One photometric stage."""

    steps: int = 40
    """Adam steps."""
    views_per_step: int = 8
    """Pictures drawn in one step."""
    downsample: tuple[int, ...] = (2,)
    """Whole factors by which pictures are reduced, coarse to fine, for equal shares of the steps."""
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
    pool_every: int = 10
    """Steps between two drawings of the colour pools."""
    fused_from: int = 300
    """On a GPU, steps of one size from which fused kernels and CUDA graphs pay: compiling and capturing them takes
    seconds in a new process, and a step saves two milliseconds."""
    pixels_per_chunk: int = 2**24
    """Pixels that are drawn at once (about 250 bytes each); more views are taken in chunks that add up."""
    lr: tuple[tuple[str, float], ...] = (
        ("shape", 4e-3),
        ("expr", 4e-3),
        ("neck_pose", 5e-4),
        ("jaw_pose", 5e-4),
        ("eyes_pose", 2e-3),
        ("placement", 1e-4),
    )
    """Adam's step size of each parameter that moves: fields of `FitParameters`, and `texture`."""

    @property
    def is_long(self) -> bool:
        """Whether fused kernels and graphs pay."""
        return self.steps // len(self.downsample) >= self.fused_from


CLUSTERS = ("skin", "scalp", "neck", "ears", "lips_tight", "eyelids", "sclerae", "irises", "lip_inside", "teeth")
"""Regions with an appearance of their own; later ones overwrite earlier ones."""


NO_CLUSTER = len(CLUSTERS) + 1
"""Number of triangles in none of them; the background is 0."""


def cluster_table(head: HeadModel) -> Tensor:
    """(F,) cluster of each triangle, from 1; `NO_CLUSTER` for triangles in none."""
    out = torch.full((head.faces.shape[0],), NO_CLUSTER, dtype=torch.long, device=head.faces.device)
    for number, name in enumerate(CLUSTERS, start=1):
        out[head.face_mask(name)] = number
    return out


class PhotometricStep:
    """The state of one photometric stage: everything constant on the device, and Adam.

    A step is three parts around the rasterizer: `project` (head model, losses without pictures), `look` (pictures, for
    each chunk of views) and `update` (back through the head model, Adam). None of them waits for the device, so each
    can be a CUDA graph (`GraphedStep`).
    """

    def __init__(
        self,
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
    ) -> None:
        device = rasterizer.device
        self.rasterizer, self.weights, self.config, self.texels = rasterizer, weights, config, texels
        self.levels = [views.downsampled(factor) for factor in config.downsample]
        clusters = cluster_table(head)
        labels = torch.where(texels.covered, clusters[texels.face.clamp_min(0)], -1)
        self._labels = torch.where(labels == NO_CLUSTER, -1, labels)
        self.renderer = HeadRenderer(rasterizer, head, clusters)
        rates = dict(config.lr)
        self.geometry = GeometryStep(head, parameters, targets, views, surface, prior, weights.geometry, rates)
        size = texels.face.shape[0]
        self.base = torch.zeros(1, size, size, 3, device=device)
        """(1, R, R, 3): baked."""
        self.residual = torch.zeros_like(self.base) if rates.get("texture") else None
        """What is optimised on top of it."""
        self._texture_slope = torch.zeros_like(self.base) if self.residual is not None else None
        # values are in units of their step sizes, which may be small: eps must be smaller still
        moving = [(self.geometry.values, 1.0, 1e-15)]
        if self.residual is not None:
            moving.append((self.residual, rates["texture"], 1e-8))
        self.optimizer = Adam(moving)
        self.pools = ColorPools(
            torch.zeros(NO_CLUSTER, 4096, 3, device=device),
            torch.zeros(NO_CLUSTER + 1, dtype=torch.int32, device=device),
        )
        self._count = torch.ones((), device=device)
        self._pools_level = -1
        self._generator = torch.Generator(device).manual_seed(seed)
        self._seed = torch.full((), 1_000_003 * (seed % 1000), dtype=torch.int32, device=device)
        self._order_generator = torch.Generator().manual_seed(seed)
        self._order: list[int] = []
        self._graphed: dict[int, GraphedStep] = {}

    def __call__(self, step: int) -> Tensor:
        """One step of Adam; returns the loss, on the device."""
        config = self.config
        if step % config.rebake == 0:
            self.bake(step)
        level = self.level(step)
        if step % config.pool_every == 0 or level != self._pools_level:
            self.draw_pools(step)
        views, chosen = self.levels[level], self.choose_views(step)
        if chosen is None and step > 1 and self._graph_pays():
            if level not in self._graphed:
                self._graphed[level] = GraphedStep(self, views)
            return self._graphed[level]()
        pos, front, loss = self.project()
        slope, total = torch.zeros_like(pos), loss.detach().clone()
        for part in self.parts(views) if chosen is None else chosen.split(self.chunk(views)):
            leaf = pos.detach()[part].requires_grad_()
            rast, rast_db = self.rasterize(leaf, front[part], views.resolution)
            value, rast_slope, rast_db_slope, pos_slope = self.look(rast, rast_db, leaf, views.rgba[part])
            root_with_slopes([rast, rast_db], [rast_slope, rast_db_slope]).backward()
            assert leaf.grad is not None
            slope[part] = leaf.grad + pos_slope
            total += value
        return total + self.update(pos, loss, slope)

    def level(self, step: int) -> int:
        """Which of the sizes of the pictures a step looks at: coarse to fine."""
        return min(step * len(self.levels) // max(self.config.steps, 1), len(self.levels) - 1)

    def chunk(self, views: ViewSet) -> int:
        """How many views are drawn at once: as equal parts as memory allows."""
        count = min(self.config.views_per_step, len(views.views))
        most = max(1, self.config.pixels_per_chunk // (views.resolution[0] * views.resolution[1]))
        return -(-count // -(-count // most))

    def parts(self, views: ViewSet) -> list[slice]:
        """All views in chunks."""
        size, total = self.chunk(views), len(views.views)
        return [slice(start, min(start + size, total)) for start in range(0, total, size)]

    def project(self) -> tuple[Tensor, Tensor, Tensor]:
        """Clip-space vertices of all views (B, V, 4), which faces face each camera, the loss without pictures."""
        return self.geometry()

    def rasterize(self, pos: Tensor, front: Tensor, resolution: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Which triangle is where; the one operation that waits for the device."""
        return self.rasterizer.rasterize(pos, self.renderer.faces, resolution, front)

    def look(self, rast: Tensor, rast_db: Tensor, pos: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss of a chunk of pictures and its slopes for rast, rast_db and pos; the texture's slope is added up."""
        texture = self.current_texture().requires_grad_(self.residual is not None)
        rast, rast_db, pos = leaves = [tensor.detach().requires_grad_() for tensor in (rast, rast_db, pos)]
        painted = self.renderer.shade(rast, rast_db, pos, texture, target, self.pools, self._seed).painted
        value, slope = picture_loss(painted, target, self._count, self.weights.photo, self.weights.silhouette)
        root = root_with_slopes([painted], [slope])
        if self._texture_slope is not None:
            *slopes, of_texture = torch.autograd.grad(root, [*leaves, texture])
            self._texture_slope += of_texture
        else:
            slopes = list(torch.autograd.grad(root, leaves))
        self._seed += 1
        return value, slopes[0], slopes[1], slopes[2]

    def update(self, pos: Tensor, loss: Tensor, slope: Tensor) -> Tensor:
        """Back through the head model from the slope of `pos`, then Adam; returns the loss of the texture alone."""
        root = root_with_slopes([pos], [slope])
        if loss.requires_grad:
            root = root + loss
        (gradient,) = torch.autograd.grad(root, self.geometry.values)
        gradients, value = [gradient], torch.zeros((), device=slope.device)
        if self._texture_slope is not None:
            rough = self.weights.texture_variation
            value = add_total_variation(self.current_texture()[0], rough, self._texture_slope[0])
            gradients.append(self._texture_slope)
        self.optimizer.step(gradients)
        self.geometry.keep_possible()
        if self._texture_slope is not None:
            self._texture_slope.zero_()
        return value

    @torch.no_grad()
    def bake(self, step: int) -> None:
        """Texture and correspondences anew from where the head is now."""
        views, texels = self.levels[self.level(step)], self.texels
        vertices = self.geometry.vertices()
        baked = bake(self.rasterizer, self.geometry.head, vertices[0], views, texels)
        filled = complete(baked, self.geometry.head, texels)
        sigma = self.config.smooth * texels.face.shape[0]
        self.base[0] = region_smoothed(filled, baked.weight, self._labels, sigma)
        self.geometry.find_correspondences(vertices)

    @torch.no_grad()
    def draw_pools(self, step: int) -> None:
        """Colour pools of all views together, from pictures of a quarter of the size."""
        self._pools_level = self.level(step)
        views, config = self.levels[self._pools_level], self.config
        height, width = views.resolution
        small = (max(height // 4, 1), max(width // 4, 1))
        pos = self.geometry.positions()
        rows = torch.arange(small[0], device=pos.device) * height // small[0]
        cols = torch.arange(small[1], device=pos.device) * width // small[1]
        background = views.rgba[:, rows][:, :, cols]
        drawn = self.renderer.draw(pos, small, self.current_texture(), background, antialias=False)
        assert self.renderer.clusters is not None
        pools = color_pools(
            self.renderer.clusters[drawn.triangle.long()],
            drawn.painted[..., :3],
            NO_CLUSTER,
            config.disturb_rate_fg,
            config.disturb_rate_bg,
            self._generator,
            self.pools.colors.shape[1],
        )
        self.pools.colors.copy_(pools.colors)
        self.pools.thresholds.copy_(pools.thresholds)
        share = min(config.views_per_step, len(views.views)) / len(views.views)
        pixels = height * width / (small[0] * small[1])
        self._count.copy_(((drawn.triangle > 0).sum() * (share * pixels)).clamp_min(1.0))

    def current_texture(self) -> Tensor:
        """(1, R, R, 3) as drawn."""
        return self.base.detach() if self.residual is None else self.base + self.residual

    def choose_views(self, step: int) -> Tensor | None:
        """Rows of the views of this step, None for all; every view comes round before one comes again."""
        total, wanted = len(self.levels[self.level(step)].views), self.config.views_per_step
        if wanted >= total:
            return None
        if len(self._order) < wanted:
            self._order += torch.randperm(total, generator=self._order_generator).tolist()
        chosen, self._order = self._order[:wanted], self._order[wanted:]
        return torch.tensor(chosen, device=self.rasterizer.device)

    def _graph_pays(self) -> bool:
        """Whether enough steps share a graph to make up for capturing it, and the device can."""
        return kernels(self.base) is not None and self.config.is_long


class GraphedStep:
    """A step of all views with its three parts as CUDA graphs: hundreds of small kernels in a few launches."""

    def __init__(self, step: PhotometricStep, views: ViewSet) -> None:
        self._views = views
        self._parts = step.parts(views)
        sizes = {part.stop - part.start for part in self._parts}
        with torch.cuda.device(step.rasterizer.device):  # graphs are captured on the current device's streams
            self._pool = torch.cuda.graph_pool_handle()
            torch.cuda.synchronize()
            self._project, self._update = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._project, pool=self._pool):
                self._pos, self._front, self._loss = step.project()
            self._slope = torch.zeros_like(self._pos)
            self._looks = {size: _GraphedLook(self, step, size) for size in sizes}
            with torch.cuda.graph(self._update, pool=self._pool):
                self._texture_loss = step.update(self._pos, self._loss, self._slope)

    def __call__(self) -> Tensor:
        """One step; returns the loss, on the device."""
        self._project.replay()
        total = self._loss.detach().clone()
        for part in self._parts:
            look = self._looks[part.stop - part.start]
            total += look(self._pos[part], self._front[part], self._views.rgba[part], self._slope[part])
        self._update.replay()
        return total + self._texture_loss


class _GraphedLook:
    """`PhotometricStep.look` for a number of views."""

    def __init__(self, owner: GraphedStep, step: PhotometricStep, count: int) -> None:
        views = owner._views
        self._rasterizer: Any = step.rasterizer  # a CudaRasterizer; its module needs nvdiffrast
        self._faces = step.renderer.faces
        device, (height, width) = step.rasterizer.device, views.resolution
        self._rast = torch.zeros(count, height, width, 4, device=device)
        self._rast_db = torch.zeros_like(self._rast)
        self._pos = torch.zeros_like(owner._pos[:count])
        self._target = torch.zeros_like(views.rgba[:count])
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=owner._pool):
            self._value, *self._slopes = step.look(self._rast, self._rast_db, self._pos, self._target)

    def __call__(self, pos: Tensor, front: Tensor, target: Tensor, slope: Tensor) -> Tensor:
        """Draws a chunk of views; writes the slope of `pos` and returns the loss."""
        faces = self._faces
        self._pos.copy_(pos.detach())
        self._target.copy_(target)
        leaf = pos.detach().requires_grad_()
        # from here to the replay the device waits for the host: nothing that can be done before or after it
        rast, rast_db = self._rasterizer.rasterize_shared(leaf, faces, tuple(self._rast.shape[1:3]), front)
        local_triangle_ids(rast, len(faces), out=self._rast)
        self._rast_db.copy_(rast_db.detach())
        self._graph.replay()
        root_with_slopes([rast, rast_db], self._slopes[:2]).backward()
        assert leaf.grad is not None
        torch.add(leaf.grad, self._slopes[2], out=slope)
        return self._value


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
    report: Callable[[int, float | None], None] | None = None,
    report_every: int = 10,
) -> FitParameters:
    """Adam on pictures, silhouette, landmarks, geometry and priors; all on the rasterizer's device, float32 inside.

    Light needs no model here: it stands still in the head's frame and shading is diffuse, so it is part of the texture.
    `report` gets every step, and the loss every `report_every` steps: reading it waits for the device.
    """
    step = PhotometricStep(rasterizer, head, parameters, targets, views, surface, prior, weights, config, texels, seed)
    if not step.geometry.values.numel():  # all step sizes are 0
        return parameters.clone()
    values = step.geometry.values.detach()
    averaged, averaged_from = torch.zeros_like(values), int(config.steps * 0.7)
    with nullcontext() if config.is_long else reference_only():
        for number in range(config.steps):
            step.optimizer.set_factor(0.5 + 0.5 * math.cos(math.pi * number / config.steps))
            loss = step(number)
            if number >= averaged_from:  # the perturbation is noise; the mean of the last iterates is steadier
                averaged += values
            if report is not None:
                report(number, float(loss) if number % report_every == 0 else None)
    count = max(config.steps - averaged_from, 1)
    moved = step.geometry.moved(averaged / count)
    found = {name: value.to(getattr(parameters, name)) for name, value in moved.items()}
    return replace(parameters, **found).clone()
