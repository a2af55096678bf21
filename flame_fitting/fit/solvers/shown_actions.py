"""Which facial actions a face shows: what identity, rest and offsets explain less well.

A smile moves the skin as no identity does, but an offset may: so what is left over is looked at with all explanations
in play. Around a fit as at rest the surface's distances and the landmarks y are linear in everything,
    y = A_s s + A_e e + A_p p + A_e D' a + o + noise,
with identity s and the small expression e of a face at rest by their priors, pose p hardly known, static offsets o a
Gaussian process (Luethi et al., "Gaussian process morphable models", PAMI 2018) whose size the face itself tells, and
few amounts a of actions D. With all but a integrated out y tells the amounts by a quadratic likelihood, and so do a
detector's scores (`landmarks.action_scores`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.linalg import cho_factor, cho_solve

from flame_fitting import assets
from flame_fitting.fit.losses.robust import geman_mcclure_weight
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.evidence_terms import evidence_of
from flame_fitting.fit.solvers.jacobians import Linearizer
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.head.actions import Actions, choices_of
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.action_scores import (
    ActionScores,
    FoundAction,
    Likelihood,
    found_actions,
    likelihood_of_scores,
)
from flame_fitting.render.shading import vertex_normals

_POINTS = 700
"""Points of the face that are looked at."""
_REACH = 0.008
"""Metres that the surface is away from the head at most."""
_NOISE = 0.0004
"""Of a point's distance to the surface, m, by itself."""
_CUT = 0.004
"""Distances, m, beyond which what is seen is no skin: hair, glasses (Geman-McClure)."""
_MARK, _MARK_REACH = 0.0015, 0.01
"""Deviation of a landmark's error along each axis, m, once by itself and once together with those within a reach."""
_SURE = 0.25
"""Weight beside the others' above which a landmark counts."""
_WAVES = (0.015, 0.04)
"""Widths of the offsets' kernels, m, alike in weight."""
_SIZES = (0.0003, 0.0006, 0.001, 0.0015, 0.002, 0.003)
"""Standard deviations of offsets, m, of which the likeliest is taken."""
_POSE = 1.0
"""Of what is hardly known, m and rad."""
_PLACES = ("placement", "rotation", "translation", "neck_pose", "jaw_pose")


@dataclass(frozen=True, eq=False)
class Shown:
    """Actions that a face shows, and the expression coefficients of each."""

    actions: tuple[FoundAction, ...]
    directions: Float[ndarray, "K E"]
    """Of an amount of 1."""


def shown_actions(
    head: HeadModel,
    parameters: FitParameters,
    target: FrameTarget,
    surface: SurfaceWeights | None,
    prior: PriorConfig,
    actions: Actions,
) -> Shown:
    """What a face shows, by parameters that were fitted to it as if it were at rest; a single moment."""
    choices = choices_of(actions.names)
    directions = np.array([actions.expression(dict.fromkeys(names, 1.0)) for names in choices])
    told = likelihood_of_shape(head, parameters, target, surface, prior, directions)
    evidence = evidence_of([target]).get(0)
    if evidence is not None and np.isfinite(odds := evidence.odds_of(calibrated_scores().scores)).all():
        told = told + likelihood_of_scores(calibrated_scores(), odds, choices)
    found = found_actions(told, choices)
    return Shown(tuple(found), directions[[choices.index(one.names) for one in found]])


@lru_cache(maxsize=1)
def calibrated_scores() -> ActionScores:
    """How the scores of the detector that has some tell actions."""
    return ActionScores.load(assets.shipped_action_scores_path("mediapipe"))


def likelihood_of_shape(
    head: HeadModel,
    parameters: FitParameters,
    target: FrameTarget,
    surface: SurfaceWeights | None,
    prior: PriorConfig,
    directions: Float[ndarray, "K E"],
) -> Likelihood:
    """Of the amounts of actions, expression coefficients `directions` each, as surface and landmarks tell them."""
    columns = Columns.of(head, [*_PLACES, "shape", "expr"])
    vertices, jacobian = Linearizer(head, columns)(parameters, 0)
    seen = _landmarks(target, vertices, jacobian)
    if surface is not None and target.surface is not None:
        seen = _together(_surface(head, target, surface, vertices, jacobian), seen)
    slices, rows = columns.slices(), seen.rows
    shape, expr = rows[:, slices["shape"]], rows[:, slices["expr"]]
    places = np.delete(rows, np.r_[slices["shape"], slices["expr"]], axis=1)
    # identity and expression count from their means
    away = seen.away + shape @ parameters.shape.detach().cpu().numpy()
    away = away + expr @ parameters.expr[0].detach().cpu().numpy()
    known = prior.shape**2 * shape @ shape.T + prior.expr**2 * expr @ expr.T + _POSE**2 * places @ places.T
    along, marks = seen.directions @ seen.directions.T, np.outer(seen.is_mark, seen.is_mark)
    known += np.diag(seen.noise**2) + _MARK**2 * marks * along * kernel(seen.points, (_MARK_REACH,))
    factors = _likeliest(known, along * kernel(seen.points, _WAVES), away)
    moved = expr @ directions[:, : expr.shape[1]].T
    weighed = cho_solve(factors, moved)
    return Likelihood(weighed.T @ away, moved.T @ weighed)


