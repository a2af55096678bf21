"""The numbers of a fit: metrics.json.

Distances are in head-space millimetres, to the avatar's surface as the capture's depth maps saw it, or to the visible
triangles of the avatar where its file is given. Statistics over vertices are weighted by the area around each vertex;
vertices that the fitted head itself hides from every view that measures the surface are left out and counted.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.avatar.interface import Avatar
from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.capture import Capture
from flame_fitting.fit.folds import adjacent_faces, folded_faces
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.sanity import as_metrics, region_sanity, sanity_warnings
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.report.animation import Animation, animate
from flame_fitting.report.landmark_errors import detections_of_fit, landmark_errors, landmark_metrics
from flame_fitting.report.moments import moment_metrics
from flame_fitting.report.over_time import OverTime, over_time
from flame_fitting.report.pictures import Watch, measure_pictures
from flame_fitting.report.sampling import Chosen, drawn_views, spread
from flame_fitting.report.statistics import REGIONS, area_of_vertices, weighted_stats
from flame_fitting.report.surfaces import VisibleSurface, measuring_views, visible_surface
from flame_fitting.report.swimming import Swimming, swimming
from flame_fitting.report.truth import Truth, truth_metrics
from flame_fitting.report.usual_range import Thresholds, out_of_range
from flame_fitting.report.visibility import seen_vertices

_MOST_POSED = 64
"""Timesteps at which triangles are counted, where there is no surface to measure to."""


@dataclass(eq=False)
class Workings:
    """What measuring makes on the way and figures can use."""

    visible: list[VisibleSurface | None] = field(default_factory=list)
    """By timestep."""
    seen: dict[int, Bool[ndarray, " V"]] = field(default_factory=dict)
    """By row of the fit: vertices that some view shows; of some rows where there is no surface."""
    detected: Landmarks2D | None = None
    """What the fit's detector found, in held-out views too."""
    chosen: Chosen = field(default_factory=lambda: Chosen([]))
    """What is drawn."""
    over_time: OverTime | None = None
    """None of a single timestep, and of moments in no order."""
    swimming: Swimming | None = None
    animation: Animation | None = None


