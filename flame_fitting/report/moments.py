"""Several moments of one person, in no order: numbers of each, and its pictures beside the common neutral head."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.capture import Capture
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.report.animation import Animation, animate_moments
from flame_fitting.report.animation_sheet import animation_sheet
from flame_fitting.report.drawing import draw_fit
from flame_fitting.report.figures import Figure, choose_views, overlay_row, write_error_map, write_jpeg
from flame_fitting.report.landmark_errors import ViewErrors
from flame_fitting.report.sampling import head_at, spread
from flame_fitting.report.statistics import area_of_vertices, weighted_stats
from flame_fitting.report.surfaces import VisibleSurface

MOST_SHOWN = 24
"""Moments that have pictures of their own, at most."""
_REGIONS = ("face", "lips", "eyelids")


def moment_metrics(
    fit: FitResult,
    head: HeadModel,
    vertices: Float[ndarray, "T V 3"],
    visible: list[VisibleSurface | None],
    seen: Bool[ndarray, "T V"],
    errors: list[ViewErrors],
    mm: float = 1000.0,
) -> dict[str, dict[str, Any]]:
    """By name: distances to the avatar, landmarks, how strong the expression is; `mm` is millimetres in a metre."""
    out: dict[str, dict[str, Any]] = {}
    faces = head.faces.cpu().numpy()
    for row, name in enumerate(fit.timestep_id):
        found: dict[str, Any] = {}
        surface = visible[row]
        if surface is not None:
            distance, areas = surface.surface.distance(vertices[row]) * mm, area_of_vertices(vertices[row], faces)
            for region in _REGIONS:
                ids = head.regions[region].cpu().numpy() if region in head.regions else np.zeros(0, dtype=int)
                ids = ids[seen[row][ids]]
                if (stats := weighted_stats(distance[ids], areas[ids])) is not None:
                    found[f"{region}_to_avatar_mm"] = stats
        pixels = [one.pixels for one in errors if one.row == row]
        found["landmark_px"] = float(np.median(np.concatenate(pixels))) if pixels else None
        found["expr_rms"] = float(np.sqrt(np.square(fit.parameters["expr"][row]).mean()))
        found["jaw_deg"] = float(np.degrees(np.linalg.norm(fit.parameters["jaw_pose"][row])))
        out[name] = found
    return out


def write_moments(
    folder: Path, fit: FitResult, capture: Capture, head: HeadModel, visible: list[VisibleSurface | None]
) -> list[Figure]:
    """Writes overlays/moments.jpg, and of each moment overlays/moment_<n>.jpg and moment_<n>_error.jpg."""
    rows = spread(fit.timesteps, MOST_SHOWN)
    path = folder / "overlays" / "moments.jpg"
    animation: Animation = animate_moments(fit, head, rows)
    write_jpeg(path, animation_sheet(fit, head, animation))
    figures = [Figure(path, "The neutral head that all moments share, and the expression of each")]
    for row in rows:
        name, timestep = fit.timestep_id[row], capture.timesteps[row]
        path = folder / "overlays" / f"moment_{row:02d}.jpg"
        front = choose_views(capture, head_at(fit, row), timestep)
        if front:
            view = next(iter(front.values()))
            write_jpeg(path, overlay_row(fit, capture, view, draw_fit(fit, head, capture, [view])[0]))
            figures.append(Figure(path, f"{name}: avatar, fit, fitted mesh over the avatar, colour difference"))
        if (seen := visible[row]) is not None:
            vertices = fit.vertices_head(head, [row])[0]
            error = seen.surface.distance(vertices) * 1000
            title = f"{name}: distance of the fitted head to the avatar's visible surface"
            figures.append(write_error_map(folder, head, vertices, error, f"moment_{row:02d}_error", title))
    return figures
