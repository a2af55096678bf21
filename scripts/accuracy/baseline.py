"""The baseline's figures: read from metrics.json, held against each other, and as a page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

UNCOMPARED = ("seconds", "head_from_world")
"""Keys that are no measure of how good a fit is."""
KEY_ROWS = (
    ("face, mm", "regions.face.to_avatar_mm.median"),
    ("face 95 %, mm", "regions.face.to_avatar_mm.p95"),
    ("lips 95 %, mm", "regions.lips.to_avatar_mm.p95"),
    ("face vertex to truth, mm", "regions.face.to_truth_mm.median"),
    ("landmarks, px", "landmarks.reprojection_px.median"),
    ("IoU", "silhouette_iou"),
    ("PSNR held out, dB", "psnr_heldout_db"),
    ("mm a unit", "mm_per_unit"),
    ("flipped triangles", "flipped_triangles"),
    ("warnings", "warnings"),
)
"""Rows of the page's first table: title and metric."""


@dataclass(frozen=True)
class Bounds:
    """What may change between two versions that should do the same."""

    face_mm: float = 0.005
    """Medians of the face's distances, and of vertices of the face."""
    relative: float = 0.005
    """Every other figure."""
    absolute: float = 0.0005
    """Below this a figure is rounding."""


def numbers(metrics: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Dotted keys and values of every figure in metrics.json; of the warnings their number."""
    if key == "warnings":
        yield key, float(len(metrics))
    elif key.split(".")[-1] in UNCOMPARED:
        return
    elif isinstance(metrics, dict):
        for name, value in metrics.items():
            yield from numbers(value, f"{key}.{name}" if key else name)
    elif isinstance(metrics, (int, float)) and not isinstance(metrics, bool):
        yield key, float(metrics)


def differences(old: dict[str, float], new: dict[str, float], bounds: Bounds | None = None) -> list[str]:
    """One line for each figure that left its bound, that is new, or that is gone."""
    bounds = bounds or Bounds()
    lines = []
    for key in sorted(old.keys() | new.keys()):
        if key not in old or key not in new:
            lines.append(f"{key}: {'new' if key not in old else 'gone'}")
            continue
        before, after = old[key], new[key]
        if np.isnan(before) and np.isnan(after):
            continue
        face = "regions.face." in key and key.endswith("_mm.median")
        allowed = bounds.face_mm if face else max(bounds.relative * abs(before), bounds.absolute)
        if not abs(after - before) <= allowed:
            lines.append(f"{key}: {before:.6g} -> {after:.6g} (allowed: {allowed:.2g})")
    return lines


def page(frozen: dict[str, Any]) -> str:
    """docs/baseline.md."""
    labels = list(frozen)
    last = frozen[labels[-1]]
    lines = [
        "# Baseline",
        "",
        "Every metric of six avatars at default settings, made by `python scripts/make_baseline.py --label NAME`; the",
        "full precision is in `baseline.json`. `python scripts/make_baseline.py --compare` runs them again and names",
        "what left the bounds: 0.005 mm for distances of the face, 0.5 % for every other figure. It compares with the",
        "last label.",
        "",
        "| label | version | measured on |",
        "| --- | --- | --- |",
        *(f"| {label} | {frozen[label]['version']} | {frozen[label]['machine']} |" for label in labels),
        "",
        "## The main figures",
        "",
    ]
    names = list(last["metrics"])
    lines += ["| figure | label | " + " | ".join(names) + " |", "| --- | --- " + "| --- " * len(names) + "|"]
    for title, key in KEY_ROWS:
        for label in labels:
            cells = [_cell(frozen[label]["metrics"].get(name, {}).get(key)) for name in names]
            lines.append(f"| {title} | {label} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"## Every figure, {labels[-1]}",
        "",
        "Those of single stages and of poses are in `baseline.json`.",
        "",
    ]
    lines += ["| figure | " + " | ".join(names) + " |", "| --- " + "| --- " * len(names) + "|"]
    for key in sorted({key for name in names for key in last["metrics"][name]}):
        if key.startswith(("stages.", "animation.")):
            continue
        lines.append(f"| {key} | " + " | ".join(_cell(last["metrics"][name].get(key)) for name in names) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
