"""A fit over time: curves by timestep, how much it trembles, what was left out, which timesteps are the worst.

Arrays have an entry for each timestep of the fit; None where there is nothing to measure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from flame_fitting.capture.capture import Capture
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.report.landmark_errors import ViewErrors, spread_of
from flame_fitting.report.pictures import PictureMeasures, ViewMeasure

CURVES = {
    "landmark_px": ("landmarks", "px"),
    "psnr_db": ("PSNR", "dB"),
    "iou": ("silhouette IoU", ""),
    "jitter_mm": ("jitter", "mm"),
}
"""Arrays by timestep, with what figures call them, and their units."""
_POSES = {"rotation_deg": "rotation", "neck_deg": "neck_pose", "jaw_deg": "jaw_pose", "eyes_deg": "eyes_pose"}
_WORST = 6
_CHUNK = 64


@dataclass
class OverTime:
    """What is known of the timesteps of a fit."""

    timestep_id: list[str]
    curves: dict[str, list[float | None]]
    """By `CURVES`."""
    pose_jitter: dict[str, list[float | None]]
    """Of each pose, by timestep."""
    no_face: list[int] = field(default_factory=list)
    """Rows of timesteps in which no picture shows a face."""
    heldout: list[int] = field(default_factory=list)
    """Rows of timesteps that the fit did not look at."""
    errors: list[ViewErrors] = field(default_factory=list)
    """Landmarks of all views with a face."""
    left_out: dict[str, Any] = field(default_factory=dict)
    """Landmarks and pictures that the fit did not look at, and the others beside them."""
    worst: list[int] = field(default_factory=list)
    """Rows of the worst timesteps that have a face, the worst first."""

    def add_pictures(self, pictures: PictureMeasures) -> None:
        """Adds what the drawn views say, and with that which timesteps are the worst."""
        by_row: list[list[ViewMeasure]] = [[] for _ in self.timestep_id]
        for one in pictures.views:
            by_row[one.row].append(one)
        self.curves["psnr_db"] = _short([pictures.psnr("head", views) for views in by_row])
        self.curves["iou"] = _short([pictures.iou(1, views) for views in by_row])
        self.left_out = _left_out(self.errors, pictures.without(self.no_face))
        self.worst = worst_rows(self)

    def mark(self, row: int) -> str:
        """What is special about a timestep, in words; empty where nothing is."""
        return "no face found" if row in self.no_face else "held out" if row in self.heldout else ""

    def as_metrics(self) -> dict[str, Any]:
        """For metrics.json."""
        names = self.timestep_id
        out: dict[str, Any] = {
            "timestep_id": names,
            **self.curves,
            "pose_jitter": self.pose_jitter,
            "jitter_rms": {"vertices_mm": _rms(self.curves["jitter_mm"])}
            | {name: _rms(values) for name, values in self.pose_jitter.items()},
            "no_face": [names[row] for row in self.no_face],
            "heldout_timesteps": [names[row] for row in self.heldout],
            "worst": [names[row] for row in self.worst],
        }
        return out | ({"heldout": self.left_out} if self.left_out else {})


def over_time(
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    detected: Landmarks2D | None,
    errors: list[ViewErrors],
    mm: float = 1000.0,
) -> OverTime:
    """What is known of a fit without pictures; `mm` is millimetres in a head-space metre."""
    steps = fit.timesteps
    by_row: list[list[ndarray]] = [[] for _ in range(steps)]
    for one in errors:
        by_row[one.row].append(one.pixels)
    curves: dict[str, list[float | None]] = {
        "landmark_px": [_median(parts) for parts in by_row],
        "psnr_db": [None] * steps,
        "iou": [None] * steps,
        "jitter_mm": vertex_jitter(fit, head, mm),
    }
    return OverTime(
        list(fit.timestep_id),
        {name: _short(values) for name, values in curves.items()},
        {name: _short(values) for name, values in pose_jitter(fit, mm).items()},
        no_face=[] if detected is None else np.flatnonzero(~detected.found.any(axis=1)).tolist(),
        heldout=capture.heldout_rows,
        errors=errors,
    )


def vertex_jitter(fit: FitResult, head: HeadModel, mm: float = 1000.0) -> list[float | None]:
    """(T,) RMS over the face's vertices of their second difference in the world, at its middle timestep; mm."""
    face = head.region_mask("face").cpu().numpy()
    chosen = face if face.any() else np.ones_like(face)
    out: list[float | None] = [None] * fit.timesteps
    for first, vertices in _chunks(fit, head):
        second = np.diff(vertices[:, chosen], n=2, axis=0)
        for k, value in enumerate(np.sqrt((second**2).sum(-1).mean(-1))):
            out[first + 1 + k] = float(value) * mm
    return out


