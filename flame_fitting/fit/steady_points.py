"""Points that a moving head does not explain: rims that slide, glints, what was lost on the way.

A corner on the outline of a nose or a jaw is another spot of the skin in every picture. A fit that is nearly right
tells: whatever place on the skin is assumed for such a point, it is not seen where that place goes.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.losses.robust import geman_mcclure_weight
from flame_fitting.fit.skin_points import Shown, SkinPoints
from flame_fitting.render.shading import triangle_axes

_FAR = 0.003
"""m: standard deviation of the place on the skin, along each axis, from where the fit has it."""
_NOISE = 0.3
"""px, of a place in a picture."""
_MOST = 3.0
"""px that one picture counts for at most."""
_FACTOR, _LEAST = 2.0, 0.25
"""A point is unsteady where it is off by so many times what the middle point is, and by so much, px."""


def steady(points: SkinPoints, shown: Shown) -> SkinPoints:
    """The points without those that are unsteady about the head as it is shown."""
    off = unexplained(points, shown)
    kept = off <= max(_FACTOR * _middle(off), _LEAST)
    own = {name: getattr(points, name)[kept] for name in ("corners", "barycentric")}
    return replace(points, **own, place=points.place[:, kept], sigma=points.sigma[:, kept])


def typical(points: SkinPoints, shown: Shown) -> float:
    """What the middle point is off by, px (`unexplained`); 0 where there is none."""
    return _middle(unexplained(points, shown))


def _middle(off: Float[Tensor, " N"]) -> float:
    known = torch.isfinite(off)
    return float(off[known].median()) if known.any() else 0.0


def unexplained(points: SkinPoints, shown: Shown) -> Float[Tensor, " N"]:
    """What each point is off by in the root mean square of its pictures, px, about the best place near the fit's skin.

    The place is one vector in the axes of the point's triangle, robustly and with a prior. NaN where a point is seen
    nowhere.
    """
    place, axes = _posed(points, shown)
    seen = torch.einsum("tac,tnc->tna", shown.camera[:, :3, :3], place) + shown.camera[:, None, :3, 3]
    focal, middle = shown.K[:, None, [0, 1], [0, 1]], shown.K[:, None, :2, 2]
    ratio = seen[..., :2] / seen[..., 2:]
    turned = torch.einsum("tab,tnbc->tnac", shown.camera[:, :3, :3], axes)
    slope = (focal / seen[..., 2:])[..., None] * (turned[..., :2, :] - ratio[..., None] * turned[..., 2:, :])
    found = points.found
    apart = torch.where(found[..., None], points.place - (focal * ratio + middle), 0.0)
    away, prior = apart.new_zeros(apart.shape[1], 3), torch.eye(3).to(apart) / _FAR**2
    left = apart
    for _ in range(5):
        weight = found * geman_mcclure_weight(left.norm(dim=-1), left.new_tensor(3 * _NOISE)) / _NOISE**2
        system = torch.einsum("tn,tnac,tnad->ncd", weight, slope, slope) + prior
        wanted = torch.einsum("tn,tnac,tna->nc", weight, slope, apart)
        away = torch.linalg.solve(system, wanted[..., None])[..., 0]
        left = apart - torch.einsum("tnac,nc->tna", slope, away)
    squared = torch.where(found, left.square().sum(-1).clamp_max(_MOST**2), 0.0)
    return (squared.sum(0) / found.sum(0)).sqrt()


def _posed(points: SkinPoints, shown: Shown) -> tuple[Float[Tensor, "T N 3"], Float[Tensor, "T N 3 3"]]:
    """Where the points are in every picture, and the axes of their triangles, as columns."""
    corners = shown.vertices[:, points.corners]
    return torch.einsum("tnkc,nk->tnc", corners, points.barycentric), triangle_axes(corners)
