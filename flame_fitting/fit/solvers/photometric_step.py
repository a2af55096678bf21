"""One step of the first-order stages: all parameters against the pictures, with geometry kept in play.

The head model once (`GeometryStep`), then its vertices through all views in chunks whose gradients add up, then back
through the head model, then Adam. Random replacement of colours by region acts before antialiasing, as in VHAP.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flame_fitting.fit.losses.photometric import kernels, picture_loss, root_with_slopes
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.rendering import HeadRenderer, Lit
from flame_fitting.fit.solvers.appearance import Light, Texture, cluster_table
from flame_fitting.fit.solvers.batches import Batches
from flame_fitting.fit.solvers.changing import Changing, put_back, within
from flame_fitting.fit.solvers.fused_adam import Adam
from flame_fitting.fit.solvers.geometry_step import GeometryStep, Projected
from flame_fitting.fit.solvers.graphs import GraphedStep
from flame_fitting.fit.solvers.perturbation import Perturbation
from flame_fitting.fit.solvers.photometric_settings import PhotometricConfig, PhotometricWeights
from flame_fitting.fit.solvers.view_levels import ViewLevels
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.fit.views import ViewSet
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.head.model import HeadModel
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.shading import vertex_normals


@dataclass(eq=False)
class Problem:
    """What a photometric stage works on, all on the rasterizer's device."""

    rasterizer: Rasterizer
    head: HeadModel
    parameters: FitParameters
    targets: list[FrameTarget]
    views: ViewSet | Batches
    """All pictures, or batch after batch."""
    surface: SurfaceWeights
    prior: PriorConfig
    texels: TexelMaps
    residual: Tensor | None = None
    """(R, R, 3) that an earlier stage left."""
    lights: Tensor | None = None
    """(9, 3) that an earlier stage left."""
    name: str = "the capture"
    """What messages call it."""
    before: FitParameters | None = None
    """The timestep before the first one, which changes over time count to."""
    covered: Tensor | None = None
    """(V,) how far pictures move a vertex by offsets alone, 0..1."""


