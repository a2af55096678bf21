"""Several moments of one person, in no order: numbers of each, and its pictures beside the common neutral head."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.capture import Capture
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.report.animation import Animation, animate_moments
from flame_fitting.report.animation_sheet import PosePicture, joined_sheet, pose_pictures
from flame_fitting.report.error_maps import ErrorMap, error_panels, error_sheet
from flame_fitting.report.figures import choose_views, write_jpeg
from flame_fitting.report.landmark_errors import ViewErrors
from flame_fitting.report.layers import Layers, overlay_row
from flame_fitting.report.overlays import layers_of
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


@dataclass(frozen=True, eq=False)
class Moments:
    """Pictures of several moments of one person."""

    poses: list[PosePicture]
    """The neutral head that all share, and the expression of each."""
    fronts: list[Layers]
    errors: list[ErrorMap]


def write_moments(
    folder: Path,
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    visible: list[VisibleSurface | None],
    seen: Mapping[int, Bool[ndarray, " V"]],
    detected: Landmarks2D | None = None,
) -> Moments:
    """Writes overlays/moments.jpg, and of each moment overlays/moment_<n>.jpg and moment_<n>_error.jpg."""
    rows = spread(fit.timesteps, MOST_SHOWN)
    animation: Animation = animate_moments(fit, head, rows)
    out = Moments(pose_pictures(fit, head, animation), [], [])
    write_jpeg(folder / "overlays" / "moments.jpg", joined_sheet(animation, out.poses))
    for row in rows:
        name, timestep = fit.timestep_id[row], capture.timesteps[row]
        front = choose_views(capture, head_at(fit, row), timestep)
        if front:
            view = next(iter(front.values()))
            out.fronts.extend(layers_of(fit, capture, head, [view], [name], detected))
            write_jpeg(folder / "overlays" / f"moment_{row:02d}.jpg", overlay_row(out.fronts[-1]))
        if (surface := visible[row]) is not None:
            vertices = fit.vertices_head(head, [row])[0]
            error = surface.surface.distance(vertices) * 1000
            panels = error_panels(head, vertices, error, seen.get(row))
            write_jpeg(folder / "overlays" / f"moment_{row:02d}_error.jpg", error_sheet(panels))
            sides = {side: panels[side] for side in ("right", "front", "left")}
            out.errors.append(ErrorMap(f"moment_{row:02d}_error", name, sides))
    return out
