"""The photometric stages: first-order refinement of all parameters against the pictures, with geometry kept in play.

The colours of the head are a base, baked from the pictures at the current geometry, painted or plain, and where it has
a step size a residual that is optimised with the rest. A base that is smoothed inside each region leaves as what pulls
where regions (lips, lids, brows, skin, hair) begin and end, and a texture cannot explain a misalignment away; a base of
full detail that is baked from the other half of the views makes all views agree on one surface. Random replacement of
colours by region acts before antialiasing, as in VHAP.

One step: the head model once (`GeometryStep`), then its vertices through all views in chunks whose gradients add up,
then back through the head model, then Adam.
"""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.fit.adam import Adam
from flame_fitting.fit.backgrounds import contour_colors, far_colors, outline_targets, recomposite
from flame_fitting.fit.config import PriorConfig
from flame_fitting.fit.geometry_step import GeometryStep, GeometryWeights, Projected
from flame_fitting.fit.losses.light import LightingType, diffuse_penalty, lighting
from flame_fitting.fit.losses.photometric import (
    ColorPools,
    color_pools,
    kernels,
    picture_loss,
    root_with_slopes,
)
from flame_fitting.fit.losses.texture import add_residual_penalty, add_total_variation, texel_region_mask
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.rendering import HeadRenderer, Lit
from flame_fitting.fit.sanity import Watch, nothing_drawn_error
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.texture import Bake, TexelMaps, bake, complete, painted, region_smoothed, resized
from flame_fitting.fit.view_order import ViewOrder
from flame_fitting.fit.views import ViewSet
from flame_fitting.fusion import reference_only
from flame_fitting.head.model import HeadModel
from flame_fitting.render.culling import local_triangle_ids
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.shading import ambient_light, vertex_normals

CLUSTERS = ("skin", "scalp", "neck", "ears", "lips_tight", "eyelids", "sclerae", "irises", "lip_inside", "teeth")
"""Regions with an appearance of their own; later ones overwrite earlier ones."""


@dataclass
class PhotometricWeights:
    """Balance of the photometric stages; every term is a mean, so weights do not depend on views or resolution."""

    photo: float = 100.0
    """Photometric L1 in sRGB."""
    silhouette: float = 10.0
    """Area of the head outside the avatar."""
    silhouette_inside: float = 0.0
    """Area of the avatar near its own outline that the head does not cover."""
    texture_variation: float = 1e4
    """Squared differences of neighbouring texels, in texels of 1 / 2048, where the texture is optimised."""
    variation_covered: bool = True
    """The mean of these is over the texels that the views see, not over all."""
    residual: float = 10.0
    """Squared residual texture in the regions `PhotometricConfig.residual_for`."""
    diffuse: float = 100.0
    """Shading that is brighter than 1 or coloured."""
    light: float = 0.0
    """Squared light coefficients beyond ambient."""
    geometry: GeometryWeights = field(default_factory=GeometryWeights)
    """Terms that look at vertices and parameters alone."""


