"""How much a detector's points disagree with themselves on a capture: over views, or over time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.camera import project
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.landmarks.detector_errors import FACE_M, LEAST_SPREAD, median_known, steadied
from flame_fitting.landmarks.lifting import Landmarks3D, triangulate
from flame_fitting.landmarks.outliers import face_sizes
from flame_fitting.landmarks.schemes import scheme_named

_WORST = 4.0
"""A picture counts for no more than so many times worse or better than usual."""
RAYLEIGH = 1.1774
"""Median length of a 2D error over its standard deviation along one axis."""


@dataclass(frozen=True, eq=False)
class Detected:
    """One detector's points in all pictures."""

    name: str
    landmarks: Float[ndarray, "T C N 3"]
    """x px, y px, confidence; NaN where nothing is."""
    embedding: LandmarkEmbedding
    """Where on the head it means its points; of the landmarks' order."""
    weight: float = 1.0
    """How much a user wants it to count beside its spread."""


@dataclass(frozen=True, eq=False)
class Cameras:
    """Of all views; `there` is false where a timestep and camera have none."""

    K: Float[ndarray, "T C 3 3"]
    world_to_camera: Float[ndarray, "T C 4 4"]
    there: Bool[ndarray, "T C"]
    calibrated: bool


@dataclass(frozen=True, eq=False)
class Spread:
    """How much a detector's points disagree on a capture."""

    values: Float[ndarray, " N"]
    """Standard deviation along one axis, as a share of the size of the face's inner points (`face_sizes`)."""
    how: str
    """`views`, `time` or `calibration`: what it was measured by."""
    worse: Float[ndarray, "T C"] | float = 1.0
    """How many times larger it is in each picture than usual: not all detectors can make much of a face from aside."""


def spread_of(detected: Detected, cameras: Cameras, lifted: Sequence[Landmarks3D] = ()) -> Spread:
    """The spread of a detector's points: over calibrated views where there are three, else over time, else (one
    picture) as the calibration saw it.

    `lifted` are the points on the capture's own surface, by timestep, where it has one (a static avatar): then it is
    the spread of the single views' points.
    """
    order = scheme_named(detected.embedding.scheme)
    if cameras.calibrated:
        distance = _from_views(detected, cameras)
        found = median_known(distance.reshape(-1, distance.shape[-1])) / RAYLEIGH
        worse = _by_view(distance[..., order.inner], found[order.inner] * RAYLEIGH)
        if lifted and any(one.valid.any() for one in lifted):
            found = _of_lifted(lifted, detected.embedding)
        if np.isfinite(found).sum() > 10:
            return Spread(steadied(found, order.groups), "views", worse)
    found = _over_time(detected)
    if np.isfinite(found).sum() > 10:
        return Spread(steadied(found, order.groups), "time")
    return Spread(steadied(0.001 * detected.embedding.spread_mm / FACE_M / RAYLEIGH, order.groups), "calibration")


def _of_lifted(lifted: Sequence[Landmarks3D], embedding: LandmarkEmbedding) -> ndarray:
    out = []
    for one in lifted:
        inner = one.points[scheme_named(one.scheme).inner]
        inner = inner[np.isfinite(inner).all(1)]
        if len(inner) > 10:
            size = float(np.sqrt(((inner - inner.mean(0)) ** 2).sum(1).mean()))
            out.append(one.spread / size / RAYLEIGH)
    return median_known(np.array(out)) if out else np.full(len(embedding.face_index), np.nan)


def _from_views(detected: Detected, cameras: Cameras) -> Float[ndarray, "T C N"]:
    """Distance of each detection from the reprojection of what all views make together; NaN where fewer than three
    saw the point."""
    out = np.full(detected.landmarks.shape[:3], np.nan)
    for step in range(len(out)):
        landmarks = detected.landmarks[step]
        seen = np.isfinite(landmarks).all(-1) & cameras.there[step, :, None]
        seen &= np.nan_to_num(landmarks[..., 2]) > 0.2
        rows = np.flatnonzero(seen.any(1))
        if len(rows) < 3:
            continue
        seen, K, camera = seen[rows], cameras.K[step, rows], cameras.world_to_camera[step, rows]
        pixels = np.where(seen[..., None], landmarks[rows, :, :2], 0.0)
        weight = np.where(seen, landmarks[rows, :, 2], 0.0)
        found = triangulate(pixels, weight, K, camera)
        known = np.isfinite(found.points).all(1)
        again = project(np.where(known[:, None], found.points, 0.0), K, camera)
        distance = np.linalg.norm(again[..., :2] - pixels, axis=-1) / sizes_of(detected, landmarks[rows])[:, None]
        # the point was made of these very views: three numbers of 2 C are used up
        count = 2.0 * seen.sum(0)
        distance = distance * np.sqrt(count / np.maximum(count - 3, 1))
        out[step, rows] = np.where(seen & known & (seen.sum(0) >= 3), distance, np.nan)
    return out


def _by_view(distance: Float[ndarray, "T C P"], usual: Float[ndarray, " P"]) -> Float[ndarray, "T C"]:
    """`Spread.worse`: the median over a picture's points of how far they are off, over what they usually are."""
    with np.errstate(all="ignore"):
        ratio = distance / np.maximum(usual, LEAST_SPREAD)
    flat = median_known(np.moveaxis(ratio, -1, 0))
    return np.asarray(np.clip(np.where(np.isfinite(flat), flat, _WORST), 1 / _WORST, _WORST))


def _over_time(detected: Detected) -> ndarray:
    """Median second difference in the face's own place and size; what moves evenly has none."""
    landmarks = detected.landmarks
    points = landmarks[..., :2].astype(np.float64)
    size = sizes_of(detected, landmarks)[..., None, None]
    middle = np.full((*points.shape[:2], 1, 2), np.nan)
    seen = np.isfinite(points).all(-1).any(-1)
    middle[seen] = np.nanmean(points[seen], axis=1, keepdims=True)
    local = (points - middle) / size
    if len(local) < 5:
        return np.full(landmarks.shape[2], np.nan)
    second = np.linalg.norm(local[1:-1] - 0.5 * (local[:-2] + local[2:]), axis=-1)
    # the variance of a value less the mean of its neighbours is one and a half times its own
    return median_known(second.reshape(-1, second.shape[-1])) / RAYLEIGH / np.sqrt(1.5)


def sizes_of(detected: Detected, landmarks: Float[ndarray, "... N 3"]) -> Float[ndarray, "..."]:
    """Size of each face in its picture by the inner points, which all orders have, px."""
    return face_sizes(landmarks[..., scheme_named(detected.embedding.scheme).inner, :])