def _likeliest(
    known: Float[ndarray, "N N"], offsets: Float[ndarray, "N N"], away: Float[ndarray, " N"]
) -> tuple[ndarray, bool]:
    """Factors of the covariance with offsets of the size of which `away` is likeliest."""
    found = []
    for deviation in _SIZES:
        factors = cho_factor(known + deviation**2 * offsets, lower=True)[0], True
        cost = 0.5 * float(away @ cho_solve(factors, away)) + float(np.log(factors[0].diagonal()).sum())
        found.append((cost, factors))
    return min(found, key=lambda one: one[0])[1]


def kernel(points: Float[ndarray, "N 3"], widths: Sequence[float]) -> Float[ndarray, "N N"]:
    """Mean of Gaussian kernels of several widths; 1 on the diagonal."""
    squared = (points**2).sum(1)
    apart = np.maximum(squared[:, None] + squared[None] - 2 * points @ points.T, 0)
    return np.asarray(np.mean([np.exp(-apart / (2 * width**2)) for width in widths], axis=0))


@dataclass(frozen=True, eq=False)
class _Seen:
    """Distances along directions."""

    away: Float[ndarray, " N"]
    """From the head to what is seen, m."""
    rows: Float[ndarray, "N P"]
    points: Float[ndarray, "N 3"]
    directions: Float[ndarray, "N 3"]
    noise: Float[ndarray, " N"]
    is_mark: Float[ndarray, " N"]


def _together(one: _Seen, other: _Seen) -> _Seen:
    return _Seen(**{name: np.concatenate([value, getattr(other, name)]) for name, value in one.__dict__.items()})


def _surface(
    head: HeadModel, target: FrameTarget, surface: SurfaceWeights, vertices: torch.Tensor, jacobian: torch.Tensor
) -> _Seen:
    """Of the face's skin along the surface's normals."""
    assert target.surface is not None
    chosen = _skin_of(head, surface)
    normals = vertex_normals(vertices[None], head.faces)[0][chosen]
    index, found = target.surface.closest(vertices[chosen], normals, _REACH)
    chosen, index = chosen[found], index[found]
    points, planes = (values[index] for values in target.surface.tensors(vertices))
    away = (planes * (points - vertices[chosen])).sum(-1)
    weight = geman_mcclure_weight(away, torch.full_like(away, _CUT)).clamp_min(1e-6)
    rows = torch.einsum("nc,ncp->np", planes, jacobian[chosen])
    variance = _NOISE**2 + surface.trust.noise**2 + target.surface.variance(index, away)
    noise = variance.sqrt() / weight.sqrt()
    return _Seen(*_arrays(away, rows, vertices[chosen], planes, noise), np.zeros(len(chosen)))


def _arrays(*values: torch.Tensor) -> tuple[ndarray, ndarray, ndarray, ndarray, ndarray]:
    away, rows, points, directions, noise = (value.detach().cpu().numpy() for value in values)
    return away, rows, points, directions, noise


def _skin_of(head: HeadModel, surface: SurfaceWeights) -> Int[torch.Tensor, " n"]:
    """As many vertices of the face as are looked at, evenly chosen."""
    face = head.region_mask("face") & ~head.region_mask("eyeballs", "lip_inside", "teeth", "nostrils")
    some = torch.nonzero(face & (surface.vertex > 0))[:, 0]
    return some[torch.linspace(0, len(some) - 1, min(_POINTS, len(some)), device=some.device).round().long()]


def _landmarks(target: FrameTarget, vertices: torch.Tensor, jacobian: torch.Tensor) -> _Seen:
    """Of points in space along all axes; every second one of many."""
    none, points = np.zeros(0), np.zeros((0, 3))
    out = _Seen(none, np.zeros((0, jacobian.shape[-1])), points, points, none, none)
    for source in target.sources:
        marks = source.landmarks
        chosen = torch.nonzero(marks.weight > _SURE)[::2, 0]
        corners, shares = marks.corners[chosen], marks.barycentric[chosen]
        at = torch.einsum("nkc,nk->nc", vertices[corners], shares)
        rows = torch.einsum("nkcp,nk->ncp", jacobian[corners], shares)
        away, sigma = marks.points[chosen] - at, marks.sigma[chosen].clamp_min(_MARK) / max(source.share, 1e-6) ** 0.5
        for axis in range(3):
            direction = torch.eye(3).to(at)[axis].expand_as(at)
            out = _together(
                out, _Seen(*_arrays(away[:, axis], rows[:, axis], at, direction, sigma), np.ones(len(chosen)))
            )
    return out
