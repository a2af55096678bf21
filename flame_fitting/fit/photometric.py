"""The photometric stages: first-order refinement of all parameters against the pictures, with geometry kept in play.

By default the texture is not optimised: it is baked from the pictures at the current geometry and smoothed inside each
region of the head, so that what pulls is where regions (lips, lids, brows, skin, hair) begin and end, and a texture
cannot explain a misalignment away. A residual texture and static offsets are optimised as well where they have a step
size. Random replacement of colours by region acts before antialiasing, as in VHAP.

One step: the head model once (`GeometryStep`, on a GPU one CUDA graph), then its vertices through all views in chunks
whose gradients add up, then back through the head model, then Adam.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from flame_fitting.fit.geometry_step import GeometryStep, GeometryWeights
from flame_fitting.fit.losses.photometric import ColorPools, color_pools, picture_loss, total_variation
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.parametric import PriorWeights
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.rendering import HeadRenderer
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.texture import bake, complete, region_smoothed
from flame_fitting.fit.views import ViewSet
from flame_fitting.head.model import HeadModel
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


CLUSTERS = ("skin", "scalp", "neck", "ears", "lips_tight", "eyelids", "sclerae", "irises", "lip_inside", "teeth")
"""Regions with an appearance of their own; later ones overwrite earlier ones."""


def cluster_table(head: HeadModel) -> Tensor:
    """(F,) cluster of each triangle, from 1; -1 for triangles in none."""
    out = torch.full((head.faces.shape[0],), -1, dtype=torch.long, device=head.faces.device)
    for number, name in enumerate(CLUSTERS, start=1):
        out[head.face_mask(name)] = number
    return out


class PhotometricStep:
    """The state of one photometric stage: everything constant on the device, and Adam."""

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
        self._labels = torch.where(texels.covered, clusters[texels.face.clamp_min(0)], -1)
        self.renderer = HeadRenderer(rasterizer, head, clusters)
        rates = dict(config.lr)
        self.geometry = GeometryStep(head, parameters, targets, views, surface, prior, weights.geometry, rates)
        self.texture = torch.zeros(1, 1, 1, 3, device=device)
        """(1, R, R, 3): baked."""
        size = texels.face.shape[0]
        self.residual: Tensor | None = None
        # values are in units of their step sizes, which may be small: eps must be smaller still
        groups = [{"params": [self.geometry.values], "lr": 1.0, "eps": 1e-15}]
        if "texture" in rates:
            self.residual = torch.zeros(1, size, size, 3, device=device, requires_grad=True)
            groups.append({"params": [self.residual], "lr": rates["texture"]})
        self.optimizer = torch.optim.Adam(groups, fused=device.type == "cuda")
        self._generator = torch.Generator(device).manual_seed(seed)
        self._order_generator = torch.Generator().manual_seed(seed)
        self._order: list[int] = []
        self._pools: ColorPools | None = None
        self._count = torch.ones((), device=device)

    def level(self, step: int) -> ViewSet:
        """The pictures for a step: coarse to fine."""
        share = step * len(self.levels) // max(self.config.steps, 1)
        return self.levels[min(share, len(self.levels) - 1)]

    def bake(self, step: int) -> None:
        """Texture and correspondences anew from where the head is now."""
        views, texels = self.level(step), self.texels
        with torch.no_grad():
            vertices = self.geometry.vertices()
            baked = bake(self.rasterizer, self.geometry.head, vertices[0], views, texels)
            filled = complete(baked, self.geometry.head, texels)
            sigma = self.config.smooth * texels.face.shape[0]
            self.texture = region_smoothed(filled, baked.weight, self._labels, sigma)[None].contiguous()
            self.geometry.find_correspondences(vertices)

    def draw_pools(self, step: int) -> None:
        """Colour pools of all views together, from pictures of a quarter of the size."""
        views, config = self.level(step), self.config
        height, width = views.resolution
        small = (max(height // 4, 1), max(width // 4, 1))
        with torch.no_grad():
            pos = self.geometry.positions()
            rows = torch.arange(small[0], device=pos.device) * height // small[0]
            cols = torch.arange(small[1], device=pos.device) * width // small[1]
            background = views.rgba[:, rows][:, :, cols]
            drawn = self.renderer.draw(pos, small, self.current_texture(), background, antialias=False)
            assert drawn.cluster is not None
            self._pools = color_pools(
                drawn.cluster,
                drawn.painted[..., :3],
                len(CLUSTERS) + 1,
                config.disturb_rate_fg,
                config.disturb_rate_bg,
                self._generator,
            )
            share = min(config.views_per_step, len(views.views)) / len(views.views)
            pixels = height * width / (small[0] * small[1])
            self._count = (drawn.drawn.sum() * (share * pixels)).clamp_min(1.0)

    def current_texture(self) -> Tensor:
        """(1, R, R, 3) as drawn."""
        return self.texture if self.residual is None else self.texture + self.residual

    def choose_views(self, step: int) -> Tensor | None:
        """Rows of the views of this step, None for all; every view comes round before one comes again."""
        total, wanted = len(self.level(step).views), self.config.views_per_step
        if wanted >= total:
            return None
        if len(self._order) < wanted:
            self._order += torch.randperm(total, generator=self._order_generator).tolist()
        chosen, self._order = self._order[:wanted], self._order[wanted:]
        return torch.tensor(chosen, device=self.rasterizer.device)

    def __call__(self, step: int, with_value: bool = False) -> Tensor:
        """One step of Adam; returns the loss, on the device; that of pictures only `with_value`."""
        config = self.config
        if step % config.rebake == 0:
            self.bake(step)
        if self._pools is None or step % config.pool_every == 0:
            self.draw_pools(step)
        loss = self.gradients(step, with_value)
        self.optimizer.step()
        self.geometry.keep_possible()
        return loss

    def gradients(self, step: int, with_value: bool = True) -> Tensor:
        """Loss and gradients of all terms at the current parameters."""
        views = self.level(step)
        self.optimizer.zero_grad(set_to_none=True)
        pos, front, loss = self.geometry()
        chosen = self.choose_views(step)
        shown, front = (pos, front) if chosen is None else (pos.index_select(0, chosen), front[chosen])
        leaf = shown.detach().requires_grad_()
        texture = self.current_texture()
        shared = texture.detach().requires_grad_(texture.requires_grad)
        height, width = views.resolution
        size = max(1, self.config.pixels_per_chunk // (height * width))
        total = torch.zeros((), device=leaf.device)
        for start in range(0, len(leaf), size):
            part = slice(start, start + size)
            target = views.rgba[part if chosen is None else chosen[part]]
            painted = self.renderer.draw(
                leaf[part], (height, width), shared, target, front[part], self._pools, self._generator
            ).painted
            weights = (self.weights.photo, self.weights.silhouette)
            value, slope = picture_loss(painted, target, self._count, *weights, with_value)
            painted.backward(slope)
            total += value
        roots: list[tuple[Tensor, Tensor | None]] = [(shown, leaf.grad), (loss, None)]
        if texture.requires_grad:
            variation = self.weights.texture_variation * total_variation(texture[0])
            roots += [(texture, shared.grad), (variation, None)]
            total += variation.detach()
        roots = [root for root in roots if root[0].requires_grad]  # a loss of nothing that moves has no gradient
        torch.autograd.backward([tensor for tensor, _ in roots], [slope for _, slope in roots])
        return total + loss.detach()


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
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(step.optimizer, max(config.steps, 1), eta_min=0.0)
    values = step.geometry.values
    averaged, averaged_from = torch.zeros_like(values), int(config.steps * 0.7)
    for number in range(config.steps):
        shown = report is not None and number % report_every == 0
        loss = step(number, with_value=shown)
        schedule.step()
        if number >= averaged_from:  # the perturbation is noise; the mean of the last iterates is steadier
            averaged += values.detach()
        if report is not None:
            report(number, float(loss) if shown else None)
    count = max(config.steps - averaged_from, 1)
    moved = step.geometry.moved(averaged / count)
    found = {name: value.to(getattr(parameters, name)) for name, value in moved.items()}
    return replace(parameters, **found).clone()
