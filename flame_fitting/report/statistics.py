"""Numbers over the vertices of a region, weighted by the area around each."""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.fit.region_weights import vertex_areas
from flame_fitting.maths.quantiles import interpolated_quantiles

REGIONS = ("face", "nose", "lips", "eyes", "forehead", "ears", "neck", "scalp", "chin", "left_cheek", "right_cheek")
"""Regions that are measured, where a head model has them."""


def weighted_stats(values: Float[ndarray, " N"], weights: Float[ndarray, " N"]) -> dict[str, float] | None:
    """Weighted median, mean and 95th percentile; None without values."""
    keep = np.isfinite(values) & (weights > 0)
    values, weights = values[keep], weights[keep]
    if len(values) == 0:
        return None
    median, p95 = interpolated_quantiles(values, weights, (0.5, 0.95))
    return {"median": float(median), "mean": float(np.average(values, weights=weights)), "p95": float(p95)}


def area_of_vertices(vertices: Float[ndarray, "V 3"], faces: ndarray) -> Float[ndarray, " V"]:
    """A third of the area of the triangles around each vertex."""
    return np.asarray(vertex_areas(torch.as_tensor(vertices), torch.as_tensor(faces)))
