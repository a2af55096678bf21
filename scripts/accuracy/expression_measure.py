"""What is measured of a fit of one expression: is the neutral head the person's, is the expression the expression's?

Millimetres are the truth's, medians and percentiles weighted by area. Neutral heads are compared twice: `neutral`,
after a rigid alignment by what expressions do not move (how much of a head's pose is the neck's is no part of an
identity), and `kept`, where the pose of the fitted one has it, nothing aligned. Nothing is ever scaled.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.similarity import apply_similarity, umeyama
from flame_fitting.report.same_identity import neutral_vertices, rigidly_aligned, still_mask
from flame_fitting.report.statistics import area_of_vertices, weighted_stats

from .expressions import TRUTH
from .eyes import SIDES, gaze, lid_depths, visible_area
from .lips import crossing_triangles, lip_depths

if TYPE_CHECKING:
    from flame_fitting.fit.result import FitResult
    from flame_fitting.head.apertures import Apertures
    from flame_fitting.head.model import HeadModel
    from flame_fitting.maths.closest import TriangleTree

SHUT_MM = 0.5
"""Lids whose true gap is below this are shut there."""
REGIONS = {"face": "face", "lips": "lips", "lids": "eyelids"}
"""Where surfaces are measured: how numbers and the head model call it."""
STEPS = 200
"""Of the alignment to a surface."""


@lru_cache(maxsize=1)
def model() -> tuple["HeadModel", "Apertures"]:
    """The open head, and its rims."""
    from flame_fitting.head.apertures import find_apertures
    from flame_fitting.head.loading import load_head

    head = load_head("open")
    return head, find_apertures(head)


def measure_expression(folder: Path, fit_folder: Path) -> dict[str, Any]:
    """All numbers of a fit of a case that `expressions.build` made."""
    from flame_fitting.fit.result import load_fit
    from flame_fitting.maths.closest import TriangleTree

    head, apertures = model()
    fit = load_fit(fit_folder)
    with np.load(folder / "avatar" / "ground_truth.npz") as data:
        frame, mm, world = data["head_from_world"], float(data["mm_per_unit"]), data["vertices"]
        true_pose = {key: data[key] for key in ("jaw_pose", "eyes_pose")}
    with np.load(folder / "avatar" / TRUTH) as data:
        neutral, posed, neutral_world = data["neutral"], data["posed"], data["neutral_world"]
        shut = [str(side) for side in data["shut"]]
    with np.load(folder / "avatar" / "mesh.npz") as data:
        surface = TriangleTree(transform_points(frame, data["vertices"]), data["faces"])

    # everything in the truth's head space, metres
    fitted = transform_points(frame, fit.vertices_world(head)[0])
    row: dict[str, Any] = to_avatar(head, fitted, surface)
    true_posed, true_kept = transform_points(frame, world), transform_points(frame, neutral_world)
    # vertices slide on the skin: a surface says better where a head is
    own = aligned_to_surface(
        head, rigidly_aligned(head, neutral_of(head, fit, frame), neutral), neutral, skin_faces(head)
    )
    row |= neutral_numbers(head, fit, frame, own, neutral, true_kept)
    row |= field_numbers(head, fit, frame, neutral, posed)
    row |= opening_numbers(head, apertures, fitted, true_posed, "")
    row |= opening_numbers(head, apertures, own, neutral, "neutral_")
    if shut:
        # as seen from before the head, not before its neck
        seen = {"fit": unposed(head, fit, frame), "truth": posed}
        share = {k: [visible_area(head, v, s) / visible_area(head, neutral, s) for s in shut] for k, v in seen.items()}
        row["visible_shut_percent"] = 100 * float(np.mean(share["fit"]))
        row["true_visible_shut_percent"] = 100 * float(np.mean(share["truth"]))
    row["jaw_deg"] = turn_between(fit.parameters["jaw_pose"][0], true_pose["jaw_pose"][0])
    looking = [side for side in SIDES if side not in shut]
    angles = [np.arccos(np.clip(gaze(head, fitted, s) @ gaze(head, true_posed, s), -1, 1)) for s in looking]
    row["gaze_deg"] = float(np.degrees(np.mean(angles))) if angles else None
    for name, vertices in (("", fitted), ("true_", true_posed), ("neutral_", own)):
        row |= contact_numbers(head, vertices, name)
    row["curves_mm"], row["curves_p95_mm"] = curve_numbers(head, apertures, fitted, true_posed)
    row["scale_percent"] = 100 * (fit.mm_per_unit / mm - 1)
    row["expr_rms"] = float(np.sqrt(np.square(fit.parameters["expr"]).mean()))
    row["warnings"] = list(fit.warnings)
    return row


def to_avatar(head: "HeadModel", fitted: Float[ndarray, "V 3"], surface: "TriangleTree") -> dict[str, float]:
    """Distances to the avatar's own surface, both in one frame in metres."""
    areas = area_of_vertices(fitted, head.faces.numpy())
    out = {}
    for name, region, key in (("face", "face", "median"), ("lips", "lips", "p95"), ("lids", "eyelids", "p95")):
        ids = head.regions[region].numpy()
        stats = weighted_stats(1000 * surface.distance(fitted[ids]), areas[ids])
        assert stats is not None
        out[f"{name}_to_avatar_{key}_mm"] = stats[key]
    return out


