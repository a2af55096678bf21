"""What is measured of a fitted head against the known truth. Runs in processes beside the fits, on the CPU."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.fit.result import FitResult

if TYPE_CHECKING:
    from flame_fitting.capture.capture import Capture, View
    from flame_fitting.head.model import HeadModel
    from flame_fitting.maths.closest import TriangleTree
    from flame_fitting.report.truth import Truth

REGIONS = ("face", "ears", "neck", "scalp", "lips", "eyes", "nose")
FIT_VIEWS = 8
"""Fit views that count for the silhouette, besides all held-out ones."""
PANEL = 260
WORST_MM = 1.0
"""Distance from the truth that pictures show in red."""


@dataclass
class Fitted:
    """A fitted head on its way to be measured."""

    vertices_world: Float[ndarray, "V 3"]
    head_from_world: Float[ndarray, "4 4"]
    texture: ndarray | None = None
    """(R, R, 3) uint8; None: no pictures are compared."""
    lights: ndarray | None = None


@dataclass(eq=False)
class _Posed(FitResult):
    """A fit whose vertices are known."""

    posed: Float[ndarray, "T V 3"] = field(default_factory=lambda: np.zeros((0, 0, 3)))

    def vertices_world(self, head: "HeadModel", rows: Sequence[int] | None = None) -> ndarray:
        return self.posed if rows is None else self.posed[list(rows)]


@dataclass
class CaseFiles:
    """What a case's folder holds."""

    capture: "Capture"
    truth: "Truth"
    head_from_world: Float[ndarray, "4 4"]
    surface: "TriangleTree"
    """The avatar's, in true head space, metres."""
    landmarks: ndarray
    face_index: ndarray
    barycentric: ndarray


@lru_cache(maxsize=3)
def open_case(folder: Path) -> CaseFiles:
    """Reads a case for measuring."""
    from flame_fitting.capture.camera import transform_points
    from flame_fitting.capture.opening import open_capture
    from flame_fitting.maths.closest import TriangleTree
    from flame_fitting.report.truth import Truth

    with np.load(folder / "avatar" / "ground_truth.npz", allow_pickle=False) as data:
        truth = Truth(data["vertices"], float(data["mm_per_unit"]))
        frame = data["head_from_world"]
        landmarks, face_index, barycentric = data["landmarks"], data["face_index"], data["barycentric"]
    with np.load(folder / "avatar" / "mesh.npz", allow_pickle=False) as data:
        surface = TriangleTree(transform_points(frame, data["vertices"]), data["faces"])
    return CaseFiles(open_capture(folder / "capture"), truth, frame, surface, landmarks, face_index, barycentric)


@lru_cache(maxsize=4)
def open_head(spec: str, add_teeth: bool) -> "HeadModel":
    """The head model, once a process."""
    from flame_fitting.head.loading import load_head

    return load_head(spec, add_teeth=add_teeth)