@dataclass
class PhotometricConfig:
    """One photometric stage."""

    steps: int = 40
    """Adam steps."""
    pictures: bool = True
    """Whether pictures are looked at; without them only `PhotometricWeights.geometry` counts."""
    views_per_step: int = 8
    """Pictures drawn in one step."""
    downsample: tuple[int, ...] = (2,)
    """Whole factors by which pictures are reduced, coarse to fine, for equal shares of the steps."""
    texture_sizes: tuple[int, ...] = (512,)
    """Texels along an edge of the texture used while optimising, coarse to fine, for equal shares of the steps."""
    base: Literal["baked", "painted", "neutral"] = "baked"
    """Colours under the residual."""
    rebake: int = 25
    """Steps between two bakes of the base and two searches of correspondences; 0: only before the first step."""
    smooth: float = 0.03
    """Blur of a baked base inside a region, as a share of the texture's edge; 0 keeps all detail."""
    across_views: bool = False
    """Each half of the views is compared with a base that is baked from the other half."""
    disturb_rate_fg: float = 0.5
    """Share of the head's pixels whose colour is drawn at random from the same region."""
    disturb_rate_bg: float = 0.5
    """The same for the background."""
    clusters: tuple[str, ...] = CLUSTERS
    """Regions with an appearance of their own; later ones overwrite earlier ones."""
    pool_every: int = 10
    """Steps between two drawings of the colour pools, and of a far background."""
    background: Literal["target", "white", "black", "far"] = "target"
    """What lies behind the avatar: what the pictures have, a colour, or random colours far from its outline's."""
    outline_band: float = 0.012
    """Width of the band along the avatar's outline in which uncovered avatar pulls, share of a picture's height."""
    texture_except: tuple[str, ...] = ()
    """Regions whose texture and shading move no geometry."""
    boundary_except: tuple[str, ...] = ()
    """Regions whose silhouette moves no geometry."""
    residual_for: tuple[str, ...] = ("sclerae", "teeth")
    """Regions whose residual texture is kept small."""
    cull: bool = True
    """Whether back faces are left out. An avatar's are drawn where its neck is open, and then the head's must be."""
    lighting: LightingType = "constant"
    """Light on the head; `constant` leaves it in the texture, which for a static head under fixed light it is."""
    lighting_space: Literal["world", "camera"] = "world"
    """Where the light stands still: `world` is the reference frame."""
    fused_from: int = 300
    """On a GPU, steps of one size from which fused kernels and CUDA graphs pay: compiling and capturing them takes
    seconds in a new process, and a step saves two milliseconds."""
    pixels_per_chunk: int = 2**24
    """Pixels that are drawn at once (about 250 bytes each); more views are taken in chunks that add up."""
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    """How step sizes fall: not, by half a cosine to 0, or by a tenth each step (one step is an epoch then)."""
    average_last: float = 0.3
    """Share of the last iterates whose mean is the result: the perturbation is noise, a mean is steadier."""
    components: tuple[tuple[str, int], ...] = ()
    """How many of the coefficients move, from the first on: `shape` and `expr`; all where it is not said."""
    lr: tuple[tuple[str, float], ...] = (
        ("shape", 4e-3),
        ("expr", 4e-3),
        ("neck_pose", 5e-4),
        ("jaw_pose", 5e-4),
        ("eyes_pose", 2e-3),
        ("placement", 1e-4),
    )
    """Adam's step size of each parameter that moves: fields of `FitParameters` (`placement` also by its parts, see
    `fit.parameters.PARAMETERS`), `texture` and `lights`."""

    @property
    def is_long(self) -> bool:
        """Whether fused kernels and graphs pay."""
        return self.steps // max(len(self.downsample), len(self.texture_sizes)) >= self.fused_from

    def factor(self, step: int) -> float:
        """Share of the step sizes that a step takes."""
        if self.schedule == "cosine":
            return 0.5 + 0.5 * math.cos(math.pi * step / self.steps)
        return 0.9**step if self.schedule == "exponential" else 1.0


def cluster_table(head: HeadModel, clusters: tuple[str, ...] = CLUSTERS) -> Tensor:
    """(F,) cluster of each triangle, from 1; `len(clusters) + 1` for triangles in none. The background is 0."""
    out = torch.full((head.faces.shape[0],), len(clusters) + 1, dtype=torch.long, device=head.faces.device)
    for number, name in enumerate(clusters, start=1):
        out[head.face_mask(name)] = number
    return out


@dataclass(eq=False)
class Problem:
    """What a photometric stage works on, all on the rasterizer's device."""

    rasterizer: Rasterizer
    head: HeadModel
    parameters: FitParameters
    targets: list[FrameTarget]
    views: ViewSet
    surface: SurfaceWeights
    prior: PriorConfig
    texels: TexelMaps
    residual: Tensor | None = None
    """(R, R, 3) that an earlier stage left."""
    lights: Tensor | None = None
    """(9, 3) that an earlier stage left."""
    name: str = "the capture"
    """What messages call it."""


@dataclass(eq=False)
class Refined:
    """What a photometric stage has found."""

    parameters: FitParameters
    texture: Tensor | None = None
    """(R, R, 3) base and residual; None where no residual was optimised."""
    residual: Tensor | None = None
    """(R, R, 3)."""
    lights: Tensor | None = None
    """(9, 3)."""
    trouble: str = ""
    """Why it stopped early, if it did."""


