"""How much of the sky each splat sees: from small squares in their place, with the means of meshes."""

import numpy as np
from jaxtyping import Float

from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.render_scene import ambient_occlusion
from flame_fitting.avatar.render_scene import build_scene as build_mesh_scene
from flame_fitting.avatar.splats import Splats, middle

_HALF = 1.5
"""Half of a square's side in standard deviations."""
_MOST = 40_000
"""Squares; where there are more splats, the others see what the nearest of these does."""
_LEAST_OPACITY = 0.3
"""Fainter splats hide nothing."""
_NEIGHBOURS = 24
"""Splats whose median is taken: each by itself is hidden or not by its neighbours' squares, as chance has it."""


def open_sky(splats: Splats, seed: int = 0) -> Float[np.ndarray, " N"]:
    """Share of the sky that each splat sees, 0..1."""
    from scipy.spatial import cKDTree

    solid = np.flatnonzero(splats.opacities >= _LEAST_OPACITY)
    if not len(solid):
        return np.ones(len(splats))
    factor = 1.0
    if len(solid) > _MOST:
        factor = np.sqrt(len(solid) / _MOST)
        solid = np.sort(np.random.default_rng(seed).choice(solid, _MOST, replace=False))
    center, radius = middle(splats.means, 0.999)
    chosen = splats.taken(solid).normalized(center, radius)
    order = np.argsort(-chosen.scales, axis=1)[:, :2]
    axes = np.take_along_axis(chosen.rotations, order[:, None, :], axis=2)  # of the two longest
    halves = _HALF * factor * np.take_along_axis(chosen.scales.astype(np.float64), order, axis=1)
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners = chosen.means[:, None] + np.einsum("nij,nj,kj->nki", axes, np.minimum(halves, 0.1), signs)
    first = 4 * np.arange(len(solid))[:, None]
    faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    normals = np.repeat(np.cross(axes[:, :, 0], axes[:, :, 1]), 4, axis=0)
    scene = build_mesh_scene([MeshPart(corners.reshape(-1, 3), faces, normals=normals, double_sided=True)])
    seen = ambient_occlusion(scene).reshape(-1, 4).mean(axis=1)
    near = cKDTree(splats.means[solid]).query(splats.means, k=min(_NEIGHBOURS, len(solid)))[1]
    return np.median(seen[near.reshape(len(splats), -1)], axis=1)
