"""From a capture with 2D landmarks to the fit's starting state: 3D landmarks, similarity, surface, views."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from flame_fitting.capture.camera import move_camera, transform_points
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.similarity import decompose_similarity, invert_similarity, robust_umeyama
from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.fit.landmark_sources import Detections, LandmarkSource, PlacedLandmarks, placed, shares_of
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights, surface_weights
from flame_fitting.fit.surface import SurfaceView, fuse_surface, surface_views
from flame_fitting.fit.targets import (
    FrameTarget,
    SourceTarget,
    make_detection_target,
    make_landmark_target,
    make_pixel_target,
)
from flame_fitting.fit.trust import TRUST, Trust
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.lifting import Landmarks3D
from flame_fitting.landmarks.schemes import inner_weights, scheme_named
from flame_fitting.maths.resection import resect

GROUP_WEIGHT = {"outline": 0.0, "jawline": 0.0, "brows": 0.2, "irises": 0.3}
"""Weight of named groups of landmarks where it is not 1: an outline is no fixed set of points of the head."""

_FEWEST = 20
"""Landmarks that a fit needs at one timestep, at least."""
_MOST_SIZE = 1.6
"""A face so many times larger or smaller than the head model's mean is no person's, children included."""


@dataclass(eq=False)
class Start:
    """Where a fit begins."""

    reference_from_world: np.ndarray
    """(4, 4) similarity to the reference frame: head space as the landmarks alone give it."""
    landmarks: list[PlacedLandmarks]
    """One per source."""
    targets: list[FrameTarget]


def similarity_from_landmarks(
    head: HeadModel,
    landmarks: Sequence[tuple[LandmarkEmbedding, Landmarks3D, float]],
    metres_per_unit: float | None = None,
) -> np.ndarray:
    """head_from_world (4, 4) by a robust Umeyama fit of the inner landmarks to the template's.

    `landmarks` are of one timestep, by source: where they lie on the head, in the world, and how much the source
    counts. `metres_per_unit` fixes the scale.
    """
    sources, templates, weights = [], [], []
    for embedding, points, share in landmarks:
        inner = scheme_named(points.scheme).inner
        templates.append(embedding.points(head.v_template[None], head.faces)[0].double().numpy()[inner])
        sources.append(points.points[inner])
        weights.append(share * inner_weights())
    source, template, weight = (np.concatenate(rows) for rows in (sources, templates, weights))
    if np.isfinite(source + template).all(axis=1).sum() < 6:
        raise NoFaceError(
            "fewer than 6 inner landmarks could be placed in space: the face is seen from too few sides. "
            "Give more views."
        )
    if metres_per_unit is not None:
        unit = np.diag([metres_per_unit] * 3 + [1.0])
        return robust_umeyama(source * metres_per_unit, template, weight, with_scale=False).matrix @ unit
    return robust_umeyama(source, template, weight).matrix


def _check_unit(metres_per_unit: float, estimated: np.ndarray) -> None:
    """Refuses a unit at which the avatar's face would be no person's."""
    by_face = decompose_similarity(estimated)[0]
    size = metres_per_unit / by_face
    if not 1 / _MOST_SIZE <= size <= _MOST_SIZE:
        raise InputError(
            f"with {1000 * metres_per_unit:g} mm for one unit, the avatar's face would be {size:.3g} times as large as "
            f"people's; by the face itself, one unit is about {1000 * by_face:.3g} mm. Give another --unit, or "
            "--scale estimate."
        )


def landmark_weights(scheme: str, count: int) -> np.ndarray:
    """(N,) weight of each landmark."""
    out = np.ones(count)
    groups = scheme_named(scheme).groups
    for name, value in GROUP_WEIGHT.items():
        if name in groups:
            out[groups[name]] = value
    return out


def make_start(
    head: HeadModel,
    sources: Sequence[PlacedLandmarks],
    surfaces: Sequence[Iterable[SurfaceView]] | None,
    metres_per_unit: float | None = None,
    spacing: float = 0.001,
) -> Start:
    """Aligns the landmarks of the first timestep with a face to the template; brings all targets into that frame.

    `surfaces` holds the `SurfaceView`s of each timestep, or is None without geometry. A timestep without a face has no
    target; raises NoFaceError where none has enough.
    """
    timesteps = range(len(sources[0].landmarks))
    if not any(_placed(sources, t) for t in timesteps):
        return _start_by_pictures(head, sources)
    first = next(t for t in timesteps if _placed(sources, t))
    shares = shares_of(sources, first)
    aligned = [(one.embedding, one.landmarks[first], share) for one, share in zip(sources, shares, strict=True)]
    if metres_per_unit is not None:
        _check_unit(metres_per_unit, similarity_from_landmarks(head, aligned))
    reference = similarity_from_landmarks(head, aligned, metres_per_unit)
    targets = [_frame_target(head, sources, t, reference) for t in timesteps]
    if surfaces is not None:
        for t, target in enumerate(targets):
            if _placed(sources, t):
                target.surface = fuse_surface(surfaces[t], reference, spacing)
    if max(target.n_landmarks for target in targets) < _FEWEST:
        raise NoFaceError(
            f"fewer than {_FEWEST} landmarks could be placed in space: the face is seen from too few sides. "
            "Give more views."
        )
    return Start(reference, list(sources), targets)


def _start_by_pictures(head: HeadModel, sources: Sequence[PlacedLandmarks]) -> Start:
    """A start where each timestep is seen from one side: the head at its own size, placed by the fullest picture.

    A single camera tells no size: distances are those of a head as large as the head model.
    """
    shown = [(one, found) for one in sources for found in one.detections if found is not None]
    reference: np.ndarray | None = None
    for source, found in sorted(shown, key=lambda pair: -_found(pair[1])):
        reference = _head_from_world(head, source, found)
        if reference is not None:
            break
    if reference is None:
        raise NoFaceError("no picture shows landmarks that agree with a head. Look at the pictures.")
    targets = [_frame_target(head, sources, t, reference) for t in range(len(sources[0].landmarks))]
    if max(target.n_seen for target in targets) < _FEWEST:
        raise NoFaceError(f"fewer than {_FEWEST} landmarks were found in each picture. Look at the pictures.")
    return Start(reference, list(sources), targets)


def _placed(sources: Sequence[PlacedLandmarks], timestep: int) -> bool:
    """Whether any landmark of a timestep has a place in space."""
    return any(one.landmarks[timestep].valid.any() for one in sources)


def _found(detections: Detections) -> int:
    """Landmarks in the view of a timestep that shows most of them."""
    return int(np.isfinite(detections.landmarks).all(-1).sum(1).max())


def _head_from_world(head: HeadModel, source: PlacedLandmarks, found: Detections) -> np.ndarray | None:
    """The rigid motion (4, 4) from the world to head space by the inner landmarks of a timestep's fullest view."""
    view = int(np.isfinite(found.landmarks).all(-1).sum(1).argmax())
    inner = scheme_named(source.landmarks[0].scheme).inner
    points = source.embedding.points(head.v_template[None], head.faces)[0].double().numpy()[inner]
    pixels = found.landmarks[view, inner]
    good = np.isfinite(points).all(1) & np.isfinite(pixels).all(1) & source.embedding.valid[inner]
    homogeneous = np.concatenate([pixels[good, :2], np.ones((int(good.sum()), 1))], axis=1)
    rays = (homogeneous @ np.linalg.inv(found.K[view]).T)[:, :2]
    camera_from_head = resect(points[good], rays)
    if camera_from_head is None:
        return None
    return invert_similarity(camera_from_head) @ found.world_to_camera[view]


