"""What the head looks like in a photometric stage: a base, a residual on top of it, and light.

The base is baked from the pictures at the current geometry, painted or plain. A base that is smoothed inside each
region leaves as what pulls where regions (lips, lids, brows, skin, hair) begin and end, and a texture cannot explain a
misalignment away; a base of full detail that is baked from the other half of the views makes all views agree on one
surface. The residual and the light are optimised where they have a step size.
"""

import torch
from torch import Tensor

from flame_fitting.fit.losses.light import diffuse_penalty, lighting
from flame_fitting.fit.losses.texture import add_residual_penalty, add_total_variation, texel_region_mask
from flame_fitting.fit.solvers.changing import Changing, within
from flame_fitting.fit.solvers.fused_adam import Adam
from flame_fitting.fit.solvers.photometric_settings import PhotometricConfig, PhotometricWeights
from flame_fitting.fit.solvers.view_levels import ViewLevels
from flame_fitting.fit.texture import Bake, TexelMaps, bake, complete, painted, region_smoothed, resized
from flame_fitting.head.model import HeadModel
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.shading import ambient_light


def cluster_table(head: HeadModel, clusters: tuple[str, ...]) -> Tensor:
    """(F,) cluster of each triangle, from 1; `len(clusters) + 1` for triangles in none. The background is 0."""
    out = torch.full((head.faces.shape[0],), len(clusters) + 1, dtype=torch.long, device=head.faces.device)
    for number, name in enumerate(clusters, start=1):
        out[head.face_mask(name)] = number
    return out


class Light:
    """The light of a stage: 9 x 3 spherical-harmonic coefficients, or nothing where it is in the texture."""

    def __init__(
        self, config: PhotometricConfig, weights: PhotometricWeights, device: torch.device, found: Tensor | None
    ) -> None:
        """`found` (9, 3) is what earlier stages left."""
        self.kind, self._weights = config.lighting, weights
        self.coefficients = None if found is None else found.to(device).float()
        """(9, 3), where the head is lit; contiguous, since Adam's kernel knows no strides."""
        rate = dict(config.lr).get("lights")
        self.moves = bool(config.lighting == "SH" and config.pictures and rate)
        self._ambient = ambient_light().to(device)
        if config.lighting == "SH" and self.coefficients is None:
            self.coefficients = self._ambient
        if self.coefficients is not None:
            self.coefficients = self.coefficients.clone(memory_format=torch.contiguous_format)
        self.moving: list[tuple[Tensor, float, float]] = []
        """What Adam moves: tensor, step size, eps."""
        if self.moves:
            assert self.coefficients is not None and rate is not None
            self.moving.append((self.coefficients, rate, 1e-8))
        self.slope = torch.zeros(9, 3, device=device)
        """Gradient, added up over the pictures of a step."""

    def now(self, device: torch.device) -> Tensor:
        """(9, 3) for drawing; zeros where the kind of light needs no coefficients."""
        assert self.coefficients is not None or self.kind != "SH"
        return torch.zeros(9, 3, device=device) if self.coefficients is None else self.coefficients.detach()

    def penalty(self, normals: Tensor) -> Tensor:
        """Regularisers of the light at the vertices' normals, which are constants: they never move geometry.

        Adds the gradient to that of the pictures and returns the value.
        """
        assert self.coefficients is not None
        lights = self.coefficients.detach().requires_grad_()
        diffuse = lighting("SH", normals.detach(), lights)
        penalty = self._weights.diffuse * diffuse_penalty(diffuse, torch.ones_like(diffuse[..., 0], dtype=torch.bool))
        if self._weights.light:
            penalty = penalty + self._weights.light * (lights - self._ambient).square().mean()
        self.slope += torch.autograd.grad(penalty, lights)[0]
        return penalty.detach()