def placed(
    head: "HeadModel", fit: "FitResult", frame: Float[ndarray, "4 4"], **poses: ndarray
) -> Float[ndarray, "V 3"]:
    """The fitted head with other poses, in the truth's head space."""
    import dataclasses

    changed = dataclasses.replace(fit, parameters=fit.parameters | poses)
    return transform_points(frame, changed.vertices_world(head)[0])


def rest_of(fit: "FitResult", *keys: str) -> dict[str, ndarray]:
    """Parameters of zero."""
    return {key: np.zeros_like(fit.parameters[key]) for key in keys}


def unposed(head: "HeadModel", fit: "FitResult", frame: Float[ndarray, "4 4"]) -> Float[ndarray, "V 3"]:
    """The fitted head with its expression, looking straight ahead in a head space of its own; true metres."""
    import dataclasses

    poses = rest_of(fit, "rotation", "translation", "neck_pose")
    vertices = dataclasses.replace(fit, parameters=fit.parameters | poses).vertices_head(head)[0]
    return vertices * true_size(fit, frame)


def true_size(fit: "FitResult", frame: Float[ndarray, "4 4"]) -> float:
    """True metres in a metre of the fit."""
    return float(np.cbrt(np.linalg.det(frame[:3, :3])) / np.cbrt(np.linalg.det(fit.head_from_world[:3, :3])))


def neutral_of(head: "HeadModel", fit: "FitResult", frame: Float[ndarray, "4 4"]) -> Float[ndarray, "V 3"]:
    """The fitted neutral head in a head space of its own; true metres."""
    return neutral_vertices(fit, head) * true_size(fit, frame)


def neutral_numbers(
    head: "HeadModel",
    fit: "FitResult",
    frame: Float[ndarray, "4 4"],
    aligned: Float[ndarray, "V 3"],
    neutral: Float[ndarray, "V 3"],
    kept: Float[ndarray, "V 3"],
) -> dict[str, float]:
    """Neutral head to true neutral skin (shut lids would lie on the eyeballs' surface), and vertex to vertex."""
    held = placed(head, fit, frame, **rest_of(fit, "expr", "jaw_pose", "eyes_pose"))
    out = {}
    for name, own, truth in (("neutral", aligned, neutral), ("kept", held, kept)):
        out |= {f"{name}_{key}": value for key, value in surface_numbers(head, own, truth, skin_faces(head)).items()}
    areas, apart = area_of_vertices(neutral, head.faces.numpy()), 1000 * np.linalg.norm(aligned - neutral, axis=1)
    for name, region in REGIONS.items():
        ids = head.regions[region].numpy()
        stats = weighted_stats(apart[ids], areas[ids])
        assert stats is not None
        out[f"neutral_{name}_vertex_mm"] = stats["median"]
    return out


def skin_faces(head: "HeadModel") -> ndarray:
    """Triangles of everything but the eyeballs."""
    return head.faces[~head.face_mask("eyeballs")].numpy()


def surface_numbers(
    head: "HeadModel", own: Float[ndarray, "V 3"], truth: Float[ndarray, "W 3"], faces: ndarray
) -> dict[str, float]:
    """Distances of a head's regions to a surface, both in metres: face_mm and face_p95_mm, lips_mm, lids_mm, p95s."""
    from flame_fitting.maths.closest import TriangleTree

    tree, areas, out = TriangleTree(truth, faces), area_of_vertices(own, head.faces.numpy()), {}
    for name, region in REGIONS.items():
        ids = head.regions[region].numpy()
        stats = weighted_stats(1000 * tree.distance(own[ids]), areas[ids])
        assert stats is not None
        out |= {f"{name}_mm": stats["median"], f"{name}_p95_mm": stats["p95"]}
    return out


def aligned_to_surface(
    head: "HeadModel", own: Float[ndarray, "V 3"], truth: Float[ndarray, "W 3"], faces: ndarray
) -> Float[ndarray, "V 3"]:
    """`own` turned and shifted onto a surface by what stands still, closest points found anew in every step."""
    from flame_fitting.maths.closest import TriangleTree

    still, tree = still_mask(head), TriangleTree(truth, faces)
    areas = area_of_vertices(own, head.faces.numpy())[still]
    for _ in range(STEPS):
        found = tree.closest(own[still])
        near = found.distance <= max(float(np.quantile(found.distance, 0.9)), 1e-9)
        move = umeyama(own[still][near], found.point[near], areas[near], with_scale=False)
        own, before = apply_similarity(move, own), own
        if np.abs(own - before).max() < 1e-7:
            break
    return own


