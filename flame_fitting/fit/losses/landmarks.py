"""Losses of landmarks for first-order stages: in the pictures, and the opening of lids and lips in space."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.losses.robust import geman_mcclure
from flame_fitting.fit.targets import DetectionTarget, LandmarkTarget
from flame_fitting.landmarks.schemes import SCHEMES, scheme_named

_IBUG = SCHEMES["ibug68"]
N_IBUG, JAWLINE = _IBUG.n_points, len(_IBUG.groups["jawline"])
NOSE = (int(_IBUG.groups["nose"][0]), int(_IBUG.groups["nose"][-1]) + 1)
"""iBUG-68: all points, the jaw line ends before, and the nose."""
OPPOSITE = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65))
"""iBUG-68 points that face each other across an opening: upper and lower lids, upper and lower inner lips."""


def projected_landmark_loss(
    vertices: Float[Tensor, "V 3"],
    target: DetectionTarget,
    jawline: bool = True,
    nose_boost: float = 10.0,
    visible: bool = True,
) -> Float[Tensor, ""]:
    """Mean over views and points of weight * |projected - detected|_1, isotropic coordinates; as VHAP's.

    The mean is over all views that were searched and over the 68 points of iBUG, or the 51 without the jaw line where
    that is off; the irises come on top. With the jaw line the nose counts `nose_boost` times, without it once.
    `visible` leaves out points that look away from a camera, where detectors guess; VHAP takes them.
    """
    weight = target.weight if visible or target.confidence is None else target.confidence
    factor = (~target.outline).float()
    if jawline:
        factor = torch.where((target.ibug >= 0) & (target.ibug < JAWLINE), 1.0, factor)
        factor = torch.where((target.ibug >= NOSE[0]) & (target.ibug < NOSE[1]), nose_boost * factor, factor)
    counted = (N_IBUG if jawline else N_IBUG - JAWLINE) * max(target.searched, len(target.points))
    apart = (target.project(vertices) - target.points).abs().sum(-1)
    return (weight * factor * apart).sum() / counted


@dataclass(eq=False)
class ClosurePairs:
    """Landmarks across an opening: rows of a `LandmarkTarget`."""

    first: Tensor
    """(m,)."""
    second: Tensor
    """(m,)."""


def closure_pairs(target: LandmarkTarget, scheme: str) -> ClosurePairs | None:
    """The pairs of `OPPOSITE` of which both points were measured; None where there are none."""
    row = {int(index): number for number, index in enumerate(target.index)}
    ids = scheme_named(scheme).ibug68[np.array(OPPOSITE)]
    pairs = [(row[a], row[b]) for a, b in ids.tolist() if a in row and b in row]
    if not pairs:
        return None
    first, second = torch.tensor(pairs, device=target.corners.device).unbind(1)
    return ClosurePairs(first, second)


def closure_loss(
    vertices: Float[Tensor, "V 3"], target: LandmarkTarget, pairs: ClosurePairs, cut: float = 4.0
) -> Float[Tensor, ""]:
    """Mean over the pairs of the squared difference between the model's and the measured opening, robust.

    In squared standard deviations, those of both points together; an error that both points share costs nothing, so a
    lid that is as open as measured counts as right where the whole eye is off.
    """

    def side(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        corners = target.corners.index_select(0, rows)
        model = vertices.index_select(0, corners.reshape(-1)).reshape(-1, 3, 3)
        weights = target.barycentric.index_select(0, rows).to(vertices)
        points = target.points.index_select(0, rows).to(vertices)
        return (model * weights[..., None]).sum(1), points, target.sigma.index_select(0, rows).to(vertices)

    (model_a, point_a, sigma_a), (model_b, point_b, sigma_b) = side(pairs.first), side(pairs.second)
    apart = (model_a - model_b) - (point_a - point_b)
    squared = apart.square().sum(-1) / (sigma_a.square() + sigma_b.square())
    return geman_mcclure(squared, cut).mean()