class Texture:
    """Base and residual of a stage at one of its sizes at a time."""

    def __init__(
        self,
        rasterizer: Rasterizer,
        head: HeadModel,
        maps: TexelMaps,
        config: PhotometricConfig,
        weights: PhotometricWeights,
        groups: int,
        left: Tensor | None,
    ) -> None:
        """`groups` of views have a base each; `left` (R, R, 3) is the residual of an earlier stage."""
        self._rasterizer, self._head, self._maps = rasterizer, head, maps
        self._config, self._weights, self._groups, self._left = config, weights, groups, left
        self._rate = dict(config.lr).get("texture")
        self._clusters, self._none = cluster_table(head, config.clusters), len(config.clusters) + 1
        self.residual: Tensor | None = None
        """(1, R, R, 3) that is optimised on top of the base."""
        self.level = -1
        self.enter(0)

    def enter(self, level: int) -> None:
        """Buffers of the base and the residual at one of their sizes; the residual so far is carried over."""
        config, device = self._config, self._rasterizer.device
        self.level, size = level, config.texture_sizes[level]
        self.texels = self._maps(size)
        labels = torch.where(self.texels.covered, self._clusters[self.texels.face.clamp_min(0)], -1)
        self._labels = torch.where(labels == self._none, -1, labels)
        self.base = torch.zeros(self._groups, size, size, 3, device=device)
        """(G, R, R, 3): baked or painted."""
        if not self._rate:
            return
        before = self._left if self.residual is None else self.residual[0]
        self.residual = torch.zeros(1, size, size, 3, device=device)
        if before is not None:
            self.residual[0] = resized(before.to(device), size)
        self.slope = torch.zeros_like(self.residual)
        """Gradient of the residual, added up over the pictures of a step."""
        # one weight for any layout, size and number of views: the mean over the texels that views see (counted when the
        # base is baked); or VHAP's, over the whole picture
        self._variation_mask = self.texels.covered.float() if self._weights.variation_covered else None
        self._variation_count = None if self._variation_mask is None else self._variation_mask.sum().clamp_min(1.0)
        self._residual_mask = texel_region_mask(self._head, self.texels, config.residual_for)
        self._optimizer = Adam([(self.residual, self._rate, 1e-8)])

    def changing(self) -> Changing:
        """What steps write at the size that it is at."""
        if self.residual is None:
            return {"base": self.base}
        out = {"base": self.base} | within("adam", self._optimizer.changing())
        return out if self._variation_count is None else out | {"variation_count": self._variation_count}

    def now(self, group: int) -> Tensor:
        """(1, R, R, 3) as drawn in a group of views."""
        base = self.base[group : group + 1].detach()
        return base if self.residual is None else base + self.residual

    def set_factor(self, factor: float) -> None:
        """Share of the step size that steps take from here on."""
        if self.residual is not None:
            self._optimizer.set_factor(factor)

    def step(self) -> Tensor:
        """Adds the regularisers' gradients, moves the residual; returns their value."""
        assert self.residual is not None
        texture, slope = self.now(0)[0], self.slope[0]
        value = add_total_variation(
            texture, self._weights.texture_variation, slope, self._variation_mask, self._variation_count
        )
        value = value + add_residual_penalty(self.residual[0], self._residual_mask, self._weights.residual, slope)
        self._optimizer.step([self.slope])
        self.slope.zero_()
        return value

    @torch.no_grad()
    def bake(self, vertices: Tensor, views: ViewLevels, level: int) -> None:
        """The base anew from where the head is now, at `vertices` (T, V, 3)."""
        config, texels, head, size = self._config, self.texels, self._head, self.texels.face.shape[0]
        pictures = views.levels[level]
        counts = self._variation_count if self.residual is not None else None
        whole: Bake | None = None
        if counts is not None or (config.base == "baked" and self._groups == 1):
            whole = bake(self._rasterizer, head, vertices, pictures, texels)
            if counts is not None:
                counts.copy_(((whole.weight > 1e-3) & texels.covered).sum().clamp_min(1))
        if config.base == "painted":
            self.base[:] = painted(head, texels)
        elif config.base == "neutral":
            shown = pictures.pictures()
            weight = shown[..., 3:]
            self.base[:] = (shown[..., :3] * weight).sum((0, 1, 2)) / weight.sum().clamp_min(1.0)
        else:
            for group in range(self._groups):
                baked = whole
                if baked is None or self._groups > 1:
                    baked = bake(self._rasterizer, head, vertices, pictures.subset(views.others(group)), texels)
                filled = complete(baked, head, texels)
                if config.smooth:
                    filled = region_smoothed(filled, baked.weight, self._labels, config.smooth * size)
                self.base[group] = filled
        if self._left is not None and self.residual is None and config.base != "baked":
            # a stage that leaves the texture alone still draws what earlier ones made of it
            self.base += resized(self._left.to(self.base), size)