class PhotometricStep:
    """The state of one photometric stage: everything constant on the device, and Adam.

    A step is three parts around the rasterizer: `project` (head model, losses without pictures), `look` (pictures, for
    each chunk of views) and `update` (back through the head model, Adam). None of them waits for the device, so each
    can be a CUDA graph (`GraphedStep`).
    """

    def __init__(self, problem: Problem, weights: PhotometricWeights, config: PhotometricConfig, seed: int = 0) -> None:
        rasterizer, head = problem.rasterizer, problem.head
        device = rasterizer.device
        self.problem, self.rasterizer, self.weights, self.config = problem, rasterizer, weights, config
        self._batches = problem.views if isinstance(problem.views, Batches) else None
        self._generator = torch.Generator().manual_seed(seed)
        first = problem.views.views() if isinstance(problem.views, Batches) else problem.views
        self.views = ViewLevels(first, config, weights, self._generator)
        self.geometry = GeometryStep(
            head,
            problem.parameters,
            problem.targets,
            self.views.levels[0],
            problem.surface,
            problem.prior,
            weights.geometry,
            dict(config.lr),
            dict(config.components),
            problem.before,
        )
        self.triangles = head.faces.int().to(device)
        """(F, 3) int32."""
        if self._batches is not None:
            self.geometry.turn_to(self._batches.rows, self.views.levels[0])
        self.light = Light(config, weights, device, problem.lights)
        self._uncovered: Tensor | None = None
        if problem.covered is not None and bool(problem.covered.any()):
            self._uncovered = (1 - problem.covered.float())[:, None].to(device)
        # changes are in units of step sizes, which may be small: eps must be smaller still
        self.optimizer = Adam([(self.geometry.values, 1.0, 1e-15), *self.light.moving])
        self._graphed: dict[tuple[int, int], GraphedStep] = {}
        self.texture: Texture | None = None
        """None where no pictures are looked at."""
        if config.pictures:
            self._prepare_pictures(seed)

    def _prepare_pictures(self, seed: int) -> None:
        """Buffers of everything that looks at pictures."""
        problem, config, device = self.problem, self.config, self.rasterizer.device
        head, clusters = problem.head, cluster_table(problem.head, self.config.clusters)
        self.renderer = HeadRenderer(self.rasterizer, head, clusters)
        self._texture_keep, self._boundary_keep = None, None
        if any(name in head.regions for name in config.texture_except):
            kept = torch.cat([clusters.new_ones(1), (~head.face_mask(*config.texture_except)).long()])
            self._texture_keep = kept.float().to(device)
        if any(name in head.regions for name in config.boundary_except):
            self._boundary_keep = (~head.region_mask(*config.boundary_except)).float().to(device)
        self.perturbation = Perturbation(config, device, seed)
        self._count = torch.ones((), device=device)
        self._pools_level = -1
        self._to_camera = self._axes_of_cameras()
        groups = len(self.views.groups)
        args = (self.rasterizer, head, problem.texels, config, self.weights, groups, problem.residual)
        self.texture = Texture(*args)

    def __call__(self, step: int) -> Tensor:
        """One step of Adam; returns the loss, on the device."""
        config, texture = self.config, self.texture
        self.optimizer.set_factor(config.factor(step))
        if texture is None:
            return self._step_without_pictures(step)
        level, texture_level = self.size(step)
        if self._batches is not None and step > 0:
            self._next_batch(level)
        entered = texture_level != texture.level
        if entered:
            self._graphed.clear()
            texture.enter(texture_level)
        texture.set_factor(config.factor(step))
        if entered or self._is_due(step, config.rebake):
            self.bake(level)
        if entered or step % config.pool_every == 0 or level != self._pools_level:
            self.draw_pools(level)
        chosen = self.views.choose(level)
        if chosen is None and step > 1 and self._graph_pays():
            key = (level, texture_level)
            if key not in self._graphed:
                self._graphed[key] = GraphedStep(self, level)
            return self._graphed[key]()
        now = self.project()
        normals = self.normals(now)
        slope, total = torch.zeros_like(now.pos), now.loss.detach().clone()
        normals_slope = None if normals is None else torch.zeros_like(normals)
        resolution = self.views.levels[level].resolution
        for part, group in self.views.parts(level) if chosen is None else chosen:
            leaf = now.pos.detach()[part].requires_grad_()
            rast, rast_db = self.rasterize(leaf, now.front[part], resolution)
            own = None if normals is None else normals.detach() if len(normals) == 1 else normals.detach()[part]
            value, slopes = self.look(rast, rast_db, leaf, own, self.views.wanted[level][part], group)
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

    def _next_batch(self, level: int) -> None:
        """The pictures of the next timesteps."""
        assert self._batches is not None
        self._batches.advance()
        self._turn_to_batch(level)

    def _turn_to_batch(self, level: int) -> None:
        assert self._batches is not None
        self.views = self.views.of_others(self._batches.views(), level)
        self.geometry.turn_to(self._batches.rows, self.views.levels[level])
        self._to_camera = self._axes_of_cameras()

    def _axes_of_cameras(self) -> Tensor:
        """(B, 3, 3) turns from the reference frame to the field's camera space for lights: x right, y up, z back."""
        return self.views.camera[:, :3, :3] * torch.tensor([1.0, -1.0, -1.0], device=self.rasterizer.device)[:, None]

    def _step_without_pictures(self, step: int) -> Tensor:
        if self._is_due(step, self.config.rebake):
            with torch.no_grad():
                self.geometry.find_correspondences(self.geometry.vertices())
        if step > 1 and self._graph_pays():
            if (0, 0) not in self._graphed:
                self._graphed[0, 0] = GraphedStep(self, None)
            return self._graphed[0, 0]()
        now = self.project()
        return now.loss.detach() + self.update(now, None, torch.zeros_like(now.pos), None)

    def changing(self) -> Changing:
        """All that steps write."""
        out = within("adam", self.optimizer.changing()) | within("geometry", self.geometry.changing())
        out |= within("views", self.views.changing())
        if self.texture is not None:
            out |= within("texture", self.texture.changing()) | within("noise", self.perturbation.changing())
            out["count"] = self._count
        return out if self._batches is None else out | within("batches", self._batches.changing())

    def take_up(self, step: int, saved: dict[str, Tensor]) -> None:
        """Everything as it was before a step."""
        level, texture_level = self.size(step - 1)
        if self._batches is not None:
            put_back(within("batches", self._batches.changing()), saved)
            self._turn_to_batch(level)
        if self.texture is not None:
            self.texture.enter(texture_level)
            self._pools_level = level
        with torch.no_grad():
            self.geometry.find_correspondences(self.geometry.vertices())  # makes the buffers
        put_back(self.changing(), saved)
        if self.texture is not None:
            for each in range(len(self.views.levels)):
                self.views.redraw_background(each)

    def size(self, step: int) -> tuple[int, int]:
        """Sizes of the pictures and of the texture in a step, coarse to fine: losses of others do not compare."""
        return self._share(step, len(self.config.downsample)), self._share(step, len(self.config.texture_sizes))

    def next_size(self, step: int) -> int:
        """The first step of the next size of pictures or texture; the end where there is none."""
        now = self.size(step)
        return next((at for at in range(step + 1, self.config.steps) if self.size(at) != now), self.config.steps)

    def _share(self, step: int, count: int) -> int:
        """Which of `count` equal shares of the steps a step lies in."""
        return min(step * count // max(self.config.steps, 1), count - 1)

    @staticmethod
    def _is_due(step: int, every: int) -> bool:
        return step % every == 0 if every else step == 0

    def below_zero(self, step: int) -> float:
        """How far the loss of a step may lie below 0: head that covers the avatar near its outline earns."""
        looked_at = min(self.config.views_per_step, self.views.count)
        earned = self.views.surplus(self.size(step)[0]) if self.texture is not None else 0.0
        return self.weights.silhouette * looked_at * earned / float(self._count) if earned else 0.0

    @property
    def moves_something(self) -> bool:
        """Whether any step size is above 0."""
        residual = self.texture.residual if self.texture is not None else None
        return bool(self.geometry.values.numel()) or residual is not None or self.light.moves

    def project(self) -> Projected:
        """The head in clip space of all views, and the loss without pictures."""
        now = self.geometry()
        return now if self.config.cull else replace(now, front=torch.ones_like(now.front))

    def normals(self, now: Projected) -> Tensor | None:
        """Vertex normals (B or 1, V, 3) in the lights' frame, where the head is lit."""
        if self.config.lighting == "constant":
            return None
        normals, timestep = vertex_normals(now.vertices, self.problem.head.faces), self.views.levels[0].timestep
        if self.config.lighting_space == "camera":
            each = normals.expand(len(now.pos), -1, -1) if len(normals) == 1 else normals[timestep]
            return each @ self._to_camera.transpose(1, 2)
        return normals if len(normals) == 1 else normals.index_select(0, timestep)

    def rasterize(self, pos: Tensor, front: Tensor, resolution: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Which triangle is where; the one operation that waits for the device."""
        return self.rasterizer.rasterize(pos, self.triangles, resolution, front)

    def look(
        self, rast: Tensor, rast_db: Tensor, pos: Tensor, normals: Tensor | None, target: Tensor, group: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss of a chunk of pictures and its slopes for rast, rast_db, pos and the normals, if there are any.

        Slopes of the texture and of the light are added up.
        """
        assert self.texture is not None
        moves_texture = self.texture.residual is not None
        texture = self.texture.now(group).requires_grad_(moves_texture)
        leaves = [tensor.detach().requires_grad_() for tensor in (rast, rast_db, pos)]
        lit, lights = None, None
        if normals is not None:
            leaves.append(normals.detach().requires_grad_())
            lights = self.light.now(pos.device).requires_grad_(self.light.moves)
            lit = Lit(self.config.lighting, leaves[3], lights, self._texture_keep)
        rast, rast_db, pos = leaves[:3]
        noise = self.perturbation
        drawn = self.renderer.shade(rast, rast_db, pos, texture, target, noise.pools, noise.seed, lit=lit)
        value, slope = picture_loss(drawn.painted, target, self._count, self.weights.photo, self.weights.silhouette)
        root, wanted = root_with_slopes([drawn.painted], [slope]), list(leaves)
        if moves_texture:
            wanted.append(texture)
        if self.light.moves and lights is not None:
            wanted.append(lights)
        slopes = list(torch.autograd.grad(root, wanted))
        if self.light.moves:
            self.light.slope += slopes.pop()
        if moves_texture:
            self.texture.slope += slopes.pop()
        if self._texture_keep is not None:
            keep = self._texture_keep.index_select(0, drawn.triangle.int().reshape(-1)).reshape(*rast.shape[:3], 1)
            slopes[0], slopes[1] = slopes[0] * keep, slopes[1] * keep
        if self._boundary_keep is not None:
            slopes[2] = slopes[2] * self._boundary_keep[:, None]
        noise.seed += 1
        return value, slopes

    def update(self, now: Projected, normals: Tensor | None, slope: Tensor, normals_slope: Tensor | None) -> Tensor:
        """Back through the head model from the slopes of its vertices, then Adam; returns the loss of the texture."""
        gradients: list[Tensor] = []
        if self.geometry.values.numel():
            gradients.append(self._through_head(now, normals, slope, normals_slope))
        else:
            gradients.append(torch.zeros_like(self.geometry.values))
        value = torch.zeros((), device=slope.device)
        if self.light.moves and normals is not None:
            value = value + self.light.penalty(normals)
            gradients.append(self.light.slope)
        if self.texture is not None and self.texture.residual is not None:
            value = value + self.texture.step()
        self.optimizer.step(gradients, self.geometry.active)
        self.geometry.keep_possible()
        if self.light.moves:
            self.light.slope.zero_()
        return value

    def _through_head(
        self, now: Projected, normals: Tensor | None, slope: Tensor, normals_slope: Tensor | None
    ) -> Tensor:
        """The slope of the moving values; where the head is covered the pictures' own reaches offsets alone."""
        values = self.geometry.values
        rest: list[Tensor] = []
        if normals is not None and normals_slope is not None:
            rest.append(root_with_slopes([normals], [normals_slope]))
        if now.loss.requires_grad:
            rest.append(now.loss)
        if self._uncovered is None:
            return torch.autograd.grad(sum(rest, root_with_slopes([now.pos], [slope])), values)[0]
        bare = slope * self._uncovered
        offsets = self.geometry.moves_offsets
        out = torch.autograd.grad(sum(rest, root_with_slopes([now.pos], [bare])), values, retain_graph=offsets)[0]
        if offsets:
            hidden = torch.autograd.grad(root_with_slopes([now.pos], [slope - bare]), values)[0]
            self.geometry.add_to_offsets(out, hidden)
        return out

    @torch.no_grad()
    def bake(self, level: int) -> None:
        """Base and correspondences anew from where the head is now."""
        assert self.texture is not None
        vertices, views = self.geometry.vertices(), self.views
        self.geometry.find_correspondences(vertices)
        if self._batches is not None:
            rows, some = self._batches.sample()
            vertices, views = vertices[rows], self.views.of_others(some, level)
        self.texture.bake(vertices, views, level)

    @torch.no_grad()
    def draw_pools(self, level: int) -> None:
        """Colour pools of all views together, from pictures of a quarter of the size; another far background."""
        assert self.texture is not None
        self._pools_level = level
        views, config = self.views.levels[level], self.config
        self.views.draw_background(level)
        height, width = views.resolution
        small = (max(height // 4, 1), max(width // 4, 1))
        now = self.project()
        # the pixels under the small ones' centres
        rows = (2 * torch.arange(small[0], device=now.pos.device) + 1) * height // (2 * small[0])
        cols = (2 * torch.arange(small[1], device=now.pos.device) + 1) * width // (2 * small[1])
        background = self.views.wanted[level][:, rows][:, :, cols]
        normals, lit = self.normals(now), None
        if normals is not None:
            lit = Lit(config.lighting, normals, self.light.now(now.pos.device))
        rast, rast_db = self.rasterize(now.pos, now.front, small)
        texture = self.texture.now(0)
        drawn = self.renderer.shade(rast, rast_db, now.pos, texture, background, antialias=False, lit=lit)
        assert self.renderer.clusters is not None
        self.perturbation.draw(self.renderer.clusters[drawn.triangle.long()], drawn.painted[..., :3])
        share = min(config.views_per_step, self.views.count) / self.views.count
        pixels = height * width / (small[0] * small[1])
        self._count.copy_(((drawn.triangle > 0).sum() * (share * pixels)).clamp_min(1.0))

    def found(self, values: Tensor) -> FitParameters:
        """All parameters for a row of values, as precise as they came."""
        parameters = self.problem.parameters
        moved = {name: value.to(getattr(parameters, name)) for name, value in self.geometry.moved(values).items()}
        return replace(parameters, **moved).clone()

    def drawn(self) -> int:
        """Pixels of the head in a quarter of the size; waits for the device."""
        height, width = self.views.levels[0].resolution
        with torch.no_grad():
            now = self.project()
            rast, _ = self.rasterize(now.pos, now.front, (max(height // 4, 1), max(width // 4, 1)))
            return int((rast[..., 3] > 0).sum())

    def _graph_pays(self) -> bool:
        """Whether enough steps share a graph to make up for capturing it, and the device can."""
        return self._batches is None and self.config.is_long and kernels(self.geometry.values) is not None
