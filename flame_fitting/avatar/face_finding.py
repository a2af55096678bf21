"""Finds the face of an avatar in any unit, with any up and forward axis, as a bust or a full body.

The avatar is rendered from many directions, whole and by its ends, until the detector sees a face. That picture only
gives a first guess: its points are lifted by depth and aligned with the head model's own, the cameras are aimed anew in
the frame found this way, and the guess is accepted if views around the face agree with a human head. A detector also
fires at ears, knees and heads seen upside down; these do not survive the second look.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting import progress
from flame_fitting.avatar.head_calibration import (
    detector_input,
    head_frame,
    landmark_embedding,
    render_views,
    shading_kind,
)
from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.probes import Probe, nearest_axis, probes_of, turned_camera
from flame_fitting.avatar.view_planning import HeadFrame, camera_distance, head_cameras
from flame_fitting.capture.avatar_record import Direction, FaceRecord
from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.capture.similarity import SimilarityFit, decompose_similarity, robust_umeyama, similarity_matrix
from flame_fitting.errors import NoFaceError
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.lifting import lift_by_depth, lift_landmarks
from flame_fitting.landmarks.schemes import EYE_CORNERS, inner_weights, scheme_named

FOV = 25.0
EYE_DISTANCE = 0.09
"""Between the outer eye corners, m, where a landmark embedding does not have them."""
JAW_OPENINGS = (0.0, 0.15, 0.3)
"""Rotations of the jaw, radians, that faces are compared with: closed first."""


@dataclass(frozen=True)
class FaceFindingConfig:
    """How long to search and what to accept. Residuals are relative to the distance of the outer eye corners."""

    probe_resolution: int = 256
    """Side of a probe's picture, px."""
    max_residual: float = 0.08
    """Largest residual (weighted RMS over the 51 inner landmarks) of an accepted face."""
    first_residual: float = 0.30
    """Largest residual of a single probe's picture that is worth a second look."""
    early_residual: float = 0.065
    """A face below this, seen in all aimed views, ends the search."""
    max_candidates: int = 80
    """Second looks per kind of shading."""
    aim_resolution: int = 384
    """Side of the pictures that aim the cameras, px."""
    final_rounds: int = 2
    """Most rounds of views at full resolution at the end: the frame must not depend on the probe that found it."""


@dataclass(eq=False)
class FaceFinding:
    """Where the head is."""

    head_from_world: Float[ndarray, "4 4"]
    """Similarity, world to head space in metres."""
    residual_mm: float
    """Weighted RMS over the 51 inner landmarks, head-space mm."""
    residual_relative: float
    """The same over the distance of the avatar's outer eye corners."""
    shading: str
    """unlit or clay: the pictures in which the face was found."""
    n_views: int
    """Views, of seven around the face, that saw it."""
    up: ndarray
    """(3,) unit vector in the world."""
    forward: ndarray
    """(3,) unit vector in the world: where the face looks."""
    probes: list[dict[str, Any]] = field(default_factory=list)
    """What was tried: the part and directions of every picture with a face, and what became of it."""
    n_probes: int = 0
    """Pictures rendered in the search."""

    def record(self, head_from_world: Float[ndarray, "4 4"]) -> FaceRecord:
        """For a capture, whose world `head_from_world` leads from; its axes are those of the search."""
        return FaceRecord(
            head_from_world=head_from_world,
            mm_per_unit=1000.0 * decompose_similarity(head_from_world)[0],
            up=Direction(nearest_axis(self.up), self.up),
            forward=Direction(nearest_axis(self.forward), self.forward),
            residual_mm=self.residual_mm,
            residual_relative=self.residual_relative,
            shading=self.shading,
            views_with_face=self.n_views,
            probes_rendered=self.n_probes,
            probes_with_face=tuple(self.probes),
        )


