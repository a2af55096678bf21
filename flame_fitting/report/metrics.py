"""The numbers of a fit: metrics.json.

Distances are in head-space millimetres, to the avatar's surface as the capture's depth maps saw it, or to the visible
triangles of the avatar where its file is given. Statistics over vertices are weighted by the area around each vertex;
vertices that the fitted head itself hides from every view are left out and counted.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.avatar.interface import Avatar
from flame_fitting.capture.camera import project, transform_points
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.export.neck_line import NeckCut, neck_cut
from flame_fitting.fit.folds import adjacent_faces, folded_faces
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.sanity import as_metrics, region_sanity, sanity_warnings
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.report.drawing import draw_fit
from flame_fitting.report.statistics import REGIONS, area_of_vertices, weighted_stats
from flame_fitting.report.surfaces import VisibleSurface, visible_surface
from flame_fitting.report.truth import Truth, truth_metrics
from flame_fitting.report.usual_range import Thresholds, out_of_range
from flame_fitting.report.visibility import seen_vertices

MAX_PSNR = 99.0


@dataclass(eq=False)
class Workings:
    """What measuring makes on the way and figures can use."""

    visible: list[VisibleSurface | None] = field(default_factory=list)
    """By timestep."""


def evaluate_fit(
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    avatar: Avatar | None = None,
    truth: Truth | None = None,
    mm_per_unit: float | None = None,
    thresholds: Thresholds | None = None,
    workings: Workings | None = None,
) -> dict[str, Any]:
    """All metrics of a fit, with the keys of metrics.json.

    Args:
        avatar: measures to its own visible surface where it has one, in place of the depth maps.
        truth: adds `to_truth_mm` (vertex to vertex) and `to_truth_surface_mm` to the regions.
        mm_per_unit: true millimetres in one unit of the avatar; None takes the fit's own scale.
        workings: is filled with what was made on the way.
    """
    started = time.perf_counter()
    workings = workings or Workings()
    mm = 1000.0 if mm_per_unit is None else 1000.0 * mm_per_unit / fit.mm_per_unit
    vertices = fit.vertices_head(head)
    metrics: dict[str, Any] = {"head_model": {"name": fit.head_name, "sha256": fit.head_hash} | fit.head_identity}
    visible = [visible_surface(capture, fit.head_from_world, t, avatar) for t in capture.timesteps]
    workings.visible = visible
    seen = np.stack(
        [
            seen_vertices(head, posed, capture.views_of("fit", "landmark", timestep=timestep))
            for posed, timestep in zip(fit.vertices_world(head), capture.timesteps, strict=False)
        ]
    )
    metrics["regions"] = region_metrics(head, vertices, visible, mm, seen)
    if truth is not None:
        for name, values in truth_metrics(head, fit.vertices_world(head)[0], truth).items():
            metrics["regions"].setdefault(name, {}).update(values)
    metrics["stages"] = {}
    for stage in fit.stages:
        stage_vertices = transform_points(fit.head_from_world, stage.vertices_world)
        record: dict[str, Any] = {"regions": region_metrics(head, stage_vertices, visible, mm, seen)}
        if truth is not None:
            for name, values in truth_metrics(head, np.asarray(stage.vertices_world[0]), truth).items():
                record["regions"].setdefault(name, {}).update(values)
        record |= {"accepted": bool(stage.accepted), "seconds": float(stage.seconds)}
        metrics["stages"][stage.name] = record | {"smoothed_triangles": len(stage.smoothed)}
    metrics["landmarks"] = landmark_metrics(fit, capture, mm / 1000 * fit.mm_per_unit)
    metrics |= picture_metrics(fit, capture, head)
    bare = fit.without_offsets().vertices_head(head)
    metrics["flipped_triangles"] = flipped_triangles(head, vertices, bare)
    smoothed = {triangle for stage in fit.stages for triangle in stage.smoothed}
    sanity = region_sanity(head, vertices, bare, fit.parameters["static_offset"], smoothed=smoothed)
    metrics["sanity"] = as_metrics(sanity)
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
    metrics["warnings"] = list(fit.warnings) + out_of_range(metrics, capture, thresholds or Thresholds())
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


def landmark_metrics(fit: FitResult, capture: Capture, mm_per_unit: float) -> dict[str, Any]:
    """`reprojection_px` (detections against the fitted head's points), `spread_mm`, `error_mm`, and the `sources`."""
    found = fit.landmarks3d
    if not {"points", "model", "spread_mm", "used"} <= found.keys():
        return {}
    used = np.asarray(found["used"], dtype=bool)
    error = np.linalg.norm(found["points"] - found["model"], axis=-1) * mm_per_unit
    out: dict[str, Any] = {"sources": landmark_sources(fit)}
    pixels = _reprojection(fit, capture, used)
    for name, values in (
        ("reprojection_px", pixels),
        ("spread_mm", found["spread_mm"][used]),
        ("error_mm", error[used]),
    ):
        finite = np.asarray(values)[np.isfinite(values)]
        if len(finite):
            out[name] = {"median": float(np.median(finite)), "p95": float(np.percentile(finite, 95))}
    return out


def landmark_sources(fit: FitResult) -> dict[str, str]:
    """What the fit's landmarks were detected with: versions, which begin with the weights' hash, by detector."""
    found = fit.landmarks3d
    names = [key for key in found if key == "detector" or key.endswith("/detector")]
    return {str(found[name]): str(found.get(f"{name}_version", "")) for name in names}


def picture_metrics(fit: FitResult, capture: Capture, head: HeadModel) -> dict[str, float | None]:
    """Silhouette overlap over fit and held-out views above the neck line, and PSNR over the held-out views.

    `silhouette_iou_head` counts above the sides of the neck instead, where shoulders do not reach.
    """
    vertices = fit.vertices_world(head)
    up = np.linalg.inv(fit.head_from_world)[:3, 1]
    up /= np.linalg.norm(up)
    cuts = [(neck_cut(head, v, up), neck_cut(head, v, up, at_sides=True)) for v in vertices]
    views = capture.views_of("fit", "heldout")
    squared: dict[str, list[tuple[float, int]]] = {"avatar": [], "union": [], "above": []}
    overlap = np.zeros((2, 2), dtype=np.int64)  # (line, sides) x (both, either)
    for view, picture in zip(views, draw_fit(fit, head, capture, views, vertices, geometry=False), strict=True):
        seen, fitted = capture.alpha(view) > 0.5, to_uint8(picture.alpha[0]) > 127.5
        row = min(capture.timesteps.index(view.timestep), len(cuts) - 1)
        above = [_above(cut, view) for cut in cuts[row]]
        for k in range(2):
            overlap[k] += int((seen & fitted & above[k]).sum()), int(((seen | fitted) & above[k]).sum())
        if view.role == "heldout":
            error = ((picture.image[0].astype(np.float64) - capture.image(view)) ** 2).mean(axis=0)
            for name, mask in (("avatar", seen), ("union", seen | fitted), ("above", seen & above[1])):
                squared[name].append((float(error[mask].sum()), int(mask.sum())))
    has_masks = bool(views) and views[0].mask_path is not None
    ious = [float(both / either) if either and has_masks else None for both, either in overlap]
    return {
        "silhouette_iou": ious[0],
        "silhouette_iou_head": ious[1],
        "psnr_heldout_db": pooled_psnr(squared["avatar"]),
        "psnr_heldout_union_db": pooled_psnr(squared["union"]),
        "psnr_heldout_above_neck_db": pooled_psnr(squared["above"]),
    }


def _above(cut: NeckCut | None, view: View) -> ndarray:
    if cut is None:
        return np.ones((view.height, view.width), dtype=bool)
    return cut.keep(view.K, view.world_to_camera, view.width, view.height) > 0.5


def pooled_psnr(sums: list[tuple[float, int]]) -> float | None:
    """PSNR in dB of values in 0..1 from (sum of squared errors, count) of each picture; None without a pixel."""
    count = sum(n for _, n in sums)
    if count == 0:
        return None
    mean = sum(s for s, _ in sums) / count
    return MAX_PSNR if mean <= 10 ** (-MAX_PSNR / 10) else float(-10 * np.log10(mean))


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


def _reprojection(fit: FitResult, capture: Capture, used: ndarray) -> ndarray:
    from flame_fitting.landmarks.files import landmark_names, read_landmarks

    scheme, made_by = (str(fit.landmarks3d.get(key, "")) for key in ("scheme", "detector"))
    for name in landmark_names(capture):
        if made_by and name != made_by:
            continue
        detected = read_landmarks(capture, name)
        if scheme and detected.scheme != scheme:
            continue
        distances = []
        for view in capture.views:
            row, column = capture.timesteps.index(view.timestep), capture.cameras.index(view.camera)
            points = detected.landmarks[row, column]
            if not np.isfinite(points[:, :2]).any() or points.shape[0] != fit.landmarks3d["model"].shape[1]:
                continue
            projected = project(fit.landmarks3d["model"][row], view.K, view.world_to_camera)
            pixel_error = np.linalg.norm(projected[:, :2] - points[:, :2], axis=1)
            distances.append(pixel_error[used[row] & _seen(capture, view, projected)])
        return np.concatenate(distances) if distances else np.zeros(0)
    return np.zeros(0)


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


def _used_rms(values: ndarray) -> float:
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    used = flat[np.abs(flat) > 1e-9]
    return float(np.sqrt(np.mean(used**2))) if len(used) else 0.0
