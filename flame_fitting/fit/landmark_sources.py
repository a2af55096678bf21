"""Sources of landmarks: what each has found in a capture, and where its points lie on a head model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flame_fitting.capture.capture import Capture, View
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.landmarks.evidence import Evidence, EvidenceCalibration
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.lifting import Landmarks3D, lift_landmarks, put_on_surface


@dataclass(frozen=True, eq=False)
class LandmarkSource:
    """A detector's landmarks, or a user's own, in the pictures of a capture."""

    detected: Landmarks2D
    embedding: LandmarkEmbedding
    """Where on the head model this source means its points to be."""
    weight: float = 1.0
    """How much it counts beside the other sources, above 0."""
    calibration: EvidenceCalibration | None = None
    """How its evidence is read on the head model; None where it has none, or none is wanted."""
    evidence: Evidence | None = None
    """Of lids, lips and gaze in every picture, (T, C, Q), as `refined` reads it."""
    in_space: Sequence[Landmarks3D] = ()
    """Its points in the world by timestep, where they are known and not to be made of the pictures."""


@dataclass(eq=False)
class Detections:
    """What a source found in the views of one timestep that show a face."""

    landmarks: np.ndarray
    """(C, N, 3) x px, y px, confidence."""
    K: np.ndarray
    """(C, 3, 3) px."""
    world_to_camera: np.ndarray
    """(C, 4, 4)."""
    views: list[View]
    searched: int
    """Views of that timestep with a role of these, in which nothing was found, too."""

    @property
    def sizes(self) -> np.ndarray:
        """(C, 2) width and height, px."""
        return np.array([[view.width, view.height] for view in self.views])


@dataclass(frozen=True, eq=False)
class PlacedLandmarks:
    """Landmarks of one source in space."""

    embedding: LandmarkEmbedding
    landmarks: Sequence[Landmarks3D]
    """One per timestep, world."""
    detections: Sequence[Detections | None] = ()
    """What they were made of, one per timestep; none where that is not known."""
    weight: float = 1.0
    """As of the source."""
    name: str = ""
    """Of the detector."""
    version: str = ""
    """Of the detector, which says its weights by their hash."""
    evidence: Sequence[Evidence | None] = ()
    """Of the views of each timestep together, (Q,); None where nothing was seen. Empty: none at all."""

    def found(self, timestep: int) -> bool:
        """Whether the source saw a face at a timestep."""
        if self.detections:
            return self.detections[timestep] is not None
        return bool(self.landmarks[timestep].valid.any())


def shares_of(sources: Sequence[PlacedLandmarks], timestep: int) -> list[float]:
    """Part of each source in what all landmarks of a timestep count for.

    0 of those that saw no face; the others make 1.
    """
    weights = [source.weight if source.found(timestep) else 0.0 for source in sources]
    return [weight / max(sum(weights), 1e-12) for weight in weights]


def detections_of(capture: Capture, detected: Landmarks2D) -> list[Detections | None]:
    """The views of every timestep in which a face was found; None where none was."""
    camera_row = {camera: row for row, camera in enumerate(capture.cameras)}
    out: list[Detections | None] = []
    for row, timestep in enumerate(capture.timesteps):
        found, of_timestep = detected.found[row], capture.views_of(timestep=timestep)
        views = [view for view in of_timestep if found[camera_row[view.camera]]]
        if not views:
            out.append(None)
            continue
        roles = {view.role for view in views}
        out.append(
            Detections(
                detected.landmarks[row, [camera_row[view.camera] for view in views]].astype(np.float64),
                np.stack([view.K for view in views]),
                np.stack([view.world_to_camera for view in views]),
                views,
                sum(view.role in roles for view in of_timestep),
            )
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

    `Landmarks3D.nowhere` where nothing was detected.
    """
    if detections is None:
        return Landmarks3D.nowhere(scheme)
    has_geometry = use_geometry and all(view.geometry_path for view in detections.views)
    depth, normal = _maps(capture, detections) if has_geometry else (None, None)
    K, world_to_camera = detections.K, detections.world_to_camera
    return lift_landmarks(detections.landmarks, K, world_to_camera, scheme, depth, normal, head_from_world)


def placed_on_surface(
    capture: Capture, detections: Detections | None, landmarks: Landmarks3D, head_from_world: np.ndarray | None
) -> Landmarks3D:
    """Points of one timestep, made of several sources', on the surface that the views of its detections show."""
    if detections is None:
        return landmarks
    depth, normal = _maps(capture, detections)
    return put_on_surface(landmarks, detections.K, detections.world_to_camera, depth, normal, head_from_world)


def placed(capture: Capture, source: LandmarkSource, use_geometry: bool = True) -> PlacedLandmarks:
    """A source's landmarks in space, at every timestep of a capture."""
    found, scheme = detections_of(capture, source.detected), source.detected.scheme
    rough = capture.avatar.head_from_world
    landmarks = source.in_space or [lift_detections(capture, one, scheme, rough, use_geometry) for one in found]
    detected = source.detected
    return PlacedLandmarks(
        source.embedding,
        landmarks,
        found,
        source.weight,
        detected.detector,
        detected.detector_version,
        _evidence_by_timestep(source),
    )


def _evidence_by_timestep(source: LandmarkSource) -> list[Evidence | None]:
    if source.evidence is None:
        return []
    together, known = source.evidence.combined(), np.asarray(source.evidence.known.any(1))
    return [
        Evidence(together.values[row], together.own_std[row], together.shared_std, together.odds[row])
        if known[row]
        else None
        for row in range(len(known))
    ]


def _maps(capture: Capture, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Depth (C, H, W) and normals (C, H, W, 3) of the views."""
    geometry = [capture.geometry(view) for view in detections.views]
    return _stacked([depth for depth, _ in geometry]), _stacked([normal for _, normal in geometry])


def _stacked(maps: list[np.ndarray]) -> np.ndarray:
    """Maps (H, W, ...) of several sizes as (C, H, W, ...), with zeros below and to the right of the smaller ones."""
    size = np.max([one.shape for one in maps], axis=0)
    out = np.zeros((len(maps), *size), dtype=maps[0].dtype)
    for row, one in enumerate(maps):
        out[row][tuple(slice(length) for length in one.shape)] = one
    return out