def find_face(
    avatar: Avatar,
    detector: LandmarkDetector,
    head: HeadModel,
    config: FaceFindingConfig | None = None,
    notify: Callable[[str], None] | None = None,
    frame: HeadFrame | None = None,
    licensed: Path | None = None,
) -> FaceFinding:
    """The similarity between an avatar and head space.

    Args:
        notify: told in words when something takes long.
        frame: what cameras aim at; the head model's by default.
        licensed: file of a landmark embedding to take instead of the calibrated one.

    Raises:
        NoFaceError: nothing that looks like a human head from several sides.
    """
    config = config or FaceFindingConfig()
    frame = frame or head_frame(head)
    tried: list[str] = []
    probes: list[dict[str, Any]] = []
    count = 0
    for shading in ("unlit", "clay") if avatar.has_color else ("clay",):
        search = _Search(avatar, detector, head, shading, config, frame, notify, licensed)
        finding = search.run()
        probes += search.log
        count += search.n_probes
        tried.append(f"{search.n_probes} pictures {'with its colours' if shading == 'unlit' else 'as grey clay'}")
        if finding is not None:
            finding.probes, finding.n_probes = probes, count
            return finding
    best = min((p["residual"] for p in probes if p["residual"] is not None), default=None)
    if not probes:
        seen = "nothing in them resembles a face"
    elif best is None or best <= config.max_residual:
        seen = f"{len(probes)} places resembled a face from one side, but not from others"
    else:
        seen = f"the nearest to a face departs from one by {100 * best:.0f} % of the eye distance"
        seen += f" ({100 * config.max_residual:.0f} % is the limit)"
    raise NoFaceError(
        f"{avatar.path}: no human face found in {' and '.join(tried)}: {seen}. Check in a viewer that the file shows a"
        " face that nothing hides; of a scene with several objects keep only the person."
    )


