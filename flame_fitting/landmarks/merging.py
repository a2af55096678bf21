"""Several detectors' points as one: what each means by a point is made the same, and the surer one counts more.

Every detector has its own embedding, so its points are moved, in each picture, by what lies between its place of a
point and the first detector's on the template (as the head stands there). Then the points are averaged, weighted by how
much each detector's are off: as calibrated on many heads, and as this very capture shows it, over views or over time
and by what a face can look like.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.camera import project
from flame_fitting.errors import InputError
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector_errors import (
    FACE_M,
    LASTING_TO_GROUP,
    LEAST_SPREAD,
    correlation,
    expected_error,
    median_known,
    steadied,
)
from flame_fitting.landmarks.evidence_features import EvidenceGeometry
from flame_fitting.landmarks.lifting import Landmarks3D, triangulate
from flame_fitting.landmarks.misfit import lasting_errors
from flame_fitting.landmarks.outliers import face_sizes
from flame_fitting.landmarks.schemes import FACE_PARTS, scheme_named

MERGED = "merged"
"""Name of the source that merged landmarks make."""
_MOMENTS = 5
"""Timesteps at which the points in space are compared with the head model."""
_WORST = 4.0
"""A picture counts for no more than so many times worse or better than usual."""
_LEAST_CONFIDENCE = 0.2
"""A point that is less sure does not count beside one that is."""
_RAYLEIGH = 1.1774
"""Median length of a 2D error over its standard deviation along one axis."""
_AGREE = 4.0
"""Points farther from the surest one than so many standard deviations (of both, and of `_BETWEEN`) do not count."""
_BETWEEN = 0.03
"""Share of a face's size that detectors may lie apart in a person's face once the template's difference is gone."""


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
        found = median_known(distance.reshape(-1, distance.shape[-1])) / _RAYLEIGH
        worse = _by_view(distance[..., order.inner], found[order.inner] * _RAYLEIGH)
        if lifted and any(one.valid.any() for one in lifted):
            found = _of_lifted(lifted, detected.embedding)
        if np.isfinite(found).sum() > 10:
            return Spread(steadied(found, order.groups), "views", worse)
    found = _over_time(detected)
    if np.isfinite(found).sum() > 10:
        return Spread(steadied(found, order.groups), "time")
    return Spread(steadied(0.001 * detected.embedding.spread_mm / FACE_M / _RAYLEIGH, order.groups), "calibration")


def _of_lifted(lifted: Sequence[Landmarks3D], embedding: LandmarkEmbedding) -> ndarray:
    out = []
    for one in lifted:
        inner = one.points[scheme_named(one.scheme).inner]
        inner = inner[np.isfinite(inner).all(1)]
        if len(inner) > 10:
            size = float(np.sqrt(((inner - inner.mean(0)) ** 2).sum(1).mean()))
            out.append(one.spread / size / _RAYLEIGH)
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
        distance = np.linalg.norm(again[..., :2] - pixels, axis=-1) / _sizes(detected, landmarks[rows])[:, None]
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
    size = _sizes(detected, landmarks)[..., None, None]
    middle = np.full((*points.shape[:2], 1, 2), np.nan)
    seen = np.isfinite(points).all(-1).any(-1)
    middle[seen] = np.nanmean(points[seen], axis=1, keepdims=True)
    local = (points - middle) / size
    if len(local) < 5:
        return np.full(landmarks.shape[2], np.nan)
    second = np.linalg.norm(local[1:-1] - 0.5 * (local[:-2] + local[2:]), axis=-1)
    # the variance of a value less the mean of its neighbours is one and a half times its own
    return median_known(second.reshape(-1, second.shape[-1])) / _RAYLEIGH / np.sqrt(1.5)


@dataclass(frozen=True, eq=False)
class Merged:
    """Several detectors' landmarks as one."""

    landmarks: Float[ndarray, "T C N 3"]
    embedding: LandmarkEmbedding
    """The first detector's places, with the spread that is left."""
    spreads: dict[str, Spread]
    """Of each detector, on this capture."""
    shares: dict[str, Float[ndarray, "51"]]
    """Part of each detector in the inner points."""


