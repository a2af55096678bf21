"""Writes what `evaluate` owns in a fit's folder: metrics.json, overlays/, report.html."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flame_fitting.capture.capture import Capture
from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.report.animation import animate
from flame_fitting.report.animation_sheet import write_animation
from flame_fitting.report.curves import write_curves, write_swimming
from flame_fitting.report.figures import Figure, write_error_map, write_figures, write_worst
from flame_fitting.report.html import write_html
from flame_fitting.report.metrics import Workings
from flame_fitting.report.moments import write_moments
from flame_fitting.report.surfaces import VisibleSurface, visible_surface
from flame_fitting.report.truth import Truth


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Writes metrics.json; numbers that are not finite become null."""
    with atomic_write(folder / "metrics.json") as temporary:
        temporary.write_text(_dumped(_finite(metrics)) + "\n", encoding="utf-8")


def write_report(
    folder: Path,
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    metrics: dict[str, Any],
    workings: Workings | None = None,
    truth: Truth | None = None,
    videos: Sequence[Path] = (),
) -> list[Figure]:
    """Writes overlays/*.jpg and report.html, which shows `videos` in `folder`, too."""
    workings = workings or Workings()
    figures, over_time = [], workings.over_time
    if over_time is not None:
        figures.append(write_curves(folder, over_time))
        figures += write_worst(folder, fit, capture, head, over_time, workings.chosen.cameras, workings.detected)
    if workings.swimming is not None:
        figures.append(write_swimming(folder, workings.swimming))
    figures += write_figures(folder, fit, capture, head)
    figures.append(write_animation(folder, fit, head, workings.animation or animate(fit, head)))
    if capture.moments:
        figures += write_moments(folder, fit, capture, head, workings.visible)
    figures += error_figures(folder, fit, capture, head, workings.visible, truth)
    config = folder / "config.yml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    name = Path(capture.avatar.file or capture.root.name).name
    title = f"Fit of {name} with the head model {fit.head_name}"
    write_html(folder / "report.html", title, metrics, figures, text, videos)
    return figures


def error_figures(
    folder: Path,
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    visible: list[VisibleSurface | None] | None = None,
    truth: Truth | None = None,
) -> list[Figure]:
    """Error maps: to the avatar's visible surface, and vertex to vertex to a known truth."""
    vertices = fit.vertices_head(head, [0])[0]
    figures = []
    seen = visible[0] if visible else visible_surface(capture, fit.head_from_world, capture.timesteps[0])
    if seen is not None:
        error = seen.surface.distance(vertices) * 1000
        title = "Distance of the fitted head to the avatar's visible surface"
        figures.append(write_error_map(folder, head, vertices, error, "error_to_avatar", title))
    if truth is not None:
        count = len(truth.vertices)
        error = np.zeros(head.n_vertices)  # of teeth, where the truth has none
        fitted = fit.vertices_world(head, [0])[0][:count]
        error[:count] = np.linalg.norm(fitted - truth.vertices, axis=1) * truth.mm_per_unit
        title = "Distance of each fitted vertex to the true one"
        figures.append(write_error_map(folder, head, vertices, error, "error_to_truth", title))
    return figures


def _dumped(value: Any, indent: str = "") -> str:
    """JSON with an entry of each object on a line of its own; arrays of plain values stand on one."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        entries = [f"{inner}{json.dumps(str(key))}: {_dumped(child, inner)}" for key, child in value.items()]
        return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(child, (dict, list)) for child in value):
        return "[\n" + ",\n".join(inner + _dumped(child, inner) for child in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(child) for child in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
