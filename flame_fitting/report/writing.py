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
from flame_fitting.manifest import Manifest, now, read_manifest
from flame_fitting.report.animation import animate
from flame_fitting.report.animation_sheet import write_animation
from flame_fitting.report.curves import write_curves, write_swimming
from flame_fitting.report.error_maps import ErrorMap, error_panels, error_sheet
from flame_fitting.report.figures import write_jpeg
from flame_fitting.report.html import write_html
from flame_fitting.report.metrics import Workings
from flame_fitting.report.moments import write_moments
from flame_fitting.report.overlays import write_views, write_worst
from flame_fitting.report.page import Page
from flame_fitting.report.surfaces import visible_surface
from flame_fitting.report.truth import Truth

METRICS_NAME = "metrics.json"
"""Written last: a fit that has it was measured to the end."""


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Writes `METRICS_NAME`; numbers that are not finite become null."""
    with atomic_write(folder / METRICS_NAME) as temporary:
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
) -> Page:
    """Writes overlays/*.jpg and report.html, which shows `videos` in `folder`, too; gives what stands on the page."""
    workings = workings or Workings()
    over_time, detected = workings.over_time, workings.detected
    name = Path(capture.avatar.file or capture.root.name).name
    page = Page(f"Fit of {name} with the head model {fit.head_name}", name, metrics, stages=fit.stages)
    page.made, page.measured = read_manifest(folder), Manifest("evaluate", date=now())
    page.videos, page.texture = list(videos), fit.texture
    if over_time is not None:
        page.figures.append(write_curves(folder, over_time))
        page.worst = write_worst(folder, fit, capture, head, over_time, workings.chosen.cameras, detected)
    if workings.swimming is not None:
        page.figures.append(write_swimming(folder, workings.swimming))
    page.views = write_views(folder, fit, capture, head, detected)
    animation = workings.animation or animate(fit, head)
    page.poses, page.pose_timestep = write_animation(folder, fit, head, animation), animation.timestep
    if capture.moments:
        page.moments = write_moments(folder, fit, capture, head, workings.visible, workings.seen, detected)
    page.errors = write_errors(folder, fit, capture, head, workings, truth)
    write_html(folder / "report.html", page)
    return page


def write_errors(
    folder: Path, fit: FitResult, capture: Capture, head: HeadModel, workings: Workings, truth: Truth | None = None
) -> list[ErrorMap]:
    """Writes error maps: to the avatar's visible surface, and vertex to vertex to a known truth."""
    vertices, out = fit.vertices_head(head, [0])[0], list[ErrorMap]()
    visible = workings.visible
    surface = visible[0] if visible else visible_surface(capture, fit.head_from_world, capture.timesteps[0])
    if surface is not None:
        error = surface.surface.distance(vertices) * 1000
        title = "Distance of the fitted head to the avatar's visible surface"
        panels = error_panels(head, vertices, error, workings.seen.get(0))
        out.append(ErrorMap("error_to_avatar", title, panels))
    if truth is not None:
        count = len(truth.vertices)
        error = np.zeros(head.n_vertices)  # of teeth, where the truth has none
        fitted = fit.vertices_world(head, [0])[0][:count]
        error[:count] = np.linalg.norm(fitted - truth.vertices, axis=1) * truth.mm_per_unit
        title = "Distance of each fitted vertex to the true one"
        out.append(ErrorMap("error_to_truth", title, error_panels(head, vertices, error)))
    for one in out:
        write_jpeg(folder / "overlays" / f"{one.name}.jpg", error_sheet(one.panels))
    return out


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