def _chunks(fit: FitResult, head: HeadModel) -> Iterator[tuple[int, ndarray]]:
    """First row and vertices (n, V, 3) of pieces that overlap by two timesteps."""
    for first in range(0, fit.timesteps - 2, _CHUNK):
        yield first, fit.vertices_head(head, range(first, min(first + _CHUNK + 2, fit.timesteps)))


def pose_jitter(fit: FitResult, mm: float = 1000.0) -> dict[str, list[float | None]]:
    """(T,) length of the second difference of each pose: translation in mm, rotations in degrees.

    Of a rotation, the difference of the turns from the timestep before and to the one after; of the eyes the RMS of
    both.
    """
    out = {"translation_mm": _inner(np.linalg.norm(np.diff(fit.parameters["translation"], n=2, axis=0), axis=-1) * mm)}
    for name, key in _POSES.items():
        values = fit.parameters[key]
        joints = [second_turn(values[:, k : k + 3]) for k in range(0, values.shape[1], 3)]
        out[name] = _inner(np.degrees(np.sqrt(np.mean(np.square(joints), axis=0))))
    return out


def second_turn(axis_angle: Float[ndarray, "T 3"]) -> Float[ndarray, " n"]:
    """(T - 2,) rad: how much the turn from one timestep to the next changes."""
    turns = Rotation.from_rotvec(np.asarray(axis_angle, dtype=np.float64))
    steps = (turns[:-1].inv() * turns[1:]).as_rotvec() if len(axis_angle) > 1 else np.zeros((0, 3))
    return np.linalg.norm(np.diff(steps, axis=0), axis=-1)


def worst_rows(found: OverTime, most: int = _WORST) -> list[int]:
    """Timesteps with a face by their landmarks, the farthest first; by their pictures where there are none."""
    for name, sign in (("landmark_px", -1.0), ("psnr_db", 1.0), ("iou", 1.0)):
        values = found.curves[name]
        known = [row for row, value in enumerate(values) if value is not None and row not in found.no_face]
        if known:
            return sorted(known, key=lambda row: (sign * float(values[row] or 0.0), row))[:most]
    return []


def _left_out(errors: list[ViewErrors], pictures: PictureMeasures) -> dict[str, Any]:
    """Views that the fit did not look at, and for comparison those that it did; empty where there are none."""
    if not any(one.heldout for one in errors) and not any(one.heldout for one in pictures.views):
        return {}
    out: dict[str, Any] = {}
    for name, apart in (("views_held_out", True), ("views_fitted", False)):
        pixels = [one.pixels for one in errors if one.heldout == apart]
        views = [one for one in pictures.views if one.heldout == apart]
        out[name] = {
            "landmark_px": spread_of(np.concatenate(pixels)) if pixels else None,
            "psnr_db": pictures.psnr("head", views),
            "iou": pictures.iou(1, views),
            "views_drawn": len(views),
        }
    return out


def _inner(values: ndarray) -> list[float | None]:
    """Second differences at their middle timesteps; the first and the last one have none."""
    return [None, *map(float, values), None] if len(values) else [None] * 2


def _median(parts: list[ndarray]) -> float | None:
    pooled = np.concatenate(parts) if parts else np.zeros(0)
    return float(np.median(pooled)) if len(pooled) else None


def _short(values: Sequence[float | None]) -> list[float | None]:
    """Four digits: a thousand timesteps shall stay a small file."""
    return [None if value is None else float(f"{value:.4g}") for value in values]


def _rms(values: Sequence[float | None]) -> float | None:
    known = np.array([value for value in values if value is not None])
    return float(np.sqrt(np.mean(known**2))) if len(known) else None
