"""Writes what `evaluate` owns in a fit's folder: metrics.json, overlays/, report.html."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from flame_fitting.capture.capture import Capture
from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.report.figures import Figure, write_error_map, write_figures
from flame_fitting.report.html import write_html
from flame_fitting.report.metrics import Workings
from flame_fitting.report.surfaces import VisibleSurface, visible_surface
from flame_fitting.report.truth import Truth


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Writes metrics.json; numbers that are not finite become null."""
    with atomic_write(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(_finite(metrics), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_report(
    folder: Path,
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    metrics: dict[str, Any],
    workings: Workings | None = None,
    truth: Truth | None = None,
) -> list[Figure]:
    """Writes overlays/*.jpg and report.html."""
    workings = workings or Workings()
    figures = write_figures(folder, fit, capture, head)
    figures += error_figures(folder, fit, capture, head, workings.visible, truth)
    config = folder / "config.yml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    name = Path(capture.avatar.file or capture.root.name).name
    write_html(folder / "report.html", f"Fit of {name} with the head model {fit.head_name}", metrics, figures, text)
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
    vertices = fit.vertices_head(head)[0]
    figures = []
    seen = visible[0] if visible else visible_surface(capture, fit.head_from_world, capture.timesteps[0])
    if seen is not None:
        error = seen.surface.distance(vertices) * 1000
        title = "Distance of the fitted head to the avatar's visible surface"
        figures.append(write_error_map(folder, head, vertices, error, "error_to_avatar", title))
    if truth is not None:
        count = len(truth.vertices)
        error = np.zeros(head.n_vertices)  # of teeth, where the truth has none
        fitted = fit.vertices_world(head)[0][:count]
        error[:count] = np.linalg.norm(fitted - truth.vertices, axis=1) * truth.mm_per_unit
        title = "Distance of each fitted vertex to the true one"
        figures.append(write_error_map(folder, head, vertices, error, "error_to_truth", title))
    return figures


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(child) for child in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
