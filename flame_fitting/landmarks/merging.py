"""Several detectors' points as one: what each means by a point is made the same, and the surer one counts more.

Every detector has its own embedding, so its points are moved, in each picture, by what lies between its place of a
point and the first detector's on the face: the one that fits all detectors' points in space, or the template as it
stands there. Then the points are averaged, weighted by how much each detector's are off: as calibrated on many heads,
and as this very capture shows it, over views or over time and by what a face can look like. Where points are lifted by
a surface, weights are the same in all pictures: each detector was calibrated by what its views give together, and that
is averaged, in space: a point between two others in a picture is lifted elsewhere, above all beside the rims of lids.
Rays and one camera's frames want the better pictures, so there a bad one counts less.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera import project
from flame_fitting.errors import InputError
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector_errors import FACE_M, correlation, expected_error
from flame_fitting.landmarks.detector_spread import Cameras, Detected, Spread, sizes_of, spread_of
from flame_fitting.landmarks.evidence_features import EvidenceGeometry, FacePose
from flame_fitting.landmarks.lifting import Landmarks3D
from flame_fitting.landmarks.misfit import FaceFit, fit_faces
from flame_fitting.landmarks.schemes import scheme_named

MERGED = "merged"
"""Name of the source that merged landmarks make."""
_LEAST_CONFIDENCE = 0.2
"""A point that is less sure does not count beside one that is."""
_AGREE = 4.0
"""Points farther from the surest one than so many standard deviations (of both, and of `_BETWEEN`) do not count."""
_BETWEEN = 0.03
"""Share of a face's size that detectors may lie apart in a person's face once the template's difference is gone."""


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
    in_space: Sequence[Landmarks3D] = ()
    """By timestep, where every source was lifted by a surface; else empty: the pictures' are to be lifted."""


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
    lead = max(range(len(sources)), key=lambda k: (scheme_named(sources[k].embedding.scheme).n_points, -k))
    order = [lead, *(k for k in range(len(sources)) if k != lead)]
    sources, given = [sources[k] for k in order], [given[k] for k in order]
    geometries = [EvidenceGeometry(head, one.embedding) for one in sources]
    moments = []
    if lifted and all(len(one) for one in lifted):
        moments = [[lifted[k][step].points for k in order] for step in range(len(lifted[0]))]
    known = _known_of(head, sources, geometries, cameras, moments)
    first, inner = sources[0], geometries[0].scheme.inner

    on_surface = bool(moments) and all(_by_surface(one) for one in lifted)
    points, spread, usual, confidence, shares_lasting = [], [], [], [], []
    between_them = np.zeros(first.landmarks.shape[:2])
    for k, source in enumerate(sources):
        values = source.landmarks[:, :, geometries[k].scheme.inner].astype(np.float64)
        if k:
            values = _moved(values, (geometries[k], geometries[0]), k, known, cameras)
        points.append(values[..., :2])
        confidence.append(values[..., 2])
        sizes = np.nan_to_num(sizes_of(source, source.landmarks), nan=1.0)
        # calibrated, and compared with faces, in space, where views are averaged: what they disagree in is in it
        error = known.lasting[k] if on_surface else _whole_error(given[k], source, cameras, known.lasting[k])
        shares_lasting.append(known.lasting[k] / error)
        between_them = np.fmax(between_them, _BETWEEN * sizes)
        sizes = sizes * given[k].worse
        usual.append(error / np.sqrt(source.weight))
        spread.append(usual[k] * sizes[..., None])
    alike = correlation([one.embedding for one in sources], np.array(shares_lasting), known.yaw)
    steady = np.array(usual) if on_surface else None
    merged, weights = _average(np.array(points), np.array(spread), np.array(confidence), between_them, alike, steady)

    landmarks = first.landmarks.astype(np.float64).copy()
    # how a point faces the camera is the first one's to say, where it saw it
    sure = np.where(np.isfinite(confidence[0]), confidence[0], _first_known(np.array(confidence)))
    landmarks[:, :, inner, :2] = merged
    landmarks[:, :, inner, 2] = np.where(np.isfinite(merged).all(-1), sure, np.nan)
    left = [one.embedding.spread_mm[scheme_named(one.embedding.scheme).inner] for one in sources]
    embedding = replace(first.embedding, spread_mm=_left_spread(first.embedding.spread_mm, inner, np.array(left)))
    in_space = []
    if steady is not None:
        of_moments = [[lifted[k][step] for k in order] for step in range(len(moments))]
        in_space = [_merged_in_space(own, known.faces.get(step), steady, alike) for step, own in enumerate(of_moments)]
    return Merged(
        landmarks.astype(np.float32),
        embedding,
        {one.name: own for one, own in zip(sources, given, strict=True)},
        {one.name: own for one, own in zip(sources, weights, strict=True)},
        in_space,
    )


