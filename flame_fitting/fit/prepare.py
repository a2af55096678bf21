"""From a capture with 2D landmarks to the fit's starting state: 3D landmarks, similarity, surface, views."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flame_fitting.capture.camera import move_camera, transform_points
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.similarity import decompose_similarity, robust_umeyama
from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights, surface_weights
from flame_fitting.fit.surface import SurfaceCloud, SurfaceView, fuse_surface, surface_views
from flame_fitting.fit.targets import FrameTarget, make_detection_target, make_landmark_target, make_pixel_target
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.lifting import Landmarks3D, lift_landmarks
from flame_fitting.landmarks.schemes import inner_weights, scheme_named

GROUP_WEIGHT = {"outline": 0.0, "jawline": 0.0, "brows": 0.2, "irises": 0.3}
"""Weight of named groups of landmarks where it is not 1: an outline is no fixed set of points of the head."""

_MOST_SIZE = 1.6
"""A face so many times larger or smaller than the head model's mean is no person's, children included."""


@dataclass(eq=False)
class Start:
    """Where a fit begins."""

    reference_from_world: np.ndarray
    """(4, 4) similarity to the reference frame: head space as the landmarks alone give it."""
    landmarks: list[Landmarks3D]
    """World, one per timestep."""
    targets: list[FrameTarget]


@dataclass(eq=False)
class Detections:
    """What a detector found in the views of one timestep that show a face."""

    landmarks: np.ndarray
    """(C, N, 3) x px, y px, confidence."""
    K: np.ndarray
    """(C, 3, 3) px."""
    world_to_camera: np.ndarray
    """(C, 4, 4)."""
    views: list[View]


def detections_of(capture: Capture, detected: Landmarks2D) -> list[Detections | None]:
    """The views of every timestep in which a face was found; None where none was.

    Raises NoFaceError where no timestep shows one.
    """
    camera_row = {camera: row for row, camera in enumerate(capture.cameras)}
    out: list[Detections | None] = []
    for row, timestep in enumerate(capture.timesteps):
        found = detected.found[row]
        views = [view for view in capture.views_of(timestep=timestep) if found[camera_row[view.camera]]]
        if not views:
            out.append(None)
            continue
        out.append(
            Detections(
                detected.landmarks[row, [camera_row[view.camera] for view in views]],
                np.stack([view.K for view in views]),
                np.stack([view.world_to_camera for view in views]),
                views,
            )
        )
    if not any(out):
        where = "" if len(out) > 1 else f" of timestep {capture.timesteps[0]}"
        raise NoFaceError(
            f"{capture.root}: no view{where} has a face. Run detect again, or render with another --shading."
        )
    return out


def lift_detections(
    capture: Capture,
    detections: Detections | None,
    scheme: str,
    head_from_world: np.ndarray | None,
    use_geometry: bool = True,
) -> Landmarks3D:
    """3D landmarks of one timestep, in the world: by the depth maps where the capture has them, else by rays.

    None where nothing was detected.
    """
    if detections is None:
        return Landmarks3D.nowhere(scheme)
    views = detections.views
    has_geometry = use_geometry and all(view.geometry_path for view in views)
    geometry = [capture.geometry(view) for view in views] if has_geometry else None
    return lift_landmarks(
        detections.landmarks,
        detections.K,
        detections.world_to_camera,
        scheme,
        depth=_stacked([depth for depth, _ in geometry]) if geometry else None,
        normal=_stacked([normal for _, normal in geometry]) if geometry else None,
        head_from_world=head_from_world,
    )


def similarity_from_landmarks(
    head: HeadModel, embedding: LandmarkEmbedding, landmarks: Landmarks3D, metres_per_unit: float | None = None
) -> np.ndarray:
    """head_from_world (4, 4) by a robust Umeyama fit of the inner landmarks to the template's.

    `metres_per_unit` fixes the scale.
    """
    inner = scheme_named(landmarks.scheme).inner
    template = embedding.points(head.v_template[None], head.faces)[0].double().numpy()[inner]
    source = landmarks.points[inner]
    if np.isfinite(source + template).all(axis=1).sum() < 6:
        raise NoFaceError(
            "fewer than 6 inner landmarks could be placed in space: the face is seen from too few sides. "
            "Give more views."
        )
    if metres_per_unit is not None:
        unit = np.diag([metres_per_unit] * 3 + [1.0])
        return robust_umeyama(source * metres_per_unit, template, inner_weights(), with_scale=False).matrix @ unit
    return robust_umeyama(source, template, inner_weights()).matrix


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
    embedding: LandmarkEmbedding,
    landmarks: list[Landmarks3D],
    surfaces: Sequence[Iterable[SurfaceView]] | None,
    metres_per_unit: float | None = None,
    spacing: float = 0.001,
) -> Start:
    """Aligns the landmarks of the first timestep with a face to the template; brings all targets into that frame.

    `surfaces` holds the `SurfaceView`s of each timestep, or is None without geometry. A timestep without a face has no
    target; raises NoFaceError where none has enough.
    """
    first = next((points for points in landmarks if points.valid.any()), landmarks[0])
    if metres_per_unit is not None:
        _check_unit(metres_per_unit, similarity_from_landmarks(head, embedding, first))
    reference = similarity_from_landmarks(head, embedding, first, metres_per_unit)
    scale = decompose_similarity(reference)[0]
    targets = []
    for t, points in enumerate(landmarks):
        cloud: SurfaceCloud | None = None
        if surfaces is not None and points.valid.any():
            cloud = fuse_surface(surfaces[t], reference, spacing)
        target = make_landmark_target(
            head,
            embedding,
            transform_points(reference, points.points),
            points.spread * scale,
            landmark_weights(points.scheme, len(points.points)),
            scheme=points.scheme,
        )
        targets.append(FrameTarget(target, cloud))
    if max(len(target.landmarks.index) for target in targets) < 20:
        raise NoFaceError(
            "fewer than 20 landmarks could be placed in space: the face is seen from too few sides. Give more views."
        )
    return Start(reference, landmarks, targets)


def start_from_capture(
    head: HeadModel,
    embedding: LandmarkEmbedding,
    capture: Capture,
    detected: Landmarks2D,
    metres_per_unit: float | None = None,
    use_geometry: bool = True,
    choose_scale: Callable[[Start], float | None] | None = None,
) -> Start:
    """`make_start` on a capture's own files; without `use_geometry` its depth and normals are not looked at.

    `choose_scale` is shown the start and may answer with the metres per unit to begin with instead.
    """
    rough = capture.avatar.head_from_world
    detections = detections_of(capture, detected)
    landmarks = [lift_detections(capture, found, detected.scheme, rough, use_geometry) for found in detections]
    has_surface = use_geometry and all(view.geometry_path for view in capture.views_of("fit"))
    has_surface = has_surface and bool(capture.views_of("fit"))

    def surfaces() -> list[Iterable[SurfaceView]] | None:
        fit_views = [capture.views_of("fit", timestep=t) for t in capture.timesteps]
        return [surface_views(capture, views) for views in fit_views] if has_surface else None

    start = make_start(head, embedding, landmarks, surfaces(), metres_per_unit)
    chosen = choose_scale(start) if choose_scale is not None else None
    if chosen is not None:
        start = make_start(head, embedding, landmarks, surfaces(), chosen)
    for found, points, target in zip(detections, landmarks, start.targets, strict=True):
        if found is None:
            continue
        roles = {view.role for view in found.views}
        target.pixels = make_pixel_target(
            head,
            embedding,
            ~points.valid,
            found.landmarks.astype(np.float64),
            found.K,
            move_camera(found.world_to_camera, start.reference_from_world),
            landmark_weights(points.scheme, len(points.points)),
        )
        target.detections = make_detection_target(
            head,
            embedding,
            detected.scheme,
            found.landmarks.astype(np.float64),
            found.K,
            move_camera(found.world_to_camera, start.reference_from_world),
            np.array([[view.width, view.height] for view in found.views]),
            searched=len([v for v in capture.views_of(timestep=found.views[0].timestep) if v.role in roles]),
        )
    return start


def masked_surface_weights(head: HeadModel, occluded: tuple[str, ...]) -> SurfaceWeights:
    """Surface weights with the occluded regions left out."""
    unknown = [name for name in occluded if name not in head.regions]
    if unknown:
        raise InputError(f"--model.occluded {unknown[0]}: the head model {head.name} has no such region.")
    return surface_weights(head, dict.fromkeys(occluded, 0.0))


def neutral_parameters(head: HeadModel, timesteps: int) -> FitParameters:
    """The template at every timestep, double precision."""
    return FitParameters.neutral(head, timesteps, torch.float64)


def _stacked(maps: list[np.ndarray]) -> np.ndarray:
    """Maps (H, W, ...) of several sizes as (C, H, W, ...), with zeros below and to the right of the smaller ones."""
    size = np.max([one.shape for one in maps], axis=0)
    out = np.zeros((len(maps), *size), dtype=maps[0].dtype)
    for row, one in enumerate(maps):
        out[row][tuple(slice(length) for length in one.shape)] = one
    return out