class _Search:
    """The search with one kind of shading."""

    def __init__(
        self,
        avatar: Avatar,
        detector: LandmarkDetector,
        head: HeadModel,
        shading: str,
        config: FaceFindingConfig,
        frame: HeadFrame,
        notify: Callable[[str], None] | None,
        licensed: Path | None,
    ) -> None:
        self.avatar, self.detector, self.shading = avatar, detector, shading
        self.config, self.frame = config, frame
        embedding = landmark_embedding(head, detector, shading_kind(shading), notify=notify, licensed=licensed)
        self.inner = scheme_named(detector.scheme).inner
        self.weights = inner_weights()
        jaws = torch.tensor([[opening, 0.0, 0.0] for opening in JAW_OPENINGS]).to(head.v_template)
        with torch.no_grad():
            models = embedding.points(head(jaw_pose=jaws).vertices, head.faces).cpu().numpy().astype(np.float64)
        self.models_inner = models[:, self.inner]
        eye_corners = models[0][scheme_named(detector.scheme).ibug68[list(EYE_CORNERS)]]
        distance = float(np.linalg.norm(eye_corners[0] - eye_corners[1]))
        self.eye_distance = distance if np.isfinite(distance) else EYE_DISTANCE
        self.K = intrinsics_from_fov(FOV, config.probe_resolution, config.probe_resolution)
        self.log: list[dict[str, Any]] = []
        self.n_probes = 0

    def run(self) -> FaceFinding | None:
        """The first face beyond doubt, else the best acceptable one."""
        accepted: list[tuple[float, ndarray]] = []
        looked_at: list[ndarray] = []
        for probe, landmarks, camera in self._pictures():
            first = self._first_guess(landmarks, camera)
            if first is None or any(_alike(first, other) for other in looked_at):
                continue
            looked_at.append(first)
            found = self._aim(first)
            entry = {"part": probe.part, "direction": [round(float(d), 3) for d in probe.direction], "residual": None}
            self.log.append({**entry, "shading": self.shading})
            if found is not None:
                matrix, residual, share = found
                self.log[-1]["residual"] = round(residual, 4)
                looked_at.append(matrix)
                if self._acceptable(residual, share):
                    accepted.append((residual, matrix))
                    # A detector also sees a face in one that stands on its head: the better of the two is upright.
                    other = self._aim(self._upside_down(matrix))
                    if other is not None and self._acceptable(*other[1:]):
                        looked_at.append(other[0])
                        accepted.append((other[1], other[0]))
                    if residual <= self.config.early_residual and share == 1.0:
                        break
            if len(self.log) >= self.config.max_candidates:
                break
        for _, matrix in sorted(accepted, key=lambda pair: pair[0]):
            finding = self._finish(matrix)
            if finding is not None:
                return finding
        return None

    def _acceptable(self, residual: float, share: float) -> bool:
        return residual <= self.config.max_residual and share >= 0.75

    def _upside_down(self, matrix: ndarray) -> ndarray:
        """The frame of a head that looks the same way from the same place, turned by half about its forward axis."""
        turn = np.diag([-1.0, -1.0, 1.0])
        center = np.nanmean(self.models_inner[0], axis=0)
        return np.asarray(similarity_matrix(1.0, turn, center - turn @ center) @ matrix)

    def _pictures(self) -> Iterator[tuple[Probe, ndarray, ndarray]]:
        """Pictures in which a quick detection sees a face: the 51 inner points (x, y, confidence) and the camera."""
        size = self.config.probe_resolution
        for probe in progress.each(probes_of(self.avatar), "face", "picture"):
            eye = probe.center + camera_distance(probe.radius, FOV) * probe.direction
            camera = look_at(eye, probe.center, probe.up)
            views = self.avatar.draw(
                self.K[None], camera[None], size, size, self.shading, supersample=1, outputs=("image",)
            )
            self.n_probes += 1
            assert views.image is not None
            image = detector_input(views.image[0])
            for turn in probe.turns:
                landmarks = self.detector.detect_quickly(np.ascontiguousarray(np.rot90(image, turn))[None])
                if np.isfinite(landmarks[0, self.inner]).all():
                    yield probe, landmarks[0, self.inner].astype(np.float64), turned_camera(camera, turn)

    def _first_guess(self, landmarks: ndarray, camera: ndarray) -> ndarray | None:
        size, K = self.config.probe_resolution, self.K[None]
        geometry = self.avatar.draw(K, camera[None], size, size, self.shading, outputs=("depth",))
        assert geometry.depth is not None
        points, _ = lift_by_depth(landmarks[None, :, :2], geometry.depth, None, K, camera[None], 0.0)
        weights = self.weights * landmarks[:, 2]
        fit = self._similarity(points[0], weights)
        if fit is None or self._relative(fit) > self.config.first_residual:
            return None
        return fit.matrix

    def _aim(self, matrix: ndarray) -> tuple[ndarray, float, float] | None:
        """Re-aims until the frame stands still. Returns the frame, its residual, and the share of views with a face."""
        angles = np.array([(0.0, 0.0), (-25.0, 0.0), (25.0, 0.0), (0.0, 12.0), (0.0, -12.0)])
        if not self._shows_a_face(matrix):
            return None
        result = None
        for turn in range(5):
            looked = self._look(matrix, angles, self.config.aim_resolution)
            if looked is None:
                return None
            fit, seen = looked
            residual = self._relative(fit)
            moved = _difference(matrix, fit.matrix)
            matrix = fit.matrix
            result = matrix, residual, float(seen.mean())
            # A second look at a real face fits well; an ear or a knee is not worth a third.
            if moved < 0.01 or (turn > 0 and residual > 1.5 * self.config.max_residual):
                break
        return result

    def _shows_a_face(self, matrix: ndarray) -> bool:
        """A cheap look from the front and from one side: most false alarms end here."""
        size = self.config.probe_resolution
        cameras = head_cameras(np.array([(0.0, 0.0), (20.0, 5.0)]), matrix, self.frame, FOV)
        K = np.broadcast_to(intrinsics_from_fov(FOV, size, size), (2, 3, 3))
        rotation = decompose_similarity(matrix)[1]
        views = render_views(self.avatar, K, cameras, size, self.shading, rotation, supersample=1)
        return bool(np.isfinite(self.detector.detect_quickly(views.images)[:, 0, 0]).any())

    def _finish(self, matrix: ndarray) -> FaceFinding | None:
        """The frame from a cross of views at the resolution of the landmark views."""
        angles = np.array([(yaw, 0.0) for yaw in (-40, -20, 0, 20, 40)] + [(0.0, -15.0), (0.0, 15.0)])
        result: tuple[SimilarityFit, ndarray] | None = None
        for _ in range(self.config.final_rounds):
            result = self._look(matrix, angles, 512)
            if result is None:
                return None
            moved = _difference(matrix, result[0].matrix)
            matrix = result[0].matrix
            if moved < 0.01:
                break
        if result is None or self._relative(result[0]) > self.config.max_residual or result[1].mean() < 0.6:
            return None
        rotation = decompose_similarity(matrix)[1]
        relative = self._relative(result[0])
        return FaceFinding(
            head_from_world=matrix,
            residual_mm=1000.0 * relative * self.eye_distance,
            residual_relative=relative,
            shading=self.shading,
            n_views=int(result[1].sum()),
            up=rotation[1].copy(),
            forward=rotation[2].copy(),
        )

    def _look(self, matrix: ndarray, angles: ndarray, size: int) -> tuple[SimilarityFit, ndarray] | None:
        """Detects in views aimed by `matrix` and fits the similarity anew; also which views saw a face."""
        cameras = head_cameras(angles, matrix, self.frame, FOV)
        K = np.broadcast_to(intrinsics_from_fov(FOV, size, size), (len(angles), 3, 3))
        rotation = decompose_similarity(matrix)[1]
        views = render_views(self.avatar, K, cameras, size, self.shading, rotation)
        landmarks = self.detector.detect(views.images)
        seen = np.isfinite(landmarks[:, 0, 0])
        if seen.sum() < max(2, len(angles) // 2):
            return None
        # Only the rigid inner points matter here, but the scheme's order is needed to know left from right.
        lifted = lift_landmarks(
            landmarks, K, cameras, self.detector.scheme, views.depth, views.normal, head_from_world=matrix
        )
        fit = self._similarity(lifted.points[self.inner], self.weights)
        return None if fit is None else (fit, seen)

    def _similarity(self, points: ndarray, weights: ndarray) -> SimilarityFit | None:
        """To the head with its jaw closed, or, where that leaves doubts, with the opening that fits best."""
        best: SimilarityFit | None = None
        for model in self.models_inner:
            usable = np.isfinite(points).all(1) & np.isfinite(model).all(1)
            if usable.sum() < 25:
                return None
            try:
                fit = robust_umeyama(points, model, weights)
            except ValueError:
                return None
            if best is None or self._relative(fit) < self._relative(best):
                best = fit
            if self._relative(best) <= self.config.early_residual:
                break
        return best

    def _relative(self, fit: SimilarityFit) -> float:
        """Weighted RMS of the best nine tenths over the distance of the outer eye corners.

        With the prior weights: the robust ones would forgive whatever does not fit. A tenth may fail: a mouth corner
        can fall through an open mouth onto the back of the head.
        """
        order = np.argsort(fit.residuals)[: int(np.ceil(0.9 * np.isfinite(fit.residuals).sum()))]
        return float(np.sqrt(np.average(fit.residuals[order] ** 2, weights=self.weights[order]))) / self.eye_distance


def _apart(a: ndarray, b: ndarray) -> tuple[float, float, float]:
    """Between two frames: angle (radians), logarithm of the scale, and shift (m)."""
    scale, rotation, shift = decompose_similarity(a @ np.linalg.inv(b))
    angle = float(np.arccos(np.clip(0.5 * (np.trace(rotation) - 1), -1, 1)))
    return angle, abs(float(np.log(scale))), float(np.linalg.norm(shift))


def _difference(a: ndarray, b: ndarray) -> float:
    """How far two frames lie apart: rotation (radians) plus relative scale plus shift over a head's radius."""
    angle, scale, shift = _apart(a, b)
    return angle + scale + shift / 0.1


def _alike(a: ndarray, b: ndarray) -> bool:
    """Whether two guesses lead to the same second look."""
    angle, scale, shift = _apart(a, b)
    return angle < 0.35 and scale < 0.3 and shift < 0.08