def _merged_in_space(
    own: Sequence[Landmarks3D], face: FaceFit | None, usual: Float[ndarray, "D 51"], alike_by: Float[ndarray, "51"]
) -> Landmarks3D:
    """One moment's lifted points: the inner ones averaged by their usual errors (in face sizes), the rest the first
    one's. Where no face fits that says how they differ, every point is that of the first source that has one."""
    inner = [scheme_named(one.scheme).inner for one in own]
    points = np.array([one.points[index] for one, index in zip(own, inner, strict=True)])
    there = np.isfinite(points).all(-1)
    weights = (np.arange(len(own))[:, None] == there.argmax(0)) * 1.0
    if face is not None:
        points += face.places[:1] - face.places
        there = np.isfinite(points).all(-1)
        size = float(np.sqrt(np.nanmean(((face.places - np.nanmean(face.places, 1, keepdims=True)) ** 2).sum(-1))))
        grid = (slice(None), None, None)  # one timestep, no pictures
        between = np.full((1, 1), _BETWEEN * size)
        _, weights = _average(points[grid], (usual * size)[grid], there[grid] * 1.0, between, alike_by, usual)
    known = there.any(0)
    out = replace(own[0], **{name: getattr(own[0], name).copy() for name in ("points", "spread", "n_views", "source")})
    spread, n_views, source = (
        np.array([getattr(one, name)[index] for one, index in zip(own, inner, strict=True)])
        for name in ("spread", "n_views", "source")
    )
    mean = (weights[..., None] * np.where(there[..., None], points, 0.0)).sum(0)
    out.points[inner[0]] = np.where(known[:, None], mean, np.nan)
    out.spread[inner[0]] = np.where(known, (weights * np.nan_to_num(spread)).sum(0), np.nan)
    out.n_views[inner[0]] = np.where(weights > 0, n_views, 0).max(0)
    # as the one that counts most
    out.source[inner[0]] = np.take_along_axis(source, weights.argmax(0)[None], 0)[0]
    return out


class _Known(NamedTuple):
    """What errors are, and where the face stands."""

    lasting: Float[ndarray, "D 51"]
    """Standard deviation of each source's inner points that views or frames do not show, in face sizes."""
    faces: dict[int, FaceFit]
    """By timestep; where points are in space."""
    poses: dict[tuple[int, int], FacePose]
    """Of the template, by timestep and camera, elsewhere."""
    yaw: float | None
    """Degrees, from which one camera usually looks."""


def _known_of(
    head: HeadModel,
    sources: Sequence[Detected],
    geometries: Sequence[EvidenceGeometry],
    cameras: Cameras,
    moments: Sequence[Sequence[Float[ndarray, "_ 3"]]],
) -> _Known:
    """`moments` are the sources' points in space by timestep, where there are any."""
    expected, yaw = [expected_error(one.embedding) for one in sources], None
    fits = fit_faces(head, [one.embedding for one in sources], moments, expected) if moments else []
    faces = {step: face for step, face in enumerate(fits) if np.isfinite(face.places).any()}
    poses = _poses(sources, geometries, cameras, set(faces))
    if faces:
        variance = np.mean([face.std**2 for face in faces.values()], axis=0)
        return _Known(np.sqrt(variance) / FACE_M, faces, poses, None)
    if poses and not cameras.calibrated:
        # what is off in pictures from there stays so in all of them
        yaw = float(np.median([abs(pose.angles[0]) for pose in poses.values()]))
        expected = [expected_error(one.embedding, yaw) for one in sources]
    return _Known(np.array([one.std for one in expected]) / FACE_M, faces, poses, yaw)


def _by_surface(lifted: Sequence[Landmarks3D]) -> bool:
    """Whether points come from depth maps, and not from rays."""
    source = np.concatenate([one.source[one.valid] for one in lifted])
    return len(source) > 0 and bool((source == "depth").mean() > 0.5)


def _poses(
    sources: Sequence[Detected], geometries: Sequence[EvidenceGeometry], cameras: Cameras, but: set[int]
) -> dict[tuple[int, int], FacePose]:
    """The template's pose by timestep and camera, by the first of the sources that tells one; not at timesteps
    `but`."""
    out = {}
    for step, column in np.argwhere(cameras.there):
        if int(step) in but:
            continue
        for source, geometry in zip(sources, geometries, strict=True):
            landmarks = source.landmarks[step, column].astype(np.float64)
            pose = geometry.pose(landmarks, cameras.K[step, column]) if np.isfinite(landmarks).any() else None
            if pose is not None:
                out[int(step), int(column)] = pose
                break
    return out