def field_numbers(
    head: "HeadModel",
    fit: "FitResult",
    frame: Float[ndarray, "4 4"],
    neutral: Float[ndarray, "V 3"],
    posed: Float[ndarray, "V 3"],
) -> dict[str, float]:
    """Expression and jaw as a field of displacements of the neutral head, each head in a head space of its own."""
    face = head.regions["face"].numpy()
    still = unposed(head, fit, frame) - neutral_of(head, fit, frame)
    areas = area_of_vertices(neutral, head.faces.numpy())[face]
    truth = 1000 * (posed - neutral)[face]
    error = np.linalg.norm(1000 * still[face] - truth, axis=1)
    stats = weighted_stats(error, areas)
    assert stats is not None
    return {
        "field_mm": stats["median"],
        "field_p95_mm": stats["p95"],
        "field_rms_mm": float(np.sqrt(np.average(error**2, weights=areas))),
        "field_true_rms_mm": float(np.sqrt(np.average((truth**2).sum(1), weights=areas))),
    }


def opening_numbers(
    head: "HeadModel", apertures: "Apertures", own: Float[ndarray, "V 3"], truth: Float[ndarray, "V 3"], prefix: str
) -> dict[str, float | None]:
    """Mean errors of gaps between lids where they are shut and elsewhere, and between lips; both heads in metres.

    Where the made head's own lips or lids pass through each other they are to meet: no fit should copy that,
    and how deep its own pass is measured by itself.
    """
    from flame_fitting.head.apertures import GAP_NAMES

    found, true = (1000 * apertures.gaps(torch.as_tensor(v)[None], head.faces)[0].numpy() for v in (own, truth))
    lid = np.array(["lid" in name for name in GAP_NAMES])
    error = np.abs(np.maximum(found, 0) - np.maximum(true, 0))

    def mean(mask: ndarray) -> float | None:
        return float(error[mask].mean()) if mask.any() else None

    return {
        f"{prefix}gap_shut_mm": mean(lid & (true < SHUT_MM)),
        f"{prefix}gap_open_mm": mean(lid & (true >= SHUT_MM)),
        f"{prefix}gap_lips_mm": mean(~lid),
    }


def contact_numbers(head: "HeadModel", vertices: Float[ndarray, "V 3"], prefix: str) -> dict[str, float]:
    """How far lips pass through each other and lids into the eyeballs."""
    lips, lids = 1000 * lip_depths(head, vertices), 1000 * lid_depths(head, vertices)
    return {
        f"{prefix}lip_depth_p95_mm": float(np.quantile(lips, 0.95)),
        f"{prefix}lip_depth_max_mm": float(lips.max()),
        f"{prefix}lip_crossings": crossing_triangles(head, vertices, "lips"),
        f"{prefix}lid_depth_p95_mm": float(np.quantile(lids, 0.95)),
        f"{prefix}lid_depth_max_mm": float(lids.max()),
        f"{prefix}lid_crossings": crossing_triangles(head, vertices, "eyelids"),
    }


def curve_numbers(
    head: "HeadModel", apertures: "Apertures", own: Float[ndarray, "V 3"], truth: Float[ndarray, "V 3"]
) -> tuple[float, float]:
    """Distance of rims of lids and lips to the same true rims as curves, mm: median and p95."""
    from flame_fitting.head.apertures import LID_COLUMNS

    rims, true = (apertures.points(torch.as_tensor(v)[None], head.faces)[0].numpy() for v in (own, truth))
    out = []
    for start, stop in ((0, LID_COLUMNS), (LID_COLUMNS, 2 * LID_COLUMNS), (2 * LID_COLUMNS, rims.shape[1])):
        for side in range(2):
            out.append(to_polyline(rims[side, start:stop], true[side, start:stop]))
    apart = 1000 * np.concatenate(out)
    return float(np.median(apart)), float(np.quantile(apart, 0.95))


def to_polyline(points: Float[ndarray, "N 3"], line: Float[ndarray, "M 3"]) -> Float[ndarray, " N"]:
    """Distance of points to a polyline whose ends go on straight."""
    start, step = line[:-1], np.diff(line, axis=0)
    t = ((points[:, None] - start) * step).sum(2) / (step**2).sum(1)
    low, high = np.zeros(len(step)), np.ones(len(step))
    low[0], high[-1] = -np.inf, np.inf
    near = start + np.clip(t, low, high)[..., None] * step
    return np.linalg.norm(points[:, None] - near, axis=2).min(1)


def turn_between(one: Float[ndarray, " 3"], other: Float[ndarray, " 3"]) -> float:
    """Angle between two rotation vectors' rotations, degrees."""
    from scipy.spatial.transform import Rotation

    return float(np.degrees((Rotation.from_rotvec(one).inv() * Rotation.from_rotvec(other)).magnitude()))
