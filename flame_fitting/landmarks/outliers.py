"""Detections that cannot be right: points that other views or other frames contradict, and views that failed whole.

Over views a point is what most rays agree on: pairs of views are triangulated, and the pair that most other views
agree with says which ones do not (RANSAC; Fischler and Bolles, 1981). Over time a point that jumps away and comes back
at once, without its neighbours, was not seen. What moves with its surroundings, such as a lid that blinks, is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.camera import pixel_rays, project


@dataclass(frozen=True)
class OutlierConfig:
    """Lengths are shares of the face's size in the picture (`face_sizes`), which is about 60 mm."""

    over_views: float = 0.12
    """Distance from the reprojection beyond which a view's point is left out; never less than `spreads` times the usual
    one, since detectors mean points a little differently from every side."""
    over_time: float = 0.06
    """Jump from the frames around beyond which a point is left out, of itself and against its neighbours."""
    spreads: float = 5.0
    """A jump is one only beyond so many times the usual one."""
    failed: float = 0.4
    """A view failed where more than this share of its points is left out."""
    min_confidence: float = 0.2
    """Points below it say nothing and are not judged."""
    pairs: int = 40
    """Pairs of views that are tried, at most."""
    least_angle: float = 6.0
    """Degrees between the rays of a pair."""
    neighbours: int = 8
    """Points around each, two of which have to move with it."""
    window: int = 2
    """Frames on each side that a frame is compared with."""


@dataclass(frozen=True, eq=False)
class Outliers:
    """What was left out."""

    points: Bool[ndarray, "T C N"]
    views: Bool[ndarray, "T C"]
    """Views that failed; all their points are out."""

    def removed_from(self, landmarks: Float[ndarray, "T C N 3"]) -> Float[ndarray, "T C N 3"]:
        """The landmarks with NaN where they are out."""
        return np.where((self.points | self.views[..., None])[..., None], np.nan, landmarks)

    @property
    def share(self) -> float:
        """Part of all points that is out in views that did not fail."""
        good = ~self.views
        return float(self.points[good].mean()) if good.any() else 0.0


def face_sizes(landmarks: Float[ndarray, "... N 3"]) -> Float[ndarray, "..."]:
    """Root mean square distance of the points of a face from their middle, px; NaN without a face."""
    seen = np.isfinite(landmarks).all(-1)
    points = np.where(seen[..., None], landmarks[..., :2], 0.0)
    count = seen.sum(-1)
    middle = points.sum(-2) / np.maximum(count, 1)[..., None]
    square = np.where(seen, ((points - middle[..., None, :]) ** 2).sum(-1), 0.0).sum(-1)
    return np.where(count > 0, np.sqrt(square / np.maximum(count, 1)), np.nan)


def over_views(
    landmarks: Float[ndarray, "T C N 3"],
    K: Float[ndarray, "T C 3 3"],
    world_to_camera: Float[ndarray, "T C 4 4"],
    ignore: Sequence[int] | ndarray = (),
    config: OutlierConfig | None = None,
) -> Outliers:
    """Outliers of calibrated views of one moment. `ignore` are points that are no fixed ones, as of an outline.

    Nothing is said of points that fewer than three views saw: two cannot tell which of them is wrong.
    """
    config = config or OutlierConfig()
    out = np.zeros(landmarks.shape[:3], dtype=bool)
    failed = np.zeros(landmarks.shape[:2], dtype=bool)
    for step in range(len(landmarks)):
        rows = np.flatnonzero(np.isfinite(landmarks[step]).all(-1).any(-1))
        if len(rows) < 3:
            continue
        bad, wrong = _of_moment(
            landmarks[step, rows].astype(np.float64), K[step, rows], world_to_camera[step, rows], ignore, config
        )
        out[step, rows], failed[step, rows] = bad, wrong
    return Outliers(out, failed)


def _of_moment(
    landmarks: ndarray, K: ndarray, world_to_camera: ndarray, ignore: Sequence[int] | ndarray, config: OutlierConfig
) -> tuple[ndarray, ndarray]:
    error = _agreed_errors(landmarks, K, world_to_camera, config)
    fixed = np.ones(landmarks.shape[1], dtype=bool)
    fixed[np.asarray(ignore, dtype=int)] = False
    known = np.isfinite(error) & fixed
    usual = float(np.median(error[known])) if known.any() else 0.0
    bad = known & (error > max(config.over_views, config.spreads * usual))
    share = bad.sum(1) / np.maximum(known.sum(1), 1)
    wrong = (share > config.failed) & (known.sum(1) >= 5)
    # a view that is wrong as a whole says nothing of single points of others
    return bad & ~wrong[:, None], wrong


def _agreed_errors(landmarks: ndarray, K: ndarray, world_to_camera: ndarray, config: OutlierConfig) -> ndarray:
    """Distance (C, N) of each point from the reprojection that most views agree on, in face sizes, or NaN."""
    seen = np.isfinite(landmarks).all(-1) & (np.nan_to_num(landmarks[..., 2]) > config.min_confidence)
    pixels = np.where(seen[..., None], landmarks[..., :2], 0.0)
    size = np.maximum(np.nan_to_num(face_sizes(landmarks), nan=1.0), 1e-6)[:, None]
    origin, direction = pixel_rays(pixels, K, world_to_camera)
    best = np.full(landmarks.shape[1], np.inf)
    error = np.full(landmarks.shape[:2], np.nan)
    cap = 2 * config.over_views
    for first, second in _pairs(world_to_camera, config):
        points, apart = _between(origin[[first, second]], direction[[first, second]])
        usable = seen[first] & seen[second] & (apart > config.least_angle)
        with np.errstate(all="ignore"):
            projected = project(np.where(usable[:, None], points, 0.0), K, world_to_camera)
            distance = np.linalg.norm(projected[..., :2] - pixels, axis=-1) / size
        distance = np.where(projected[..., 2] > 0, distance, np.inf)
        # each view counts up to the cap; rays that pass each other make the pair's own views count, too
        count = seen.sum(0)
        cost = np.where(seen, np.minimum(distance, cap), 0.0).sum(0) / np.maximum(count, 1)
        better = usable & (count > 2) & (cost < best)
        best = np.where(better, cost, best)
        error[:, better] = np.where(seen, distance, np.nan)[:, better]
    return error


