"""How far the neutral heads of two fits lie apart: what two avatars of one person should have in common."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.similarity import apply_similarity, umeyama
from flame_fitting.errors import InputError
from flame_fitting.head.model import HeadModel
from flame_fitting.report.statistics import area_of_vertices, weighted_stats

if TYPE_CHECKING:
    from flame_fitting.fit.result import FitResult

REGIONS = ("face", "lips", "eyelids")
"""Where neutral heads are compared."""
STILL_REGIONS = ("face", "forehead", "nose", "ears")
STILL_MM = 0.5
"""Root mean square of what expressions of one sigma move a point by, at most, for it to stand still, ..."""
STILLEST = 0.25
"""... but never less than this share of the points of these regions that are not the jaw's."""
_MOVING = ("eyelids", "lips", "lip_inside", "eyeballs", "teeth")
_UNMOVED = 0.01
"""Of another joint's skinning weight."""


def still_mask(head: HeadModel) -> Bool[ndarray, " V"]:
    """Points of face and ears that take no part in expressions: neither components nor jaw move them much.

    Heads are aligned by them. Where the head ends and the neck begins to turn it is no part of an identity.
    """
    moved = 1000 * head.exprdirs.square().sum((1, 2)).sqrt()
    own = (head.weights[:, 2] < _UNMOVED) & (head.weights[:, 0] < _UNMOVED)
    mask = head.region_mask(*STILL_REGIONS) & ~head.region_mask(*_MOVING) & own
    if not mask.any():
        raise InputError(f"the head model {head.name} has no face that its jaw leaves alone: heads cannot be aligned.")
    limit = max(STILL_MM, float(moved[mask].quantile(STILLEST)))
    return (mask & (moved <= limit)).cpu().numpy()


def neutral_vertices(fit: "FitResult", head: HeadModel) -> Float[ndarray, "V 3"]:
    """The fitted head at rest, looking straight ahead: shape and static offsets alone; head space, metres."""
    import torch

    tensors = {key: torch.as_tensor(fit.parameters[key]).to(head.v_template) for key in ("shape", "static_offset")}
    with torch.no_grad():
        return head(**tensors).vertices[0].double().cpu().numpy()


def rigidly_aligned(
    head: HeadModel, vertices: Float[ndarray, "V 3"], target: Float[ndarray, "V 3"]
) -> Float[ndarray, "V 3"]:
    """`vertices` turned and shifted onto `target` by the points of `still_mask`, by area; not scaled."""
    still = still_mask(head)
    areas = area_of_vertices(target, head.faces.cpu().numpy())
    return apply_similarity(umeyama(vertices[still], target[still], areas[still], with_scale=False), vertices)


def agreement(head: HeadModel, one: Float[ndarray, "V 3"], other: Float[ndarray, "V 3"]) -> dict[str, dict[str, float]]:
    """Distance between the vertices of two neutral heads (metres), aligned rigidly: median, mean, p95 by region, mm."""
    apart = 1000 * np.linalg.norm(rigidly_aligned(head, one, other) - other, axis=1)
    areas = area_of_vertices(0.5 * (one + other), head.faces.cpu().numpy())
    out = {}
    for name in REGIONS:
        ids = head.regions[name].cpu().numpy() if name in head.regions else np.zeros(0, dtype=np.int64)
        if (stats := weighted_stats(apart[ids], areas[ids])) is not None:
            out[name] = stats
    return out


def agreement_table(found: dict[str, dict[str, float]]) -> str:
    """What `agreement` found, as text."""
    lines = [f"{'neutral heads apart, mm':<24}{'median':>8}{'mean':>8}{'95 %':>8}"]
    for name, stats in found.items():
        lines.append(f"{name:<24}" + "".join(f"{stats[key]:8.2f}" for key in ("median", "mean", "p95")))
    lines.append("(medians on synthetic heads: fits of one person 0.4 mm apart on the face, of two persons 4 to 8)")
    return "\n".join(lines)