def _moved(
    values: Float[ndarray, "T C 51 3"],
    own_and_first: tuple[EvidenceGeometry, EvidenceGeometry],
    row: int,
    known: _Known,
    cameras: Cameras,
) -> Float[ndarray, "T C 51 3"]:
    """A detector's inner points where the first one means them; NaN where a place is missing. `row` is the detector's
    among the fitted places."""
    out = values.copy()
    for step, column in np.argwhere(np.isfinite(values).all(-1).any(-1) & cameras.there):
        face, pose = known.faces.get(int(step)), known.poses.get((int(step), int(column)))
        if face is not None:
            both, camera = face.places[[row, 0]], cameras.world_to_camera[step, column]
        elif pose is not None:
            both, camera = np.stack([one.points[one.scheme.inner] for one in own_and_first]), np.eye(4)
            camera[:3, :3], camera[:3, 3] = pose.rotation, pose.translation
        else:
            out[step, column] = np.nan
            continue
        sure = np.isfinite(both).all((0, 2))
        out[step, column, ~sure] = np.nan
        if sure.any():
            pixels = project(both[:, sure], cameras.K[step, column], camera)[..., :2]
            out[step, column, sure, :2] += pixels[1] - pixels[0]
    return out


def _whole_error(
    spread: Spread, source: Detected, cameras: Cameras, lasting: Float[ndarray, "51"]
) -> Float[ndarray, "51"]:
    """Standard deviation of the combined inner points, in face sizes: what views or frames disagree in averages out;
    what the detector means differently on every face does not. What a calibration says of single pictures has both."""
    if spread.how == "calibration" and source.embedding.picture_mm is not None:
        return lasting
    views = np.isfinite(source.landmarks).all(-1).sum(1)
    count = float(np.median(views[views > 0])) if cameras.calibrated and (views > 0).any() else 1.0
    values = spread.values[scheme_named(source.embedding.scheme).inner]
    return np.asarray(np.sqrt(values**2 / max(0.5 * count, 1.0) + lasting**2))


def _average(
    points: Float[ndarray, "D T C P _"],
    spread: Float[ndarray, "D T C P"],
    confidence: Float[ndarray, "D T C P"],
    between: Float[ndarray, "T C"],
    alike_by: Float[ndarray, " P"],
    steady: Float[ndarray, "D P"] | None = None,
) -> tuple[Float[ndarray, "T C P _"], Float[ndarray, "D P"]]:
    """Weighted means, and the usual part of each detector in them.

    The mean of least variance under errors that are alike by so much between any two detectors: one that is far worse
    has no part, where independent errors would still give it some. Points that lie far from the surest one, or are
    unsure beside sure ones, do not count. `steady` weighs all pictures alike.
    """
    known = np.isfinite(points).all(-1) & np.isfinite(spread)
    sure = known & (np.nan_to_num(confidence) >= _LEAST_CONFIDENCE)
    counts = sure | (known & ~sure.any(0))
    # confidence says where a picture is worse than the detector's usual one
    error = np.where(counts, spread, 1.0) / np.sqrt(np.clip(np.nan_to_num(confidence), 0.05, 1.0))
    surest = np.where(counts, 1 / np.maximum(error, 1e-9), 0.0).argmax(0)[None]
    best = np.take_along_axis(points, surest[..., None], 0)
    best_error = np.take_along_axis(error, surest, 0)
    apart = np.nan_to_num(np.linalg.norm(points - best, axis=-1))
    limit = _AGREE * np.sqrt(error**2 + best_error**2 + between[..., None] ** 2)
    weighed = error if steady is None else steady[:, None, None]
    inverse = np.where(counts & (apart <= limit), 1 / np.maximum(weighed, 1e-9), 0.0)
    number = (inverse > 0).sum(0)
    alike = alike_by * inverse.sum(0) / (1 + (number - 1) * alike_by)
    weight = inverse * np.maximum(inverse - alike, 0.0)
    total = weight.sum(0)
    mean = (np.where(known[..., None], points, 0.0) * weight[..., None]).sum(0) / np.maximum(total, 1e-30)[..., None]
    merged = np.where((total > 0)[..., None], mean, np.nan)
    shares = weight / np.maximum(total, 1e-30)
    every = (total > 0).reshape(-1, total.shape[-1]).sum(0)
    return merged, shares.reshape(len(points), -1, total.shape[-1]).sum(1) / np.maximum(every, 1)


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