def merge(
    head: HeadModel,
    sources: Sequence[Detected],
    cameras: Cameras,
    spreads: Sequence[Spread] | None = None,
    lifted: Sequence[Sequence[Landmarks3D]] = (),
) -> Merged:
    """Merges two detectors or more into the order of the one with the most points.

    The inner points that all orders have in common are averaged; the rest (contours, which are no fixed points, irises,
    points that one alone has) stays the first one's. Where that found no face, the others' points stand alone.

    Args:
        spreads: `spread_of` each; None: measured here.
        lifted: each source's points in space by timestep, where cameras are calibrated.
    """
    if len(sources) < 2:
        raise InputError("merging needs the landmarks of two detectors at least.")
    given = list(spreads) if spreads is not None else [spread_of(one, cameras) for one in sources]
    off = _lasting(head, sources, given, lifted)
    lead = max(range(len(sources)), key=lambda k: (scheme_named(sources[k].embedding.scheme).n_points, -k))
    order = [lead, *(k for k in range(len(sources)) if k != lead)]
    first, inner = sources[lead], scheme_named(sources[lead].embedding.scheme).inner
    geometries = [EvidenceGeometry(head, one.embedding) for one in sources]
    places = [geometry.points[geometry.scheme.inner] for geometry in geometries]

    points, spread, confidence, lasting_share = [], [], [], []
    between_them = np.zeros(first.landmarks.shape[:2])
    for k in order:
        own = scheme_named(sources[k].embedding.scheme).inner
        values = sources[k].landmarks[:, :, own].astype(np.float64)
        if k != lead:
            between = places[lead] - places[k]
            values = _moved(values, sources[k], geometries[k], first, geometries[lead], places[k], between, cameras)
        points.append(values[..., :2])
        confidence.append(values[..., 2])
        sizes = np.nan_to_num(_sizes(sources[k], sources[k].landmarks), nan=1.0)
        error = _whole_error(given[k], sources[k], cameras, off[k])[own]
        lasting_share.append(off[k] / error)
        between_them = np.fmax(between_them, _BETWEEN * sizes)
        sizes = sizes * given[k].worse
        spread.append(error * sizes[..., None] / np.sqrt(sources[k].weight))
    alike = correlation([sources[k].embedding for k in order], np.array(lasting_share))
    merged, weights = _average(np.array(points), np.array(spread), np.array(confidence), between_them, alike)

    landmarks = first.landmarks.astype(np.float64).copy()
    # how a point faces the camera is the first one's to say, where it saw it
    sure = np.where(np.isfinite(confidence[0]), confidence[0], _first_known(np.array(confidence)))
    landmarks[:, :, inner, :2] = merged
    landmarks[:, :, inner, 2] = np.where(np.isfinite(merged).all(-1), sure, np.nan)
    left = [sources[k].embedding.spread_mm[scheme_named(sources[k].embedding.scheme).inner] for k in order]
    embedding = replace(first.embedding, spread_mm=_left_spread(first.embedding.spread_mm, inner, np.array(left)))
    shares = {sources[k].name: weights[row] for row, k in enumerate(order)}
    return Merged(landmarks.astype(np.float32), embedding, {sources[k].name: given[k] for k in order}, shares)


def _moved(
    values: ndarray,
    source: Detected,
    geometry: EvidenceGeometry,
    first: Detected,
    first_geometry: EvidenceGeometry,
    places: ndarray,
    between: ndarray,
    cameras: Cameras,
) -> ndarray:
    """A detector's inner points (T, C, 51, 3) where the first one means them; NaN where a place is missing."""
    out = values.copy()
    still = np.eye(4)
    for step, column in np.argwhere(np.isfinite(values).all(-1).any(-1) & cameras.there):
        K = cameras.K[step, column]
        pose = first_geometry.pose(first.landmarks[step, column].astype(np.float64), K)
        pose = pose or geometry.pose(source.landmarks[step, column].astype(np.float64), K)
        if pose is None:
            out[step, column] = np.nan
            continue
        still[:3, :3], still[:3, 3] = pose.rotation, pose.translation
        known = np.isfinite(places + between).all(1)
        here = np.where(known[:, None], places, 0.0)
        there = np.where(known[:, None], places + between, 0.0)
        shift = project(there, K, still)[:, :2] - project(here, K, still)[:, :2]
        out[step, column, :, :2] += np.where(known[:, None], shift, np.nan)
        out[step, column, ~known] = np.nan
    return out


def _whole_error(spread: Spread, source: Detected, cameras: Cameras, lasting: Float[ndarray, "51"]) -> ndarray:
    """Standard deviation (N,) of the combined point, in face sizes: what views or frames disagree in averages out; what
    the detector means differently on every face does not."""
    views = np.isfinite(source.landmarks).all(-1).sum(1)
    count = float(np.median(views[views > 0])) if cameras.calibrated and (views > 0).any() else 1.0
    whole = np.full(len(spread.values), np.nan)
    inner = scheme_named(source.embedding.scheme).inner
    whole[inner] = np.sqrt(spread.values[inner] ** 2 / max(0.5 * count, 1.0) + lasting**2)
    return whole