def measure(folder: Path, fitted: Fitted, spec: str, add_teeth: bool, picture: Path | None = None) -> dict[str, Any]:
    """Numbers of one fit of the case in `folder`: millimetres of the truth, nothing is aligned."""
    import torch

    from flame_fitting.capture.camera import transform_points
    from flame_fitting.fit.region_weights import vertex_areas
    from flame_fitting.landmarks.schemes import scheme_named
    from flame_fitting.report.pictures import picture_metrics
    from flame_fitting.report.statistics import weighted_stats
    from flame_fitting.report.truth import truth_metrics

    case, head = open_case(folder), open_head(spec, add_teeth)
    vertices = fitted.vertices_world[: len(case.truth.vertices)]
    if not np.isfinite(vertices).all():
        return {"broken": True}
    regions = truth_metrics(head, fitted.vertices_world, case.truth)
    row: dict[str, Any] = {}
    for name in REGIONS:
        if name in regions:
            row[f"{name}_surface_mm"] = regions[name]["to_truth_surface_mm"]["median"]
            row[f"{name}_vertex_mm"] = regions[name]["to_truth_mm"]["median"]
    row["face_surface_p95_mm"] = regions["face"]["to_truth_surface_mm"]["p95"]
    face = head.regions["face"].numpy()
    faces = head.faces.numpy()
    faces = faces[(faces < len(vertices)).all(1)]
    in_head = transform_points(case.head_from_world, vertices)
    areas = vertex_areas(torch.as_tensor(in_head), torch.as_tensor(faces)).numpy()
    to_avatar = weighted_stats(1000 * case.surface.distance(in_head[face]), areas[face])
    row["face_to_avatar_mm"] = None if to_avatar is None else to_avatar["median"]
    inner = scheme_named("mediapipe478").inner
    inner = inner[case.face_index[inner] >= 0]
    corners = fitted.vertices_world[head.faces.numpy()[case.face_index[inner]]]
    points = np.einsum("nkc,nk->nc", corners, case.barycentric[inner])
    apart = np.linalg.norm(points - case.landmarks[inner], axis=1) * case.truth.mm_per_unit
    row["landmark_mm"] = float(np.median(apart))

    fit = _posed(fitted, head)
    fit_views = case.capture.views_of("fit")
    some = fit_views[:: max(1, len(fit_views) // FIT_VIEWS)][:FIT_VIEWS]
    capture = dataclasses.replace(case.capture, views=[*some, *case.capture.views_of("heldout")])
    seen = picture_metrics(fit, capture, head)
    row["silhouette_iou"] = seen["silhouette_iou_head"]
    if fitted.texture is not None:
        row["psnr_db"] = seen["psnr_heldout_db"]
        row["psnr_above_neck_db"] = seen["psnr_heldout_above_neck_db"]
    if picture is not None:
        _draw(picture, fit, head, case, vertices)
    return row


def _posed(fitted: Fitted, head: "HeadModel") -> _Posed:
    return _Posed(
        head_name=head.name,
        head_hash=head.file_hash,
        parameters={},
        head_from_world=fitted.head_from_world,
        image_size=(0, 0),
        timestep_id=["00000"],
        texture=fitted.texture,
        lights=fitted.lights,
        posed=fitted.vertices_world[None],
    )


def _draw(path: Path, fit: _Posed, head: "HeadModel", case: CaseFiles, vertices: ndarray) -> None:
    """Two rows, from the front and from the side: avatar, fit, fitted mesh over the avatar, distance from the truth."""
    from flame_fitting.maths.closest import TriangleTree
    from flame_fitting.report.figures import write_jpeg

    faces = head.faces.numpy()
    faces = faces[(faces < len(vertices)).all(1)]
    apart = TriangleTree(case.truth.vertices, faces).closest(vertices).distance * case.truth.mm_per_unit
    full = np.zeros(head.n_vertices)
    full[: len(apart)] = apart
    rows = [_row(view, fit, head, case, full) for view in _sides(case)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jpeg(path, np.concatenate(rows), 80)


def _sides(case: CaseFiles) -> "list[View]":
    """The views nearest to the front and to 60 degrees at the subject's left."""
    views = case.capture.views_of("fit", "heldout")
    centers = np.stack([np.linalg.inv(view.world_to_camera)[:3, 3] for view in views])
    seen = centers @ case.head_from_world[:3, :3].T + case.head_from_world[:3, 3]
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    wanted = np.radians([0.0, 60.0])
    return [views[int(np.argmax(seen @ [np.sin(yaw), 0.0, np.cos(yaw)]))] for yaw in wanted]


def _row(view: "View", fit: _Posed, head: "HeadModel", case: CaseFiles, apart: ndarray) -> ndarray:
    import cv2

    from flame_fitting.capture.pictures import picture_as_uint8
    from flame_fitting.report.drawing import draw_fit, head_avatar
    from flame_fitting.report.figures import blend_mesh, colored

    world = fit.vertices_world(head)
    image = case.capture.image(view)
    drawn = draw_fit(fit, head, case.capture, [view], world)[0]
    colors = colored(apart[None] / WORST_MM)[0] / 255.0
    mapped = head_avatar(head, world[0], vertex_colors=colors).draw(
        view.K[None],
        view.world_to_camera[None],
        view.width,
        view.height,
        "unlit",
        outputs=("image",),
    )
    assert mapped.image is not None
    panels = [image, drawn.image[0], blend_mesh(image, drawn, view).transpose(2, 0, 1), mapped.image[0]]
    # heads fill a good half of the pictures
    low, high = int(0.12 * view.height), int(0.88 * view.height)
    out = []
    for panel in panels:
        cropped = picture_as_uint8(panel[:, low:high, low:high])
        method = cv2.INTER_AREA if cropped.shape[0] > PANEL else cv2.INTER_LINEAR
        out.append(cv2.resize(cropped, (PANEL, PANEL), interpolation=method))
    return np.concatenate(out, axis=1)
