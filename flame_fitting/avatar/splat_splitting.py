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
    for _ in range(2):
        out = _along_longest(out, most)
    return out


def _along_longest(splats: Splats, most: float) -> Splats:
    count = np.minimum(np.ceil(2 * _REACH * splats.scales.max(axis=1) / (_SPACING * most)), _MOST).astype(int)
    count[splats.scales.max(axis=1) <= most] = 1
    parent = np.repeat(np.arange(len(splats)), count)
    number = np.arange(len(parent)) - np.repeat(np.cumsum(count) - count, count)
    out, several = splats.taken(parent), count[parent] > 1
    axis = splats.scales.argmax(axis=1)[parent]
    size = splats.scales.astype(np.float64)[parent, axis]
    step = 2 * _REACH * size / count[parent]
    along = (number - 0.5 * (count[parent] - 1)) * step
    direction = np.take_along_axis(splats.rotations[parent], axis[:, None, None], axis=2)[..., 0]
    means = out.means + np.where(several, along, 0.0)[:, None] * direction
    scales = out.scales.copy()
    scales[several, axis[several]] = (step / _SPACING)[several]
    wanted = splats.opacities[parent] * np.exp(-0.5 * (along / size) ** 2)
    opacities = np.where(several, _alone(wanted), out.opacities)
    return replace(out, means=means, scales=scales, opacities=opacities.astype(np.float32))


def _alone(together: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Opacities of splats in a row that hide so much together, at the middle of each."""
    a = np.linspace(0, 1, 1001)
    beside, beyond = (np.exp(-0.5 * (k * _SPACING) ** 2) for k in (1, 2))
    return np.interp(together, 1 - (1 - a) * (1 - beside * a) ** 2 * (1 - beyond * a) ** 2, a)