def _lasting(
    head: HeadModel, sources: Sequence[Detected], spreads: Sequence[Spread], lifted: Sequence[Sequence[Landmarks3D]]
) -> list[Float[ndarray, "51"]]:
    """Standard deviation of each source's inner points that views or frames do not show, in face sizes.

    Where points are in space, the capture itself says more (`lasting_errors`). Of one camera, a detector may be off
    alike in all frames for the direction, too: views of the template tell by how much.
    """
    expected = [expected_error(one.embedding) for one in sources]
    if lifted and all(len(one) for one in lifted):
        embeddings = [one.embedding for one in sources]
        steps = np.unique(np.linspace(0, len(lifted[0]) - 1, _MOMENTS).astype(int))
        every = [lasting_errors(head, embeddings, [one[step].points for one in lifted], expected) for step in steps]
        return list(np.sqrt((np.array(every) ** 2).mean(0)) / FACE_M)
    out = []
    for source, known, spread in zip(sources, expected, spreads, strict=True):
        variance = known.std**2
        if spread.how == "time" and source.embedding.residual_mm is not None:
            inner = scheme_named(source.embedding.scheme).inner
            by_view = 0.001 * source.embedding.spread_mm[inner] / FACE_M / _RAYLEIGH
            variance = variance + (FACE_M * steadied(by_view, FACE_PARTS, LASTING_TO_GROUP)) ** 2
        out.append(np.sqrt(variance) / FACE_M)
    return out


def _average(
    points: Float[ndarray, "D T C P 2"],
    spread: Float[ndarray, "D T C P"],
    confidence: Float[ndarray, "D T C P"],
    between: Float[ndarray, "T C"],
    alike_by: Float[ndarray, "P"],
) -> tuple[Float[ndarray, "T C P 2"], Float[ndarray, "D P"]]:
    """Weighted means, and the usual part of each detector in them.

    The mean of least variance under errors that are alike by so much between any two detectors: one that is far worse
    has no part, where independent errors would still give it some. Points that lie far from the surest one, or are
    unsure beside sure ones, do not count.
    """
    known = np.isfinite(points).all(-1) & np.isfinite(spread)
    sure = known & (np.nan_to_num(confidence) >= _LEAST_CONFIDENCE)
    counts = sure | (known & ~sure.any(0))
    # confidence says where a picture is worse than the detector's usual one
    error = np.where(counts, spread, 1.0) / np.sqrt(np.clip(np.nan_to_num(confidence), 0.05, 1.0))
    inverse = np.where(counts, 1 / np.maximum(error, 1e-9), 0.0)
    surest = inverse.argmax(0)[None]
    best = np.take_along_axis(points, surest[..., None], 0)
    best_error = np.take_along_axis(error, surest, 0)
    apart = np.nan_to_num(np.linalg.norm(points - best, axis=-1))
    limit = _AGREE * np.sqrt(error**2 + best_error**2 + between[..., None] ** 2)
    inverse = np.where(apart <= limit, inverse, 0.0)
    number = (inverse > 0).sum(0)
    alike = alike_by * inverse.sum(0) / (1 + (number - 1) * alike_by)
    weight = inverse * np.maximum(inverse - alike, 0.0)
    total = weight.sum(0)
    mean = (np.where(known[..., None], points, 0.0) * weight[..., None]).sum(0) / np.maximum(total, 1e-30)[..., None]
    merged = np.where((total > 0)[..., None], mean, np.nan)
    shares = weight / np.maximum(total, 1e-30)
    every = (total > 0).reshape(-1, total.shape[-1]).sum(0)
    return merged, shares.reshape(len(points), -1, total.shape[-1]).sum(1) / np.maximum(every, 1)


def _sizes(detected: Detected, landmarks: Float[ndarray, "... N 3"]) -> Float[ndarray, "..."]:
    """Size of each face in its picture by the inner points, which all orders have, px."""
    return face_sizes(landmarks[..., scheme_named(detected.embedding.scheme).inner, :])


def _first_known(values: ndarray) -> ndarray:
    out = np.full(values.shape[1:], np.nan)
    for one in values:
        out = np.where(np.isfinite(out), out, one)
    return out


def _left_spread(spread_mm: ndarray, inner: ndarray, all_mm: Float[ndarray, "D 51"]) -> ndarray:
    out = spread_mm.copy()
    known = np.isfinite(all_mm) & (all_mm > 0)
    information = np.where(known, 1 / np.where(known, all_mm, 1.0) ** 2, 0.0).sum(0)
    out[inner] = np.where(information > 0, 1 / np.sqrt(np.maximum(information, 1e-12)), out[inner])
    return out
