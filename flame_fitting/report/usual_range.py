"""What is usual of the numbers of a fit: where they are good, and where they are worrying and become a warning."""

from dataclasses import dataclass, fields
from typing import Any, Literal

Verdict = Literal["good", "usual", "worrying"]


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


GOOD = Thresholds(0.5, 2.0, 3.0, 1.5, 0.95, 28.0, 0, 1.5)
"""Where the same numbers are good."""
SKIN = ("face", "nose", "lips", "eyes", "chin", "left_cheek", "right_cheek")
"""Regions whose distances have the face's range; hair and clothes lie over the others."""


@dataclass(frozen=True)
class Measure:
    """A number that has a range."""

    path: tuple[str, ...]
    """Where it stands in metrics.json."""
    unit: str
    warning: str
    """What is said of it where it is worrying, with {value} and {limit}."""
    more_is_better: bool = False
    by_height: bool = False
    """Whether limits are for pictures of 512 rows and grow with them."""


MEASURES = {
    "face_median_mm": Measure(
        ("regions", "face", "to_avatar_mm", "median"),
        "mm",
        "The face is {value:.2f} mm (median) from the avatar; up to {limit} is usual.",
    ),
    "face_p95_mm": Measure(
        ("regions", "face", "to_avatar_mm", "p95"),
        "mm",
        "5 % of the face are more than {value:.1f} mm from the avatar; {limit} is usual.",
    ),
    "landmark_reprojection_px_at_512": Measure(
        ("landmarks", "reprojection_px", "median"),
        "px",
        "Landmarks are {value:.1f} px (median) from where they were detected; up to {limit:.1f} is usual.",
        by_height=True,
    ),
    "landmark_spread_mm": Measure(
        ("landmarks", "spread_mm", "median"),
        "mm",
        "The views disagree on landmarks by {value:.1f} mm (median); up to {limit} is usual.",
    ),
    "silhouette_iou": Measure(
        ("silhouette_iou_head",),
        "",
        "Silhouettes overlap by {value:.2f} above the neck, less than {limit}: hair or clothes?",
        more_is_better=True,
    ),
    "psnr_heldout_db": Measure(
        ("psnr_heldout_above_neck_db",),
        "dB",
        "Pictures from held-out views reach {value:.1f} dB above the neck, less than {limit}.",
        more_is_better=True,
    ),
    "flipped_triangles": Measure(("flipped_triangles",), "", "{value} triangles of the face are turned inside out."),
    "shape_rms": Measure(
        ("parameters", "shape_rms"),
        "sd",
        "The head is far from the model's people: shape coefficients of {value:.1f} standard deviations.",
    ),
}
"""By the fields of `Thresholds`."""
assert list(MEASURES) == [one.name for one in fields(Thresholds)]


@dataclass(frozen=True)
class Judged:
    """A number beside its range."""

    value: float
    limit: float
    """Beyond which it is worrying."""
    verdict: Verdict
    range: str
    """The range in words."""


def judged(name: str, value: float, rows: int = 512, limits: Thresholds | None = None) -> Judged:
    """A number beside the range of the measure `name`; `rows` is the height of the pictures that it was measured in."""
    measure, factor = MEASURES[name], rows / 512 if MEASURES[name].by_height else 1.0
    good, worrying = (factor * getattr(one, name) for one in (GOOD, limits or Thresholds()))
    sign = -1 if measure.more_is_better else 1
    verdict: Verdict = (
        "worrying" if sign * value > sign * worrying else "good" if sign * value <= sign * good else "usual"
    )
    unit = f" {measure.unit}" if measure.unit else ""
    if measure.more_is_better:
        words = f"good from {good:.3g}{unit}, worrying below {worrying:.3g}"
    elif good == worrying:
        words = f"good: {good:.3g}{unit}, worrying above"
    else:
        words = f"good up to {good:.3g}{unit}, worrying above {worrying:.3g}"
    return Judged(value, worrying, verdict, words)


def judgements(metrics: dict[str, Any], limits: Thresholds | None = None) -> dict[str, Judged]:
    """Of metrics.json, all numbers that have a range, by `MEASURES`; without those that were not measured."""
    found = {name: _at(metrics, measure.path) for name, measure in MEASURES.items()}
    rows = int(metrics.get("picture_height") or 512)
    return {name: judged(name, value, rows, limits) for name, value in found.items() if value is not None}


def out_of_range(metrics: dict[str, Any], limits: Thresholds) -> list[str]:
    """Warnings for numbers outside the usual range, in plain words."""
    found = judgements(metrics, limits)
    return [
        MEASURES[name].warning.format(value=one.value, limit=one.limit)
        for name, one in found.items()
        if one.verdict == "worrying"
    ]


def _at(metrics: dict[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = metrics
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found
