"""Points of a surface that depth maps of several views show.

A landmark lies on the surface, but lifting it is not the whole of it. Beside a rim, where lids end before the eyeball
and lips before the teeth, a detection that is off by a pixel hits what lies behind; so the nearer surface is taken. And
a median of points of a bent surface, over views or over detectors, lies beside it, so it is put back.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera import pixel_rays, project, unproject

_AROUND = 8
"""Directions in which a nearer surface is looked for."""
_BESIDE = 3.0
"""A surface is followed to a ray that passes it by so many times the reach."""
_GRID = np.linspace(-1.0, 1.0, 5)
"""Where the surface around a point is looked at, along x and y of a picture, in parts of the reach."""


class SeenSurface(NamedTuple):
    """Maps of C views."""

    depth: Float[ndarray, "C H W"]
    """Along the camera's z, world units, 0 outside."""
    normal: Float[ndarray, "C H W 3"] | None
    """World, any sign."""
    K: Float[ndarray, "C 3 3"]
    world_to_camera: Float[ndarray, "C 4 4"]
    depth_step: float
    """Depths of neighbouring pixels that differ by less belong to one surface and are interpolated."""

    def under(self, pixels: Float[ndarray, "C N 2"]) -> tuple[Float[ndarray, "C N 3"], Float[ndarray, "C N 3"] | None]:
        """World points under pixels (NaN off the surface) and unit normals there (None without a map of them).

        The four pixel centres around a point are interpolated (in 1/depth, which is linear on a plane) where they
        belong to one surface; otherwise the nearest pixel decides.
        """
        depth = np.asarray(self.depth)
        views, height, width = depth.shape
        x, y = pixels[..., 0] - 0.5, pixels[..., 1] - 0.5
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        x, y = np.clip(np.where(inside, x, 0), 0, width - 1), np.clip(np.where(inside, y, 0), 0, height - 1)
        x0, y0 = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
        fx, fy = x - x0, y - y0
        view = np.arange(views)[:, None]
        corners = np.stack([depth[view, y0 + j, x0 + i] for j in (0, 1) for i in (0, 1)]).astype(np.float64)
        bilinear = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
        nearest = np.zeros_like(bilinear)
        np.put_along_axis(nearest, bilinear.argmax(0)[None], 1.0, axis=0)
        one_surface = (corners.min(0) > 0) & (np.ptp(corners, axis=0) <= self.depth_step)
        weights = np.where(one_surface, bilinear, nearest)
        with np.errstate(divide="ignore"):
            inverse = np.where(corners > 0, 1.0 / corners, 0.0)
        mixed = (weights * inverse).sum(0)
        hit = inside & (mixed > 0)
        points = unproject(pixels, 1.0 / np.where(hit, mixed, 1.0), self.K, self.world_to_camera)
        points[~hit] = np.nan
        if self.normal is None:
            return points, None
        n = sum(
            weights[2 * j + i][..., None] * np.asarray(self.normal[view, y0 + j, x0 + i], dtype=np.float64)
            for j in (0, 1)
            for i in (0, 1)
        )
        return points, n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-12)

    def before(
        self, pixels: Float[ndarray, "C N 2"], points: Float[ndarray, "C N 3"], reach: float, least_facing: float
    ) -> Float[ndarray, "C N 3"]:
        """The nearest to the camera of `points` (under the pixels) and of the surfaces that are seen `reach` (world
        units) beside them, each followed along its tangent plane to the pixel's ray.

        Surfaces that are seen at less than this |cosine| do not count.
        """
        if self.normal is None or not np.isfinite(reach):
            return points
        origin, direction = pixel_rays(pixels, self.K, self.world_to_camera)
        origin = origin[:, None]
        start = ((points - origin) * direction).sum(-1)
        along = start.copy()
        length = np.nan_to_num(self._pixels_of(points, reach))[..., None]
        for angle in 2 * np.pi * np.arange(_AROUND) / _AROUND:
            beside, normal = self.under(pixels + length * (np.cos(angle), np.sin(angle)))
            assert normal is not None
            cosine = (normal * direction).sum(-1)
            facing = np.abs(cosine) >= least_facing
            there = ((beside - origin) * normal).sum(-1) / np.where(facing, cosine, 1.0)
            far = np.linalg.norm(origin + there[..., None] * direction - beside, axis=-1)
            along = np.where(facing & (far < _BESIDE * reach) & (there < along), there, along)
        return np.where((along < start)[..., None], origin + along[..., None] * direction, points)

    def closest(self, points: Float[ndarray, "N 3"], reach: float, least_facing: float) -> Float[ndarray, "N 3"]:
        """Points put on the tangent plane of what is seen nearest to them, no farther than twice the `reach` (world
        units); the others, and all without normals, stay."""
        if self.normal is None or not np.isfinite(reach) or not len(points):
            return points
        known = np.where(np.isfinite(points), points, 0.0)
        tiled = np.broadcast_to(known, (len(self.K), *points.shape))
        pixels = project(known, self.K, self.world_to_camera)[..., :2]
        grid = np.stack(np.meshgrid(_GRID, _GRID), axis=-1).reshape(-1, 2)
        away = self._pixels_of(tiled, reach)[..., None, None] * grid
        views, count = pixels.shape[:2]
        # at pixels' centres, where maps are exact
        around = np.floor(pixels[:, :, None] + away).reshape(views, -1, 2) + 0.5
        seen, normal = self.under(around)
        assert normal is not None
        _, direction = pixel_rays(around, self.K, self.world_to_camera)
        facing = np.abs((normal * direction).sum(-1)).reshape(views, count, -1)
        seen, normal = (part.reshape(views, count, -1, 3) for part in (seen, normal))
        distance = np.linalg.norm(seen - known[:, None], axis=-1)
        distance = np.where((facing >= least_facing) & np.isfinite(distance), distance, np.inf)
        flat = distance.transpose(1, 0, 2).reshape(count, -1)
        view, place = np.unravel_index(flat.argmin(1), (views, len(grid)))
        row = np.arange(count)
        here, upright = seen[view, row, place], normal[view, row, place]
        moved = points - ((points - here) * upright).sum(-1, keepdims=True) * upright
        return np.where((flat.min(1) < 2 * reach)[:, None], moved, points)

    def _pixels_of(self, points: Float[ndarray, "C N 3"], length: float) -> Float[ndarray, "C N"]:
        """How many pixels a length (world units) has at points."""
        camera = self.world_to_camera[:, None]
        depth = (camera[..., 2, :3] * points).sum(-1) + camera[..., 2, 3]
        return np.asarray(length * self.K[:, None, 0, 0] / np.where(depth > 0, depth, np.inf))