def evaluate_fit(
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    avatar: Avatar | None = None,
    truth: Truth | None = None,
    mm_per_unit: float | None = None,
    thresholds: Thresholds | None = None,
    workings: Workings | None = None,
    cameras: Sequence[str] = (),
    watching: Callable[[Workings], AbstractContextManager[Watch]] | None = None,
) -> dict[str, Any]:
    """All metrics of a fit, with the keys of metrics.json.

    Args:
        avatar: measures to its own visible surface where it has one, in place of the depth maps.
        truth: adds `to_truth_mm` (vertex to vertex) and `to_truth_surface_mm` to the regions.
        mm_per_unit: true millimetres in one unit of the avatar; None takes the fit's own scale.
        workings: is filled with what was made on the way.
        cameras: are followed over time, by name or number; the most frontal ones by default.
        watching: makes, of what was measured so far, who is shown the pictures that are drawn.
    """
    started = time.perf_counter()
    workings = workings or Workings()
    mm = 1000.0 if mm_per_unit is None else 1000.0 * mm_per_unit / fit.mm_per_unit
    metrics: dict[str, Any] = {"head_model": {"name": fit.head_name, "sha256": fit.head_hash} | fit.head_identity}
    visible = [visible_surface(capture, fit.head_from_world, t, avatar) for t in capture.timesteps]
    workings.visible = visible
    metrics["picture_height"] = max((view.height for view in capture.views), default=0)
    # where there is no surface to measure to, some timesteps stand for all
    whole = not capture.ordered or any(one is not None for one in visible)
    rows = spread(len(visible), len(visible) if whole else _MOST_POSED)
    visible = [visible[row] for row in rows]
    vertices = fit.vertices_head(head, rows)
    seen = np.stack(
        [
            seen_vertices(head, posed, measuring_views(capture, capture.timesteps[row]))
            if surface is not None
            else np.ones(len(posed), dtype=bool)
            for posed, row, surface in zip(fit.vertices_world(head, rows), rows, visible, strict=True)
        ]
    )
    workings.seen = dict(zip(rows, seen, strict=True))
    metrics["regions"] = region_metrics(head, vertices, visible, mm, seen)
    if truth is not None:
        for name, values in truth_metrics(head, fit.vertices_world(head, [0])[0], truth).items():
            metrics["regions"].setdefault(name, {}).update(values)
    metrics["stages"] = {}
    for stage in fit.stages:
        record: dict[str, Any] = {"regions": {}}
        if stage.parameters is not None and any(one is not None for one in visible):
            stage_vertices = transform_points(fit.head_from_world, stage.vertices_world(head, rows))
            record["regions"] = region_metrics(head, stage_vertices, visible, mm, seen)
        if stage.parameters is not None and truth is not None:
            for name, values in truth_metrics(head, stage.vertices_world(head, [0])[0], truth).items():
                record["regions"].setdefault(name, {}).update(values)
        record |= {"accepted": bool(stage.accepted), "seconds": float(stage.seconds)}
        metrics["stages"][stage.name] = record | {"smoothed_triangles": len(stage.smoothed)}
    workings.detected = detected = detections_of_fit(fit, capture)
    errors = landmark_errors(fit, capture, detected)
    metrics["landmarks"] = landmark_metrics(fit, capture, mm / 1000 * fit.mm_per_unit, errors)
    workings.chosen = drawn_views(fit, capture, cameras)
    if capture.moments:
        metrics["moments"] = moment_metrics(fit, head, vertices, visible, seen, errors, mm)
    elif len(capture.timesteps) > 1:
        workings.over_time = over_time(fit, capture, head, detected, errors, mm)
    with nullcontext() if watching is None else watching(workings) as watch:
        pictures = measure_pictures(fit, capture, head, workings.chosen.views, watch)
    blank = workings.over_time.no_face if workings.over_time is not None else []
    metrics |= pictures.without(blank).as_metrics()
    if workings.over_time is not None:
        workings.over_time.add_pictures(pictures)
        metrics["over_time"] = workings.over_time.as_metrics()
        metrics["over_time"]["drawn"] = workings.chosen.as_metrics(capture)
        if fit.texture is not None and (swims := swimming(fit, capture, head, workings.over_time.no_face)) is not None:
            workings.swimming = swims
            metrics["over_time"]["swimming"] = swims.as_metrics()
    with_face = (row for row in range(len(capture.timesteps)) if row not in blank)
    workings.animation = animate(fit, head, next(with_face, 0))
    metrics["animation"] = workings.animation.as_metrics()
    bare = fit.without_offsets().vertices_head(head, rows)
    metrics["flipped_triangles"] = flipped_triangles(head, vertices, bare)
    smoothed = {triangle for stage in fit.stages for triangle in stage.smoothed}
    sanity = region_sanity(head, vertices, bare, fit.parameters["static_offset"], smoothed=smoothed)
    metrics["sanity"] = as_metrics(sanity)
    if fit.active is not None:
        metrics["not_at_rest"] = fit.active
    metrics["scale_source"] = fit.scale_source
    if fit.scale_by_face is not None:
        metrics["mm_per_unit_by_face"] = 1000 * fit.scale_by_face
    metrics["mm_per_unit"] = mm / 1000 * fit.mm_per_unit
    metrics["head_from_world"] = np.asarray(fit.head_from_world).tolist()
    metrics["parameters"] = {
        "shape_rms": _used_rms(fit.parameters["shape"]),
        "expr_rms": _used_rms(fit.parameters["expr"]),
        "offset_mm_max": 1000 * float(np.linalg.norm(fit.parameters["static_offset"], axis=-1).max(initial=0.0)),
    }
    metrics["warnings"] = list(fit.warnings) + out_of_range(metrics, thresholds or Thresholds())
    metrics["warnings"] += sanity_warnings(sanity)
    metrics["seconds"] = {key: float(value) for key, value in fit.seconds.items()}
    metrics["seconds"]["evaluate"] = time.perf_counter() - started
    return metrics