def start_from_capture(
    head: HeadModel,
    capture: Capture,
    sources: Sequence[LandmarkSource],
    metres_per_unit: float | None = None,
    use_geometry: bool = True,
    choose_scale: Callable[[Start], float | None] | None = None,
) -> Start:
    """`make_start` on a capture's own files; without `use_geometry` its depth and normals are not looked at.

    `choose_scale` is shown the start and may answer with the metres per unit to begin with instead. Raises NoFaceError
    where no source saw a face at any timestep.
    """
    marks = [placed(capture, source, use_geometry) for source in sources]
    if not any(one.found(t) for one in marks for t in range(len(capture.timesteps))):
        where = "" if len(capture.timesteps) > 1 else f" of timestep {capture.timesteps[0]}"
        raise NoFaceError(
            f"{capture.root}: no view{where} has a face. Run detect again, or render with another --shading."
        )
    has_surface = use_geometry and all(view.geometry_path for view in capture.views_of("fit"))
    has_surface = has_surface and bool(capture.views_of("fit"))

    def surfaces() -> list[Iterable[SurfaceView]] | None:
        fit_views = [capture.views_of("fit", timestep=t) for t in capture.timesteps]
        return [surface_views(capture, views) for views in fit_views] if has_surface else None

    start = make_start(head, marks, surfaces(), metres_per_unit)
    chosen = choose_scale(start) if choose_scale is not None else None
    return start if chosen is None else make_start(head, marks, surfaces(), chosen)


def _frame_target(
    head: HeadModel, sources: Sequence[PlacedLandmarks], timestep: int, reference_from_world: np.ndarray
) -> FrameTarget:
    """What all sources say of one timestep, each by its share, in the reference frame."""
    own = zip(sources, shares_of(sources, timestep), strict=True)
    return FrameTarget(tuple(_target(head, one, timestep, reference_from_world, share) for one, share in own))


def _target(
    head: HeadModel, source: PlacedLandmarks, timestep: int, reference_from_world: np.ndarray, share: float
) -> SourceTarget:
    """What one source says of one timestep, in the reference frame."""
    points, embedding = source.landmarks[timestep], source.embedding
    weights = landmark_weights(points.scheme, len(points.points))
    out = SourceTarget(
        make_landmark_target(
            head,
            embedding,
            transform_points(reference_from_world, points.points),
            points.spread * decompose_similarity(reference_from_world)[0],
            weights,
            scheme=points.scheme,
        ),
        share=share,
        evidence=source.evidence[timestep] if source.evidence else None,
    )
    found = source.detections[timestep] if source.detections else None
    if found is not None:
        camera = move_camera(found.world_to_camera, reference_from_world)
        out.pixels = make_pixel_target(head, embedding, ~points.valid, found.landmarks, found.K, camera, weights)
        out.detections = make_detection_target(
            head, embedding, points.scheme, found.landmarks, found.K, camera, found.sizes, found.searched
        )
    return out


def masked_surface_weights(head: HeadModel, occluded: tuple[str, ...], trust: Trust = TRUST["mesh"]) -> SurfaceWeights:
    """Surface weights with the occluded regions left out."""
    unknown = [name for name in occluded if name not in head.regions]
    if unknown:
        raise InputError(f"--model.occluded {unknown[0]}: the head model {head.name} has no such region.")
    return replace(surface_weights(head, dict.fromkeys(occluded, 0.0)), trust=trust)


def neutral_parameters(head: HeadModel, timesteps: int) -> FitParameters:
    """The template at every timestep, double precision."""
    return FitParameters.neutral(head, timesteps, torch.float64)
