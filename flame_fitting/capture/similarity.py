"""Similarity transforms between point sets: closed form, robust, and taken apart."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray


@dataclass(frozen=True)
class SimilarityFit:
    """A similarity found by `robust_umeyama`."""

    matrix: Float[ndarray, "4 4"]
    """target_from_source, scale included."""
    residuals: Float[ndarray, " N"]
    """Distance of every mapped source point to its target, in target units; NaN where a point was missing."""
    weights: Float[ndarray, " N"]
    """Final weight of every point (given weight times robust weight), 0 where a point was missing."""

    @property
    def rms(self) -> float:
        """Weighted root mean square of the residuals, in target units."""
        used = self.weights > 0
        return float(np.sqrt(np.average(self.residuals[used] ** 2, weights=self.weights[used])))


def apply_similarity(matrix: Float[ndarray, "4 4"], points: Float[ndarray, "*B 3"]) -> Float[ndarray, "*B 3"]:
    """Map points by a 4x4 affine matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def similarity_matrix(scale: float, rotation: Float[ndarray, "3 3"], translation: Float[ndarray, "3"]) -> ndarray:
    """4x4 matrix of x -> scale * rotation @ x + translation."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * np.asarray(rotation, dtype=np.float64)
    matrix[:3, 3] = translation
    return matrix


def decompose_similarity(matrix: Float[ndarray, "4 4"]) -> tuple[float, ndarray, ndarray]:
    """Scale (> 0), rotation (3, 3; determinant -1 where the matrix mirrors) and translation (3,)."""
    linear = np.asarray(matrix, dtype=np.float64)[:3, :3]
    scale = float(np.cbrt(abs(np.linalg.det(linear))))  # a power of 1/3 loses a digit where the scale is far from 1
    return scale, linear / scale, np.asarray(matrix, dtype=np.float64)[:3, 3].copy()


def invert_similarity(matrix: Float[ndarray, "4 4"]) -> Float[ndarray, "4 4"]:
    """Inverse of a similarity (transposed rotation over scale: exact, no linear solve)."""
    scale, rotation, translation = decompose_similarity(matrix)
    return similarity_matrix(1.0 / scale, rotation.T, -rotation.T @ translation / scale)


def umeyama(
    source: Float[ndarray, "N 3"],
    target: Float[ndarray, "N 3"],
    weights: Float[ndarray, " N"] | None = None,
    with_scale: bool = True,
    mirrored: bool = False,
) -> Float[ndarray, "4 4"]:
    """Least-squares similarity target_from_source (Umeyama, PAMI 1991, eqs. 34-43), weighted.

    Args:
        source, target: corresponding points in any units.
        weights: non-negative, per point; equal where None.
        with_scale: False keeps the scale at 1.
        mirrored: look for the best transform of determinant -1 instead of +1.

    Raises:
        ValueError: fewer than three points of positive weight, or all of them on one line.
    """
    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    w = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    if source.shape != target.shape or np.count_nonzero(w > 0) < 3:
        raise ValueError("a similarity needs at least three corresponding points")
    w = w / w.sum()
    source_mean, target_mean = w @ source, w @ target
    a, b = source - source_mean, target - target_mean
    covariance = (b * w[:, None]).T @ a
    u, singular, vt = np.linalg.svd(covariance)
    if singular[1] <= 1e-12 * singular[0] or singular[0] == 0:
        raise ValueError("the points lie on one line: their similarity is not determined")
    sign = np.ones(3)
    handed = -1.0 if mirrored else 1.0
    if np.linalg.det(u) * np.linalg.det(vt) * handed < 0:
        sign[2] = -1.0
    rotation = (u * sign) @ vt
    scale = float(singular @ sign / (w @ (a**2).sum(1))) if with_scale else 1.0
    return similarity_matrix(scale, rotation, target_mean - scale * rotation @ source_mean)


def robust_umeyama(
    source: Float[ndarray, "N 3"],
    target: Float[ndarray, "N 3"],
    weights: Float[ndarray, " N"] | None = None,
    with_scale: bool = True,
    mirrored: bool = False,
    iterations: int = 20,
    cutoff: float = 2.5,
) -> SimilarityFit:
    """Similarity by iteratively re-weighted least squares with Geman-McClure weights.

    The residual scale is re-estimated from the median at every iteration, so the result does not depend on the units
    of either point set. Points that are not finite on either side are left out.

    Args:
        cutoff: residual, in robust standard deviations, at which a point's weight has fallen to a quarter.
    """
    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    prior = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64).copy()
    usable: Bool[ndarray, " N"] = np.isfinite(source).all(1) & np.isfinite(target).all(1) & (prior > 0)
    prior[~usable] = 0.0
    if np.count_nonzero(usable) < 3:
        raise ValueError("a similarity needs at least three corresponding points")
    residuals = np.full(len(source), np.nan)
    b, w0 = target[usable], prior[usable]
    # Around the origin and of size 1, so that neither rounding nor the stopping rule depends on where the source lies.
    a, normalization = _normalized(source[usable], with_scale)
    extent = float(np.sqrt(np.average(((b - b.mean(0)) ** 2).sum(1))))
    w = w0
    matrix = umeyama(a, b, w, with_scale, mirrored)
    for _ in range(iterations):
        r = np.linalg.norm(apply_similarity(matrix, a) - b, axis=1)
        # 1.54 = median of a 3-D Gaussian's norm in standard deviations.
        sigma = max(float(np.median(r)) / 1.54, 1e-9 * extent)
        w = w0 / (1.0 + (r / (cutoff * sigma)) ** 2) ** 2
        updated = umeyama(a, b, w, with_scale, mirrored)
        done = np.allclose(updated, matrix, rtol=1e-12, atol=1e-12 * extent)
        matrix = updated
        if done:
            break
    residuals[usable] = np.linalg.norm(apply_similarity(matrix, a) - b, axis=1)
    final = np.zeros(len(source))
    final[usable] = w
    return SimilarityFit(matrix @ normalization, residuals, final)


def _normalized(points: Float[ndarray, "N 3"], scaled: bool) -> tuple[ndarray, ndarray]:
    """Points around their mean, of mean square size 1 where `scaled`; and the (4, 4) matrix that did it."""
    mean = points.mean(0)
    centered = points - mean
    size = float(np.sqrt((centered**2).sum(1).mean())) if scaled else 1.0
    size = size if size > 0 else 1.0
    return centered / size, similarity_matrix(1.0 / size, np.eye(3), -mean / size)