def region_metrics(
    head: HeadModel,
    vertices: Float[ndarray, "T V 3"],
    visible: list[VisibleSurface | None],
    mm: float = 1000.0,
    seen: Bool[ndarray, "S V"] | None = None,
) -> dict[str, dict[str, Any]]:
    """`to_avatar_mm` and `from_avatar_mm` by region, pooled over time; `mm` is millimetres in a head-space metre.

    Vertices that are not `seen` (None: all are) are not measured. With it, regions also say how many `vertices` they
    have and how many of them are `hidden`, the mean over time.
    """
    regions, faces = head.regions, head.faces.cpu().numpy()
    names = [name for name in REGIONS if name in regions and len(regions[name])]
    vertex_ids = {name: regions[name].cpu().numpy() for name in names}
    in_region = {name: head.face_mask(name).cpu().numpy() for name in names}
    pools: dict[tuple[str, str], list[ndarray]] = {}
    for row, surface in enumerate(visible):
        if surface is None or row >= len(vertices):
            continue
        to_avatar, areas = surface.surface.distance(vertices[row]) * mm, area_of_vertices(vertices[row], faces)
        if seen is not None:
            to_avatar[~seen[row]] = np.nan
        back = TriangleTree(vertices[row], faces).closest(surface.points)
        inside = ~on_open_edge(faces, back.face, back.barycentric)
        for name in names:
            ids, of_region = vertex_ids[name], in_region[name][back.face] & inside
            pools.setdefault((name, "to"), []).append(np.stack([to_avatar[ids], areas[ids]]))
            from_avatar = back.distance[of_region] * mm
            pools.setdefault((name, "from"), []).append(np.stack([from_avatar, np.ones_like(from_avatar)]))
    out: dict[str, dict[str, Any]] = {}
    for (name, way), parts in pools.items():
        stats = weighted_stats(*np.concatenate(parts, axis=1))
        if stats is not None:
            out.setdefault(name, {})[f"{way}_avatar_mm"] = stats
        if seen is not None and way == "to":
            hidden = round(float((~seen[:, vertex_ids[name]]).sum(axis=1).mean()))
            out.setdefault(name, {}).update(vertices=len(vertex_ids[name]), hidden=hidden)
    return out


def flipped_triangles(
    head: HeadModel, vertices: Float[ndarray, "T V 3"], without_offsets: Float[ndarray, "T V 3"], region: str = "face"
) -> int:
    """Triangles of a region that offsets turned by more than 90 degrees, or folded onto a neighbour."""
    faces, inside = head.faces.cpu(), head.face_mask(region).cpu()
    now, before = (torch.as_tensor(np.asarray(v), dtype=torch.float64) for v in (vertices, without_offsets))
    folded = folded_faces(now, before, faces, adjacent_faces(faces))
    return int((folded & inside).sum(1).max())


def on_open_edge(faces: Int[ndarray, "F 3"], face: Int[ndarray, " N"], barycentric: Float[ndarray, "N 3"]) -> ndarray:
    """Bool (N,): points of the mesh that lie on an edge that only one triangle has (the rim of the neck)."""
    edges = np.sort(np.stack([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]], axis=1), axis=-1).reshape(-1, 2)
    _, index, count = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    open_edge = (count[index.reshape(-1)] == 1).reshape(-1, 3)  # edge k lies opposite corner k
    return (open_edge[face] & (barycentric < 1e-9)).any(axis=1)


def _used_rms(values: ndarray) -> float:
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    used = flat[np.abs(flat) > 1e-9]
    return float(np.sqrt(np.mean(used**2))) if len(used) else 0.0
