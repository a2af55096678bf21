"""Which numbers of a fit leave the usual range, in words."""

from dataclasses import dataclass
from typing import Any

from flame_fitting.capture.capture import Capture


@dataclass(frozen=True)
class Thresholds:
    """Where a number leaves the usual range and becomes a warning."""

    face_median_mm: float = 1.5
    face_p95_mm: float = 4.0
    landmark_reprojection_px_at_512: float = 6.0
    landmark_spread_mm: float = 3.0
    silhouette_iou: float = 0.85
    psnr_heldout_db: float = 22.0
    flipped_triangles: int = 0
    shape_rms: float = 2.5
    """Root mean square of the shape coefficients that are in use, in standard deviations."""


def out_of_range(metrics: dict[str, Any], capture: Capture, limits: Thresholds) -> list[str]:
    """Warnings for numbers outside the usual range, in plain words."""
    found = []
    face = metrics["regions"].get("face", {}).get("to_avatar_mm")
    if face and face["median"] > limits.face_median_mm:
        found.append(
            f"The face is {face['median']:.2f} mm (median) from the avatar; up to {limits.face_median_mm} is usual."
        )
    if face and face["p95"] > limits.face_p95_mm:
        found.append(
            f"5 % of the face are more than {face['p95']:.1f} mm from the avatar; {limits.face_p95_mm} is usual."
        )
    landmarks = metrics["landmarks"]
    height = max((view.height for view in capture.views), default=512)
    allowed = limits.landmark_reprojection_px_at_512 * height / 512
    if "reprojection_px" in landmarks and landmarks["reprojection_px"]["median"] > allowed:
        value = landmarks["reprojection_px"]["median"]
        found.append(
            f"Landmarks are {value:.1f} px (median) from where they were detected; up to {allowed:.1f} is usual."
        )
    if "spread_mm" in landmarks and landmarks["spread_mm"]["median"] > limits.landmark_spread_mm:
        value = landmarks["spread_mm"]["median"]
        found.append(
            f"The views disagree on landmarks by {value:.1f} mm (median); up to {limits.landmark_spread_mm} is usual."
        )
    overlap = metrics["silhouette_iou_head"]
    if overlap is not None and overlap < limits.silhouette_iou:
        found.append(
            f"Silhouettes overlap by {overlap:.2f} above the neck, less than {limits.silhouette_iou}: hair or clothes?"
        )
    psnr = metrics["psnr_heldout_above_neck_db"]
    if psnr is not None and psnr < limits.psnr_heldout_db:
        found.append(
            f"Pictures from held-out views reach {psnr:.1f} dB above the neck, less than {limits.psnr_heldout_db}."
        )
    if metrics["flipped_triangles"] > limits.flipped_triangles:
        found.append(f"{metrics['flipped_triangles']} triangles of the face are turned inside out.")
    shape = metrics["parameters"]["shape_rms"]
    if shape > limits.shape_rms:
        found.append(f"The head is far from the model's people: shape coefficients of {shape:.1f} standard deviations.")
    return found
