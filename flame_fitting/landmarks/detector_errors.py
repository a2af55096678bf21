"""What a calibration says of a detector's errors: how large they are on a face, and how alike those of two are."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.landmarks.misfit import Expected
from flame_fitting.landmarks.schemes import FACE_PARTS, scheme_named

FACE_M = 0.042
"""RMS distance of a face's inner points from their middle, m."""
LEAST_SPREAD = 0.002
"""Share of a face's size below which no spread is believed."""
_TO_GROUP = 0.5
"""How far the spread of a point is drawn toward that of its part of the face: one capture says little of one point."""
LASTING_TO_GROUP = 0.9
"""The same of what is known of the few heads that a calibration saw."""
_WORTH, _WORTH_ASSUMED = 20.0, 2.0
"""How many observed coordinates of a part of the face (it has 24 to 36) count as much as a detector's error on drawn
heads, and as one that was calibrated without: read off drawn heads, half of which calibrated and half were merged."""
_OUTLYING = 4.0
"""Residuals of a calibration beyond so many standard deviations say nothing of how errors go together."""
_NEAR_YAW = 15.0
"""Pictures of drawn heads from within so many degrees tell of a picture."""
_ALIKE = 0.4
"""Correlation of two detectors' errors on a face where it was not measured."""


def expected_error(embedding: LandmarkEmbedding, yaw: float | None = None) -> Expected:
    """What the calibration says of a detector's error on a face, along one axis: from the drawn heads, else (as good
    as nothing) from how much views of the template disagreed. Of points in space, or, with a `yaw` in degrees, of those
    in single pictures from there."""
    residual = _residuals(embedding, yaw)
    inner = scheme_named(embedding.scheme).inner
    if residual is None:
        variance = (embedding.spread_mm[inner].astype(np.float64)) ** 2 / 3
    else:
        square = (residual**2).sum(-1) / residual.shape[-1]
        # a mouth that is taken for another one is no usual error
        square = np.minimum(square, 6 * median_known(square.reshape(-1, 51)))
        # the places are the middle of these very heads; another one lies as far from it as they, and a little more
        heads = len(residual)
        variance = _mean(square.reshape(-1, 51)) * (heads + 1) / max(heads - 1, 1)
    std = FACE_M * steadied(0.001 * np.sqrt(variance) / FACE_M, FACE_PARTS, LASTING_TO_GROUP)
    return Expected(std, _WORTH_ASSUMED if residual is None else _WORTH)


def _residuals(embedding: LandmarkEmbedding, yaw: float | None) -> Float[ndarray, "heads views 51 _"] | None:
    """mm on drawn heads: of points in space (one view, 3 coordinates), or in the pictures from about a yaw (2)."""
    if embedding.residual_mm is None or not len(embedding.residual_mm):
        return None
    if yaw is None or embedding.picture_mm is None or embedding.picture_yaw is None:
        return embedding.residual_mm.astype(np.float64)[:, None]
    # heads are drawn as often with one cheek as with the other
    away = np.abs(np.abs(embedding.picture_yaw) - abs(yaw))
    return embedding.picture_mm[:, away <= max(_NEAR_YAW, float(away.min()))].astype(np.float64)


def correlation(
    embeddings: Sequence[LandmarkEmbedding], lasting_share: Float[ndarray, "D 51"], yaw: float | None = None
) -> Float[ndarray, "51"]:
    """Correlation of detectors' whole errors, the mean over pairs. That of the lasting part of them, a share
    `lasting_share` of each, is measured on the drawn heads, which are the same for all; noise is independent. `yaw` as
    of `expected_error`."""
    out = []
    for first, second in itertools.combinations(range(len(embeddings)), 2):
        one, other = (_residuals(embeddings[k], yaw) for k in (first, second))
        alike = _ALIKE
        if one is not None and other is not None and one.shape[1:] == other.shape[1:]:
            count, scaled = min(len(one), len(other)), []
            for embedding, residual in ((embeddings[first], one[:count]), (embeddings[second], other[:count])):
                usual = expected_error(embedding, yaw).std[:, None]
                there = residual / (1000 * np.sqrt(residual.shape[-1]) * usual)
                scaled.append(np.where(np.linalg.norm(there, axis=-1, keepdims=True) < _OUTLYING, there, np.nan))
            both = (scaled[0] * scaled[1]).sum(-1)
            alike = float(np.clip(np.nanmean(both), 0.0, 0.8)) if np.isfinite(both).any() else _ALIKE
        out.append(alike * lasting_share[first] * lasting_share[second])
    return np.mean(out, axis=0)


def steadied(spread: ndarray, groups: Mapping[str, ndarray], to_group: float = _TO_GROUP) -> ndarray:
    """Drawn toward the median of the part of the face, in logarithms; parts without a value take that of all."""
    known = np.isfinite(spread)
    logs = np.log(np.maximum(np.where(known, spread, 1.0), LEAST_SPREAD))
    usual = float(np.median(logs[known])) if known.any() else np.log(LEAST_SPREAD)
    of_part = np.full(len(spread), usual)
    for name in ("brows", "nose", "eyes", "irises", "outer_lips", "inner_lips"):
        index = groups.get(name, np.zeros(0, dtype=int))
        if len(index) and known[index].any():
            of_part[index] = np.median(logs[index][known[index]])
    return np.exp(np.where(known, (1 - to_group) * logs + to_group * of_part, of_part))


def _mean(values: ndarray) -> ndarray:
    """Over the first axis, NaN left out; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def median_known(values: ndarray) -> ndarray:
    """Over the first axis, NaN left out; NaN where nothing is."""
    out = np.full(values.shape[1:], np.nan)
    known = np.isfinite(values).any(0)
    out[known] = np.nanmedian(values[:, known], axis=0)
    return out