class PhotometricStep:
    """The state of one photometric stage: everything constant on the device, and Adam.

    A step is three parts around the rasterizer: `project` (head model, losses without pictures), `look` (pictures, for
    each chunk of views) and `update` (back through the head model, Adam). None of them waits for the device, so each
    can be a CUDA graph (`GraphedStep`).
    """

    def __init__(self, problem: Problem, weights: PhotometricWeights, config: PhotometricConfig, seed: int = 0) -> None:
        rasterizer, head, views = problem.rasterizer, problem.head, problem.views
        device = rasterizer.device
        self.problem, self.rasterizer, self.weights, self.config = problem, rasterizer, weights, config
        self._rates = rates = dict(config.lr)
        count = len(views.views)
        self.groups = [slice(0, count)]
        """Rows of the views that share a base."""
        if config.across_views and count > 1:
            views = views.subset([*range(0, count, 2), *range(1, count, 2)])
            self.groups = [slice(0, (count + 1) // 2), slice((count + 1) // 2, count)]
        self.geometry = GeometryStep(
            head,
            problem.parameters,
            problem.targets,
            views,
            problem.surface,
            problem.prior,
            weights.geometry,
            rates,
            dict(config.components),
        )
        # changes are in units of step sizes, which may be small: eps must be smaller still
        moving = [(self.geometry.values, 1.0, 1e-15)]
        self.lights = None if problem.lights is None else problem.lights.to(device).float()
        """(9, 3), where the head is lit."""
        self._moves_lights = bool(config.lighting == "SH" and config.pictures and rates.get("lights"))
        if config.lighting == "SH" and self.lights is None:
            self.lights = ambient_light().to(device)
        if self.lights is not None:
            self.lights = self.lights.clone(memory_format=torch.contiguous_format)
        if self._moves_lights:
            assert self.lights is not None
            moving.append((self.lights, rates["lights"], 1e-8))
        self.optimizer = Adam(moving)
        self.levels = [views.downsampled(factor) for factor in config.downsample] if config.pictures else [views]
        self._order_generator = torch.Generator().manual_seed(seed)
        self._order = ViewOrder(count, self._order_generator)
        self._graphed: dict[tuple[int, int], GraphedStep] = {}
        self._texture_level = -1
        self.residual: Tensor | None = None
        """(1, R, R, 3) that is optimised on top of the base."""
        if config.pictures:
            self._prepare_pictures(seed)

    def _prepare_pictures(self, seed: int) -> None:
        """Buffers of everything that looks at pictures."""
        config, head, device = self.config, self.problem.head, self.rasterizer.device
        clusters = cluster_table(head, config.clusters)
        self._none = len(config.clusters) + 1
        self.renderer = HeadRenderer(self.rasterizer, head, clusters)
        self._clusters = clusters
        self._texture_keep, self._boundary_keep = None, None
        if any(name in head.regions for name in config.texture_except):
            kept = torch.cat([clusters.new_ones(1), (~head.face_mask(*config.texture_except)).long()])
            self._texture_keep = kept.float().to(device)
        if any(name in head.regions for name in config.boundary_except):
            self._boundary_keep = (~head.region_mask(*config.boundary_except)).float().to(device)
        self.pools = ColorPools(
            torch.zeros(self._none, 4096, 3, device=device),
            torch.zeros(self._none + 1, dtype=torch.int32, device=device),
        )
        self._count = torch.ones((), device=device)
        self._pools_level = -1
        self._generator = torch.Generator(device).manual_seed(seed)
        self._seed = torch.full((), 1_000_003 * (seed % 1000), dtype=torch.int32, device=device)
        self._lights_slope = torch.zeros(9, 3, device=device)
        self._ambient = ambient_light().to(device)
        rotation = torch.as_tensor(self.levels[0].camera[:, :3, :3], dtype=torch.float32, device=device)
        # the field's camera space for lights: x right, y up, z back
        self._to_camera = rotation * torch.tensor([1.0, -1.0, -1.0], device=device)[:, None]
        self._far: Tensor | None = None
        self.pictures = [self._wanted(views) for views in self.levels]
        """(B, H, W, 4) of each level, as the losses see them."""
        self._enter_texture(0)

    def _wanted(self, views: ViewSet) -> Tensor:
        """The pictures with their backgrounds replaced, and in the fourth channel what the silhouette term wants."""
        weights, config = self.weights, self.config
        known = views.background is not None
        if not known and config.background in ("white", "black"):
            raise InputError(
                f"--render.background_train {config.background}: the pictures have no alpha and no known background. "
                "Use --render.background_train target."
            )
        as_it_is = config.background == "target" or not known
        inside = weights.silhouette_inside if weights.silhouette and known else 0.0
        if as_it_is and not inside:
            return views.rgba
        out = torch.empty(views.rgba.shape, dtype=torch.float16, device=views.rgba.device)
        alpha = views.alphas
        if inside:
            band = max(1, round(config.outline_band * views.resolution[0]))
            out[..., 3] = outline_targets(alpha, band, inside / weights.silhouette)
        else:
            out[..., 3] = alpha
        if as_it_is:
            out[..., :3] = views.pictures()[..., :3]
            return out
        assert views.background is not None
        plain = {"white": 1.0, "black": 0.0}.get(config.background)
        if plain is not None:
            recomposite(views.rgba, views.background, torch.full_like(views.background, plain), out)
            return out
        if self._far is None:
            self._far = far_colors(contour_colors(views.rgba), 4)
        recomposite(views.rgba, views.background, self._far[0], out)
        return out

    def _enter_texture(self, level: int) -> None:
        """Buffers of the base and the residual at one of their sizes; the residual so far is carried over."""
        config, head = self.config, self.problem.head
        self._texture_level, size = level, config.texture_sizes[level]
        self._graphed.clear()
        self.texels = self.problem.texels(size)
        labels = torch.where(self.texels.covered, self._clusters[self.texels.face.clamp_min(0)], -1)
        self._labels = torch.where(labels == self._none, -1, labels)
        device = self.rasterizer.device
        self.base = torch.zeros(len(self.groups), size, size, 3, device=device)
        """(G, R, R, 3): baked or painted."""
        if not self._rates.get("texture"):
            return
        before = self.problem.residual if self.residual is None else self.residual[0]
        self.residual = torch.zeros(1, size, size, 3, device=device)
        if before is not None:
            self.residual[0] = resized(before.to(device), size)
        self._texture_slope = torch.zeros_like(self.residual)
        # one weight for any layout, size and number of views: the mean over the texels that views see (counted when the
        # base is baked); or VHAP's, over the whole picture
        self._variation_mask = self.texels.covered.float() if self.weights.variation_covered else None
        self._variation_count = None if self._variation_mask is None else self._variation_mask.sum().clamp_min(1.0)
        self._residual_mask = texel_region_mask(head, self.texels, config.residual_for)
        self.texture_optimizer = Adam([(self.residual, self._rates["texture"], 1e-8)])

    def __call__(self, step: int) -> Tensor:
        """One step of Adam; returns the loss, on the device."""
        config = self.config
        if not config.pictures:
            return self._step_without_pictures(step)
        level, texture_level = self.level(step), self._share(step, len(config.texture_sizes))
        entered = texture_level != self._texture_level
        if entered:
            self._enter_texture(texture_level)
        self.optimizer.set_factor(config.factor(step))
        if self.residual is not None:
            self.texture_optimizer.set_factor(config.factor(step))
        if entered or self._is_due(step, config.rebake):
            self.bake(step)
        if entered or step % config.pool_every == 0 or level != self._pools_level:
            self.draw_pools(step)
        views, chosen = self.levels[level], self.choose_views(step)
        if chosen is None and step > 1 and self._graph_pays():
            key = (level, texture_level)
            if key not in self._graphed:
                self._graphed[key] = GraphedStep(self, level)
            return self._graphed[key]()
        now = self.project()
        normals = self.normals(now)
        slope, total = torch.zeros_like(now.pos), now.loss.detach().clone()
        normals_slope = None if normals is None else torch.zeros_like(normals)
        for part, group in self.parts(views) if chosen is None else chosen:
            leaf = now.pos.detach()[part].requires_grad_()
            rast, rast_db = self.rasterize(leaf, now.front[part], views.resolution)
            own = None if normals is None else normals.detach() if len(normals) == 1 else normals.detach()[part]
            value, slopes = self.look(rast, rast_db, leaf, own, self.pictures[level][part], group)
            root_with_slopes([rast, rast_db], slopes[:2]).backward()
            assert leaf.grad is not None
            slope[part] = leaf.grad + slopes[2]
            if normals_slope is not None:
                if len(normals_slope) == 1:
                    normals_slope += slopes[3]
                else:
                    normals_slope[part] = slopes[3]
            total += value
        return total + self.update(now, normals, slope, normals_slope)

    def _step_without_pictures(self, step: int) -> Tensor:
        self.optimizer.set_factor(self.config.factor(step))
        if self._is_due(step, self.config.rebake):
            with torch.no_grad():
                self.geometry.find_correspondences(self.geometry.vertices())
        if step > 1 and self._graph_pays():
            if (0, 0) not in self._graphed:
                self._graphed[0, 0] = GraphedStep(self, None)
            return self._graphed[0, 0]()
        now = self.project()
        return now.loss.detach() + self.update(now, None, torch.zeros_like(now.pos), None)

    def _share(self, step: int, count: int) -> int:
        """Which of `count` equal shares of the steps a step lies in."""
        return min(step * count // max(self.config.steps, 1), count - 1)

    @staticmethod
    def _is_due(step: int, every: int) -> bool:
        return step % every == 0 if every else step == 0

    def level(self, step: int) -> int:
        """Which of the sizes of the pictures a step looks at: coarse to fine."""
        return self._share(step, len(self.levels))

    def size(self, step: int) -> tuple[int, int]:
        """Which sizes of the pictures and of the texture a step has: losses of others do not compare."""
        return self.level(step), self._share(step, len(self.config.texture_sizes))

    def parts(self, views: ViewSet) -> list[tuple[slice, int]]:
        """All views in chunks as equal as memory allows, each with the number of its base."""
        most = max(1, self.config.pixels_per_chunk // (views.resolution[0] * views.resolution[1]))
        most = min(most, max(self.config.views_per_step, 1))
        out = []
        for group, rows in enumerate(self.groups):
            count = rows.stop - rows.start
            size = -(-count // -(-count // most))
            starts = range(rows.start, rows.stop, size)
            out += [(slice(start, min(start + size, rows.stop)), group) for start in starts]
        return out

    def project(self) -> Projected:
        """The head in clip space of all views, and the loss without pictures."""
        now = self.geometry()
        return now if self.config.cull else replace(now, front=torch.ones_like(now.front))

    def normals(self, now: Projected) -> Tensor | None:
        """Vertex normals (B or 1, V, 3) in the lights' frame, where the head is lit."""
        if self.config.lighting == "constant":
            return None
        normals = vertex_normals(now.vertices, self.problem.head.faces)
        if self.config.lighting_space == "camera":
            each = normals.expand(len(now.pos), -1, -1) if len(normals) == 1 else normals[self.levels[0].timestep]
            return each @ self._to_camera.transpose(1, 2)
        return normals if len(normals) == 1 else normals.index_select(0, self.levels[0].timestep)

    def rasterize(self, pos: Tensor, front: Tensor, resolution: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Which triangle is where; the one operation that waits for the device."""
        return self.rasterizer.rasterize(pos, self.renderer.faces, resolution, front)

    def look(
        self, rast: Tensor, rast_db: Tensor, pos: Tensor, normals: Tensor | None, target: Tensor, group: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss of a chunk of pictures and its slopes for rast, rast_db, pos and the normals, if there are any.

        Slopes of the texture and of the lights are added up.
        """
        texture = self.current_texture(group).requires_grad_(self.residual is not None)
        leaves = [tensor.detach().requires_grad_() for tensor in (rast, rast_db, pos)]
        lit, lights = None, None
        if normals is not None:
            leaves.append(normals.detach().requires_grad_())
            assert self.lights is not None or self.config.lighting != "SH"
            lights = torch.zeros(9, 3, device=pos.device) if self.lights is None else self.lights.detach()
            lights = lights.requires_grad_(self._moves_lights)
            lit = Lit(self.config.lighting, leaves[3], lights, self._texture_keep)
        rast, rast_db, pos = leaves[:3]
        drawn = self.renderer.shade(rast, rast_db, pos, texture, target, self.pools, self._seed, lit=lit)
        value, slope = picture_loss(drawn.painted, target, self._count, self.weights.photo, self.weights.silhouette)
        root, wanted = root_with_slopes([drawn.painted], [slope]), list(leaves)
        if self.residual is not None:
            wanted.append(texture)
        if self._moves_lights and lights is not None:
            wanted.append(lights)
        slopes = list(torch.autograd.grad(root, wanted))
        if self._moves_lights:
            self._lights_slope += slopes.pop()
        if self.residual is not None:
            self._texture_slope += slopes.pop()
        if self._texture_keep is not None:
            keep = self._texture_keep.index_select(0, drawn.triangle.int().reshape(-1)).reshape(*rast.shape[:3], 1)
            slopes[0], slopes[1] = slopes[0] * keep, slopes[1] * keep
        if self._boundary_keep is not None:
            slopes[2] = slopes[2] * self._boundary_keep[:, None]
        self._seed += 1
        return value, slopes

    def _light_penalty(self, normals: Tensor) -> Tensor:
        """Regularisers of the light at the vertices' normals, which are constants: they never move geometry.

        Adds the gradient to that of the pictures and returns the value.
        """
        assert self.lights is not None
        lights = self.lights.detach().requires_grad_()
        diffuse = lighting("SH", normals.detach(), lights)
        penalty = self.weights.diffuse * diffuse_penalty(diffuse, torch.ones_like(diffuse[..., 0], dtype=torch.bool))
        if self.weights.light:
            penalty = penalty + self.weights.light * (lights - self._ambient).square().mean()
        self._lights_slope += torch.autograd.grad(penalty, lights)[0]
        return penalty.detach()

    def update(self, now: Projected, normals: Tensor | None, slope: Tensor, normals_slope: Tensor | None) -> Tensor:
        """Back through the head model from the slopes of its vertices, then Adam; returns the loss of the texture."""
        gradients: list[Tensor] = []
        if self.geometry.values.numel():
            root = root_with_slopes([now.pos], [slope])
            if normals is not None and normals_slope is not None:
                root = root + root_with_slopes([normals], [normals_slope])
            if now.loss.requires_grad:
                root = root + now.loss
            gradients += torch.autograd.grad(root, self.geometry.values)
        else:
            gradients.append(torch.zeros_like(self.geometry.values))
        value = torch.zeros((), device=slope.device)
        if self._moves_lights and normals is not None:
            value = value + self._light_penalty(normals)
            gradients.append(self._lights_slope)
        weights = self.weights
        if self.residual is not None:
            texture, texture_slope = self.current_texture(0)[0], self._texture_slope[0]
            value = value + add_total_variation(
                texture, weights.texture_variation, texture_slope, self._variation_mask, self._variation_count
            )
            value = value + add_residual_penalty(self.residual[0], self._residual_mask, weights.residual, texture_slope)
            self.texture_optimizer.step([self._texture_slope])
            self._texture_slope.zero_()
        self.optimizer.step(gradients)
        self.geometry.keep_possible()
        if self._moves_lights:
            self._lights_slope.zero_()
        return value

    @torch.no_grad()
    def bake(self, step: int) -> None:
        """Base and correspondences anew from where the head is now."""
        config, texels, head = self.config, self.texels, self.geometry.head
        rests = self.problem.residual if self.residual is None and config.base != "baked" else None
        views, size = self.levels[self.level(step)], self.texels.face.shape[0]
        vertices = self.geometry.vertices()
        self.geometry.find_correspondences(vertices)
        counts = self._variation_count if self.residual is not None else None
        whole: Bake | None = None
        if counts is not None or (config.base == "baked" and len(self.groups) == 1):
            whole = bake(self.rasterizer, head, vertices[0], views, texels)
            if counts is not None:
                counts.copy_(((whole.weight > 1e-3) & texels.covered).sum().clamp_min(1))
        if config.base == "painted":
            self.base[:] = painted(head, texels)
        elif config.base == "neutral":
            shown = views.pictures()
            weight = shown[..., 3:]
            self.base[:] = (shown[..., :3] * weight).sum((0, 1, 2)) / weight.sum().clamp_min(1.0)
        else:
            for group in range(len(self.groups)):
                baked = whole
                if baked is None or len(self.groups) > 1:
                    others = [row for row in range(len(views.views)) if not self._in(row, group)]
                    baked = bake(self.rasterizer, head, vertices[0], views.subset(others), texels)
                filled = complete(baked, head, texels)
                if config.smooth:
                    filled = region_smoothed(filled, baked.weight, self._labels, config.smooth * size)
                self.base[group] = filled
        if rests is not None:
            # a stage that leaves the texture alone still draws what earlier ones made of it
            self.base += resized(rests.to(self.base), size)

    def _in(self, row: int, group: int) -> bool:
        return self.groups[group].start <= row < self.groups[group].stop

    @torch.no_grad()
    def draw_pools(self, step: int) -> None:
        """Colour pools of all views together, from pictures of a quarter of the size; another far background."""
        self._pools_level = level = self.level(step)
        views, config = self.levels[level], self.config
        if self._far is not None:
            assert views.background is not None
            number = int(torch.randint(len(self._far), (), generator=self._order_generator))
            recomposite(views.rgba, views.background, self._far[number], self.pictures[level])
        height, width = views.resolution
        small = (max(height // 4, 1), max(width // 4, 1))
        now = self.project()
        # the pixels under the small ones' centres
        rows = (2 * torch.arange(small[0], device=now.pos.device) + 1) * height // (2 * small[0])
        cols = (2 * torch.arange(small[1], device=now.pos.device) + 1) * width // (2 * small[1])
        background = self.pictures[level][:, rows][:, :, cols]
        normals, lit = self.normals(now), None
        if normals is not None:
            lights = torch.zeros(9, 3, device=now.pos.device) if self.lights is None else self.lights
            lit = Lit(config.lighting, normals, lights)
        rast, rast_db = self.rasterize(now.pos, now.front, small)
        texture = self.current_texture(0)
        drawn = self.renderer.shade(rast, rast_db, now.pos, texture, background, antialias=False, lit=lit)
        assert self.renderer.clusters is not None
        pools = color_pools(
            self.renderer.clusters[drawn.triangle.long()],
            drawn.painted[..., :3],
            self._none,
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

    def current_texture(self, group: int) -> Tensor:
        """(1, R, R, 3) as drawn in a group of views."""
        base = self.base[group : group + 1].detach()
        return base if self.residual is None else base + self.residual

    def choose_views(self, step: int) -> list[tuple[Tensor, int]] | None:
        """Rows of the views of this step by group, None for all; see `ViewOrder`."""
        total, wanted = len(self.levels[self.level(step)].views), self.config.views_per_step
        if wanted >= total:
            return None
        rows = self._order.draw(wanted)
        by_group = [[row for row in rows if self._in(row, group)] for group in range(len(self.groups))]
        device = self.rasterizer.device
        chosen = ((torch.tensor(rows, device=device), group) for group, rows in enumerate(by_group) if rows)
        views = self.levels[self.level(step)]
        size = max(1, self.config.pixels_per_chunk // (views.resolution[0] * views.resolution[1]))
        return [(part, group) for rows, group in chosen for part in rows.split(size)]

    def found(self, values: Tensor) -> FitParameters:
        """All parameters for a row of values, as precise as they came."""
        parameters = self.problem.parameters
        moved = {name: value.to(getattr(parameters, name)) for name, value in self.geometry.moved(values).items()}
        return replace(parameters, **moved).clone()

    def drawn(self) -> int:
        """Pixels of the head in a quarter of the size; waits for the device."""
        views = self.levels[0]
        small = (max(views.resolution[0] // 4, 1), max(views.resolution[1] // 4, 1))
        with torch.no_grad():
            now = self.project()
            rast, _ = self.rasterize(now.pos, now.front, small)
            return int((rast[..., 3] > 0).sum())

    def _graph_pays(self) -> bool:
        """Whether enough steps share a graph to make up for capturing it, and the device can."""
        return self.config.is_long and kernels(self.geometry.values) is not None


class GraphedStep:
    """A step of all views with its three parts as CUDA graphs: hundreds of small kernels in a few launches."""

    def __init__(self, step: PhotometricStep, level: int | None) -> None:
        self._targets = step.pictures[level] if level is not None else None
        self._parts = [] if level is None else step.parts(step.levels[level])
        kinds = {(part.stop - part.start, group) for part, group in self._parts}
        # graphs are captured on the current device's streams
        with torch.cuda.device(step.rasterizer.device), _no_garbage_collection():
            self._pool = torch.cuda.graph_pool_handle()
            torch.cuda.synchronize()
            self._project, self._update = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._project, pool=self._pool):
                self._now = step.project()
                self._normals = step.normals(self._now) if level is not None else None
            self._slope = torch.zeros_like(self._now.pos)
            self._normals_slope = None if self._normals is None else torch.zeros_like(self._normals)
            self._looks = {kind: _GraphedLook(self, step, *kind) for kind in kinds}
            with torch.cuda.graph(self._update, pool=self._pool):
                self._texture_loss = step.update(self._now, self._normals, self._slope, self._normals_slope)

    def __call__(self) -> Tensor:
        """One step; returns the loss, on the device."""
        self._project.replay()
        now, total = self._now, self._now.loss.detach().clone()
        if self._normals_slope is not None:
            self._normals_slope.zero_()
        for part, group in self._parts:
            assert self._targets is not None
            look = self._looks[part.stop - part.start, group]
            total += look(now.pos[part], now.front[part], self._targets[part], self._slope[part], part)
        self._update.replay()
        return total + self._texture_loss


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """An older graph that is freed while another one is captured would spoil that."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _GraphedLook:
    """`PhotometricStep.look` for a number of views of one group."""

    def __init__(self, owner: GraphedStep, step: PhotometricStep, count: int, group: int) -> None:
        assert owner._targets is not None
        self._owner = owner
        self._rasterizer: Any = step.rasterizer  # a CudaRasterizer; its module needs nvdiffrast
        self._faces = step.renderer.faces
        device, (height, width) = step.rasterizer.device, owner._targets.shape[1:3]
        self._rast = torch.zeros(count, height, width, 4, device=device)
        self._rast_db = torch.zeros_like(self._rast)
        self._pos = torch.zeros_like(owner._now.pos[:count])
        self._target = torch.zeros_like(owner._targets[:count])
        self._normals: Tensor | None = None
        if owner._normals is not None:
            self._normals = torch.zeros_like(owner._normals if len(owner._normals) == 1 else owner._normals[:count])
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=owner._pool):
            self._value, self._slopes = step.look(
                self._rast, self._rast_db, self._pos, self._normals, self._target, group
            )

    def __call__(self, pos: Tensor, front: Tensor, target: Tensor, slope: Tensor, part: slice) -> Tensor:
        """Draws a chunk of views; writes the slope of `pos` and returns the loss."""
        faces, owner = self._faces, self._owner
        self._pos.copy_(pos.detach())
        self._target.copy_(target)
        if self._normals is not None and owner._normals is not None:
            self._normals.copy_((owner._normals if len(owner._normals) == 1 else owner._normals[part]).detach())
        leaf = pos.detach().requires_grad_()
        # from here to the replay the device waits for the host: nothing that can be done before or after it
        rast, rast_db = self._rasterizer.rasterize_shared(leaf, faces, tuple(self._rast.shape[1:3]), front)
        local_triangle_ids(rast, len(faces), out=self._rast)
        self._rast_db.copy_(rast_db.detach())
        self._graph.replay()
        root_with_slopes([rast, rast_db], self._slopes[:2]).backward()
        assert leaf.grad is not None
        torch.add(leaf.grad, self._slopes[2], out=slope)
        if owner._normals_slope is not None:
            if len(owner._normals_slope) == 1:
                owner._normals_slope += self._slopes[3]
            else:
                owner._normals_slope[part] = self._slopes[3]
        return self._value


def refine(
    problem: Problem,
    weights: PhotometricWeights,
    config: PhotometricConfig,
    seed: int = 0,
    report: Callable[[int, float | None], None] | None = None,
    report_every: int = 10,
) -> Refined:
    """Adam on pictures, silhouette, landmarks, geometry and priors; all on the rasterizer's device, float32 inside.

    `report` gets every step, and the loss every `report_every` steps: reading it waits for the device.
    """
    step = PhotometricStep(problem, weights, config, seed)
    if not step.geometry.values.numel() and step.residual is None and not step._moves_lights:
        return Refined(problem.parameters.clone())  # all step sizes are 0
    values = step.geometry.values.detach()
    averaged, averaged_from = torch.zeros_like(values), int(config.steps * (1 - config.average_last))
    # Adam's jump at the start is over after a tenth of the steps of one size
    of_one_size = config.steps // max(len(step.levels), len(config.texture_sizes))
    watch, trouble = Watch(settle=max(1, round(0.1 * of_one_size / report_every))), None
    if config.pictures and not step.drawn():
        raise nothing_drawn_error(problem.name)
    with nullcontext() if config.is_long else reference_only():
        for number in range(config.steps):
            loss = step(number)
            if number >= averaged_from:
                averaged += values
            seen = float(loss) if number % report_every == 0 else None
            if report is not None:
                report(number, seen)
            if step.size(number) != step.size(max(number - 1, 0)):
                watch.restart()
            trouble = watch.report(number, seen)
            if trouble is not None:
                break
    count = max(config.steps - averaged_from, 1)
    found = step.found(averaged / count if averaged_from < config.steps else values)
    if step.residual is None:
        return Refined(found, lights=step.lights, trouble=trouble or "")
    return Refined(found, step.current_texture(0)[0].detach(), step.residual[0], step.lights, trouble or "")