def _pairs(world_to_camera: ndarray, config: OutlierConfig) -> list[tuple[int, int]]:
    """Pairs of views, spread over all of them where they are too many."""
    every = list(combinations(range(len(world_to_camera)), 2))
    if len(every) <= config.pairs:
        return every
    order = np.random.default_rng(0).permutation(len(every))[: config.pairs]
    return [every[k] for k in sorted(order)]


def _between(origin: ndarray, direction: ndarray) -> tuple[ndarray, ndarray]:
    """Points (N, 3) midway between two rays each, and the angle between those, degrees (N,)."""
    first, second = direction
    gap = origin[1] - origin[0]
    cosine = (first * second).sum(-1)
    scale = np.maximum(1 - cosine**2, 1e-12)
    along_first = ((gap * first).sum(-1) - cosine * (gap * second).sum(-1)) / scale
    along_second = (cosine * (gap * first).sum(-1) - (gap * second).sum(-1)) / scale
    points = 0.5 * (origin[0] + along_first[:, None] * first + origin[1] + along_second[:, None] * second)
    return points, np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def over_time(landmarks: Float[ndarray, "T N 3"], config: OutlierConfig | None = None) -> Outliers:
    """Outliers of one camera's frames, in order. Frames without a face are passed over."""
    config = config or OutlierConfig()
    out, failed = np.zeros(landmarks.shape[:2], dtype=bool), np.zeros(len(landmarks), dtype=bool)
    rows = np.flatnonzero(np.isfinite(landmarks).all(-1).any(-1))
    if len(rows) < 3:
        return Outliers(out[:, None], failed[:, None])
    points = landmarks[rows, :, :2].astype(np.float64)
    centre = np.nanmedian(points, axis=1)
    size = face_sizes(landmarks[rows])
    wrong = _jumped(centre, size, config)
    local = (points - centre[:, None]) / np.median(size[~wrong] if (~wrong).any() else size)
    local[wrong] = np.nan
    jump = local - _around(local, config.window)
    own = np.linalg.norm(jump, axis=-1)
    apart = _from_neighbours(local, jump, config.neighbours)
    with np.errstate(all="ignore"):
        usual = _nanmedian(own)
        limit = np.maximum(config.over_time, config.spreads * np.nan_to_num(usual))
        bad = (own > limit) & (apart > limit)
    # a face whose shape is another for a moment, at the same place
    known = np.isfinite(own).sum(1)
    wrong |= ((own > 2 * limit).sum(1) > config.failed * np.maximum(known, 1)) & (known >= 5)
    out[rows], failed[rows] = bad & ~wrong[:, None], wrong
    return Outliers(out[:, None], failed[:, None])


def _jumped(centre: ndarray, size: ndarray, config: OutlierConfig) -> ndarray:
    """Frames in which the whole face is elsewhere, or of another size, than in most frames around.

    Some frames wide, so that a wrong face that stays for two frames is out too.
    """
    wide = 2 * config.window + 1
    out = np.zeros(len(centre), dtype=bool)
    for row in range(len(centre)):
        around = np.r_[max(0, row - wide) : row, row + 1 : min(len(centre), row + wide + 1)]
        moved = np.linalg.norm(np.median(centre[around], axis=0) - centre[row])
        own = np.median(size[around])
        # how far faces are from each other around here: a head that moves fast is no outlier
        usual = np.median(np.linalg.norm(centre[around] - np.median(centre[around], axis=0), axis=1))
        grown = abs(np.log(max(size[row], 1e-6) / max(own, 1e-6)))
        out[row] = moved > max(1.5 * own, 4 * usual) or grown > np.log(1.6)
    return out


def _around(local: ndarray, window: int) -> ndarray:
    """Median of the frames around each frame, without itself."""
    out = np.full_like(local, np.nan)
    with np.errstate(all="ignore"):
        for row in range(len(local)):
            around = np.r_[max(0, row - window) : row, row + 1 : min(len(local), row + window + 1)]
            out[row] = _nanmedian(local[around])
    return out


def _from_neighbours(local: ndarray, jump: ndarray, count: int) -> Float[ndarray, "T N"]:
    """How far each jump is from those of the two points around that move most alike: the rim of a lid has only lid
    on one of its sides."""
    rest = np.nan_to_num(_nanmedian(local))
    distance = np.linalg.norm(rest[:, None] - rest[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(count, len(rest) - 1)]
    apart = np.linalg.norm(jump[:, nearest] - jump[:, :, None], axis=-1)
    apart = np.sort(np.where(np.isfinite(apart), apart, np.inf), axis=-1)
    return np.asarray(apart[..., min(1, apart.shape[-1] - 1)])


def _nanmedian(values: ndarray) -> ndarray:
    """Over the first axis; NaN where nothing is known, without a warning."""
    known = np.isfinite(values)
    filled = np.sort(np.where(known, values, np.inf), axis=0)
    count = known.sum(0)
    low, high = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, len(values) - 1)
    middle = 0.5 * (np.take_along_axis(filled, low[None], 0) + np.take_along_axis(filled, high[None], 0))[0]
    return np.where(count > 0, middle, np.nan)
