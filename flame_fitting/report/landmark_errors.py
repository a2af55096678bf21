"""How far the fitted head's landmarks are from where they were detected."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera import project
from flame_fitting.capture.capture import Capture, View
from flame_fitting.fit.result import FitResult
from flame_fitting.landmarks.files import Landmarks2D, find_landmarks, landmark_names, read_landmarks


@dataclass(frozen=True)
class ViewErrors:
    """Of one view in which a face was found."""

    row: int
    """Of the timestep."""
    heldout: bool
    """Whether the fit did not look at it."""
    pixels: Float[ndarray, " n"]
    """Distances of the points that the fit uses, px."""


def detections_of_fit(fit: FitResult, capture: Capture) -> Landmarks2D | None:
    """The landmarks that the fit was made with, as its capture has them, held-out views too; None where it has not."""
    made_by, scheme = (str(fit.landmarks3d.get(key, "")) for key in ("detector", "scheme"))
    if made_by and find_landmarks(capture, made_by) is not None:
        names = [made_by]
    else:  # of several that were merged, the one whose order of points was taken
        names = landmark_names(capture)
    for name in names:
        detected = read_landmarks(capture, name)
        if not scheme or detected.scheme == scheme:
            return detected
    return None


def landmark_errors(fit: FitResult, capture: Capture, detected: Landmarks2D | None) -> list[ViewErrors]:
    """Views with a face. Where a fit has not looked at a timestep, the points that it uses at others count."""
    found = fit.landmarks3d
    if detected is None or not {"model", "used"} <= found.keys():
        return []
    model, used = found["model"], np.asarray(found["used"], dtype=bool)
    if detected.landmarks.shape[2] != model.shape[1]:
        return []
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    columns = {camera: column for column, camera in enumerate(capture.cameras)}
    anywhere, out = used.any(axis=0), []
    for view in capture.views:
        row = rows[view.timestep]
        points = detected.landmarks[row, columns[view.camera]]
        if not np.isfinite(points[:, :2]).any():
            continue
        projected = project(model[row], view.K, view.world_to_camera)
        error = np.linalg.norm(projected[:, :2] - points[:, :2], axis=1)
        counts = (used[row] if used[row].any() else anywhere) & _seen(capture, view, projected) & np.isfinite(error)
        out.append(ViewErrors(row, view.role == "heldout", error[counts]))
    return out


def spread_of(values: ndarray) -> dict[str, float] | None:
    """Median and 95th percentile; None without values."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not len(finite):
        return None
    return {"median": float(np.median(finite)), "p95": float(np.percentile(finite, 95))}


def landmark_metrics(
    fit: FitResult, capture: Capture, mm_per_unit: float, errors: list[ViewErrors] | None = None
) -> dict[str, Any]:
    """`reprojection_px` (detections against the fitted head's points), `spread_mm`, `error_mm`, and the `sources`.

    `errors` are those of `landmark_errors`, where the caller has them.
    """
    found = fit.landmarks3d
    if not {"points", "model", "spread_mm", "used"} <= found.keys():
        return {}
    if errors is None:
        errors = landmark_errors(fit, capture, detections_of_fit(fit, capture))
    used = np.asarray(found["used"], dtype=bool)
    apart = np.linalg.norm(found["points"] - found["model"], axis=-1) * mm_per_unit
    pixels = [one.pixels for one in errors if not one.heldout] or [one.pixels for one in errors]
    out: dict[str, Any] = {"sources": landmark_sources(fit)}
    for name, values in (
        ("reprojection_px", np.concatenate(pixels) if pixels else np.zeros(0)),
        ("spread_mm", found["spread_mm"][used]),
        ("error_mm", apart[used]),
    ):
        if (spread := spread_of(values)) is not None:
            out[name] = spread
    return out


def landmark_sources(fit: FitResult) -> dict[str, str]:
    """What the fit's landmarks were detected with: versions, which begin with the weights' hash, by detector."""
    found = fit.landmarks3d
    names = [key for key in found if key == "detector" or key.endswith("/detector")]
    return {str(found[name]): str(found.get(f"{name}_version", "")) for name in names}


def _seen(capture: Capture, view: View, projected: ndarray) -> ndarray:
    """Bool (N,): projected points (x px, y px, depth) that are not behind the avatar's surface."""
    finite = np.isfinite(projected).all(axis=1)
    if view.geometry_path is None:
        return finite
    depth, _ = capture.geometry(view)
    column = np.clip(np.nan_to_num(projected[:, 0]), 0, view.width - 1).astype(int)
    row = np.clip(np.nan_to_num(projected[:, 1]), 0, view.height - 1).astype(int)
    surface = depth[row, column]
    slack = 0.01 * np.nan_to_num(projected[:, 2])  # 1 % of the distance: about 1 cm in the usual views
    return finite & (surface > 0) & (projected[:, 2] < surface + slack)
