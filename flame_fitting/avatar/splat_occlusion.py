"""Which side of each splat is outside, and how much of the sky it sees: from small squares in their place.

Means of meshes do it: a splat is a square with two sides.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.render_scene import build_scene as build_mesh_scene
from flame_fitting.avatar.render_scene import open_sky_by_side
from flame_fitting.avatar.splats import Splats, middle

_HALF = 1.5
"""Half of a square's side in standard deviations."""
_MOST = 40_000
"""Squares; where there are more splats, the others see what the nearest of these does."""
_LEAST_OPACITY = 0.3
"""Fainter splats hide nothing."""
_NEIGHBOURS = 24
"""Splats whose median is taken: each by itself is hidden or not by its neighbours' squares, as chance has it."""


@dataclass(frozen=True, eq=False)
class Outside:
    """What light needs to know of each splat."""

    normals: Float[np.ndarray, "N 3"]
    """Unit, along the shortest axis, toward the side that sees more of the sky."""
    open_sky: Float[np.ndarray, " N"]
    """Share of the sky that this side sees, 0..1."""


def outside_of(splats: Splats, seed: int = 0) -> Outside:
    """By shadow maps from all around."""
    from scipy.spatial import cKDTree

    order = np.argsort(-splats.scales, axis=1)
    normals = np.take_along_axis(splats.rotations, order[:, None, 2:], axis=2)[..., 0]
    solid = np.flatnonzero(splats.opacities >= _LEAST_OPACITY)
    if not len(solid):
        return Outside(normals, np.ones(len(splats)))
    factor = 1.0
    if len(solid) > _MOST:
        factor = np.sqrt(len(solid) / _MOST)
        solid = np.sort(np.random.default_rng(seed).choice(solid, _MOST, replace=False))
    center, radius = middle(splats.means, 0.999)
    chosen = splats.taken(solid).normalized(center, radius)
    longest = order[solid, :2]
    axes = np.take_along_axis(chosen.rotations, longest[:, None, :], axis=2)
    halves = _HALF * factor * np.take_along_axis(chosen.scales.astype(np.float64), longest, axis=1)
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners = chosen.means[:, None] + np.einsum("nij,nj,kj->nki", axes, np.minimum(halves, 0.1), signs)
    first = 4 * np.arange(len(solid))[:, None]
    faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    corner_normals = np.repeat(normals[solid], 4, axis=0)
    scene = build_mesh_scene([MeshPart(corners.reshape(-1, 3), faces, normals=corner_normals, double_sided=True)])
    sides = open_sky_by_side(scene).reshape(2, -1, 4).mean(axis=2)
    out = np.where(sides[:1] >= sides[1:], 1.0, -1.0).T * normals[solid]
    near = cKDTree(splats.means[solid]).query(splats.means, k=min(_NEIGHBOURS, len(solid)))[1]
    near = near.reshape(len(splats), -1)
    # a single one may be wrong about its sides where it is hidden by its neighbours' squares
    agree = np.einsum("nc,nkc->n", normals, out[near])
    turned = np.where(agree >= 0, 1.0, -1.0)[:, None] * normals
    return Outside(turned, np.median(sides.max(axis=0)[near], axis=1))
