"""Splats that are moved: their places, shapes and colours under maps of space that differ from splat to splat."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from flame_fitting.avatar.bound_splats import quats_of
from flame_fitting.avatar.splats import SH_C0, Splats

_RIGID = 1e-7
"""How far the products of a map's columns are from those of a rotation's."""


def moved(splats: Splats, means: Float[np.ndarray, "N 3"], maps: Float[np.ndarray, "N 3 3"]) -> Splats:
    """Splats with other centres whose surroundings go through `maps`, none of which may mirror.

    Covariances become M S M^T, exactly; colours turn with the rotation in the map (its polar factor).
    """
    own = splats.rotations
    rigid = np.abs(np.swapaxes(maps, 1, 2) @ maps - np.eye(3)).max(axis=(1, 2), initial=0.0) < _RIGID
    same = rigid & (np.abs(maps - np.eye(3)).max(axis=(1, 2), initial=0.0) < _RIGID)
    axes, scales, turns = maps @ own, splats.scales.astype(np.float64), np.array(maps, dtype=np.float64)
    bent = np.flatnonzero(~rigid)
    u, stretch, _ = np.linalg.svd(axes[bent] * scales[bent, None, :])
    u[np.linalg.det(u) < 0, :, 2] *= -1  # an axis has no sign
    axes[bent], scales[bent], turns[bent] = u, stretch, polar_rotations(maps[bent])
    quats = np.array(splats.quats, dtype=np.float64)
    if not same.all():
        quats[~same] = quats_of(axes[~same])
    return replace(
        splats,
        means=np.asarray(means, dtype=np.float64),
        scales=scales.astype(np.float32),
        quats=quats.astype(np.float32),
        sh=turned_sh(splats.sh, turns),
    )


def placed(splats: Splats, matrix: Float[np.ndarray, "4 4"]) -> Splats:
    """Splats where a similarity takes them."""
    count, linear = len(splats), np.asarray(matrix, dtype=np.float64)[:3, :3]
    scale = np.cbrt(np.linalg.det(linear))
    turn = linear / scale
    return replace(
        splats,
        means=splats.means @ linear.T + matrix[:3, 3],
        scales=(scale * splats.scales.astype(np.float64)).astype(np.float32),
        quats=quats_of(turn @ splats.rotations).astype(np.float32),
        sh=turned_sh(splats.sh, np.broadcast_to(turn, (count, 3, 3))),
    )


def polar_rotations(maps: Float[np.ndarray, "N 3 3"]) -> Float[np.ndarray, "N 3 3"]:
    """The rotation next to each map."""
    u, _, vt = np.linalg.svd(maps)
    u[np.linalg.det(u @ vt) < 0, :, 2] *= -1
    return np.asarray(u @ vt)


def turned_sh(sh: Float[np.ndarray, "N K 3"], rotations: Float[np.ndarray, "N 3 3"]) -> Float[np.ndarray, "N K 3"]:
    """Coefficients of colours that turn with their splats: what was seen from d is now seen from R d.

    Rotations mix the 2 l + 1 functions of a degree among themselves alone: their values in as many directions tell how.
    """
    out = np.array(sh, dtype=np.float64)
    turns = ~(np.abs(rotations - np.eye(3)) < 1e-9).all(axis=(1, 2)) & (
        np.abs(sh[:, 1:]).max(axis=(1, 2), initial=0) > 0
    )
    rows = np.flatnonzero(turns)
    if not len(rows):
        return np.asarray(sh)
    for degree in range(1, int(np.sqrt(sh.shape[1]))):
        band = slice(degree**2, (degree + 1) ** 2)
        directions = _DIRECTIONS[: 2 * degree + 1]
        before = sh_basis(np.einsum("nji,kj->nki", rotations[rows], directions), degree)[..., band]
        mixing = np.linalg.inv(sh_basis(directions, degree)[:, band]) @ before
        out[rows, band] = mixing @ out[rows, band]
    return out.astype(np.float32)


def sh_basis(directions: Float[np.ndarray, "*N 3"], degree: int) -> Float[np.ndarray, "*N K"]:
    """Values of the real spherical harmonics up to `degree` (at most 3) in unit directions, as 3DGS has them."""
    x, y, z = np.moveaxis(np.asarray(directions, dtype=np.float64), -1, 0)
    xx, yy, zz = x * x, y * y, z * z
    values = [np.full_like(x, SH_C0)]
    values += [0.4886025119029199 * each for each in (-y, z, -x)]
    a, b = 1.0925484305920792, 2.890611442640554
    values += [a * x * y, -a * y * z, 0.31539156525252005 * (2 * zz - xx - yy), -a * x * z, 0.5 * a * (xx - yy)]
    c, d = 0.5900435899266435, 0.4570457994644658
    values += [-c * y * (3 * xx - yy), b * x * y * z, -d * y * (4 * zz - xx - yy)]
    values += [0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy), -d * x * (4 * zz - xx - yy)]
    values += [0.5 * b * z * (xx - yy), -c * x * (xx - 3 * yy)]
    return np.stack(values[: (degree + 1) ** 2], axis=-1)


_DIRECTIONS = np.random.default_rng(2542).normal(size=(7, 3))
_DIRECTIONS /= np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)
"""Of which the first 2 l + 1 tell the functions of degree l apart, well conditioned."""
