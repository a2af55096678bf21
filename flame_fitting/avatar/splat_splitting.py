"""Large splats as several small ones that look alike, so that what lies under them can bend and part."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from flame_fitting.avatar.splats import Splats

_SPACING = 1.5
"""Of small splats in a row, in their own standard deviations."""
_REACH = 2.2
"""Standard deviations of a large splat that small ones stand in for."""
_MOST = 9
"""Small splats along one axis, at most."""


def split(splats: Splats, most: float) -> Splats:
    """The same splats, with no standard deviation of their two longest axes much above `most`; `row` names parents.

    What is seen stays all but the same: opacities of rows of overlapping splats come up to that of the large one.
    """
    out = splats if splats.row is not None else replace(splats, row=np.arange(len(splats)))
    order = np.argsort(-out.scales, axis=1, kind="stable")[:, :2]
    size = np.take_along_axis(out.scales.astype(np.float64), order, axis=1)
    count = np.minimum(np.ceil(2 * _REACH * size / (_SPACING * most)), _MOST).astype(int)
    count[size <= most] = 1
    total = count.prod(axis=1)
    parent = np.repeat(np.arange(len(out)), total)
    number = np.arange(len(parent)) - np.repeat(np.cumsum(total) - total, total)
    place = np.stack(np.divmod(number, count[parent, 1]), axis=1)
    small, order, size, several = out.taken(parent), order[parent], size[parent], count[parent] > 1
    step = 2 * _REACH * size / count[parent]
    along = np.where(several, (place - 0.5 * (count[parent] - 1)) * step, 0.0)
    axes = np.take_along_axis(small.rotations, order[:, None, :], axis=2)
    scales = small.scales.copy()
    np.put_along_axis(scales, order, np.where(several, step / _SPACING, size).astype(np.float32), axis=1)
    together = small.opacities * np.exp(-0.5 * ((along / np.maximum(size, 1e-30)) ** 2).sum(axis=1))
    opacities = small.opacities.astype(np.float64)
    for directions in (1, 2):
        rows = several.sum(axis=1) == directions
        opacities[rows] = _alone(together[rows], directions)
    return replace(
        small,
        means=small.means + np.einsum("ncd,nd->nc", axes, along),
        scales=scales,
        opacities=opacities.astype(np.float32),
    )


def _alone(together: Float[np.ndarray, " N"], directions: int) -> Float[np.ndarray, " N"]:
    """Opacities of splats in a row, or in rows in two directions, that hide so much together at the middle of each."""
    a, beside = np.linspace(0, 1, 1001), np.exp(-0.5 * (_SPACING * np.arange(-2, 3)) ** 2)
    shares = beside if directions == 1 else np.outer(beside, beside).ravel()
    return np.interp(together, 1 - np.prod(1 - a[:, None] * shares, axis=1), a)
