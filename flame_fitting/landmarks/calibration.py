"""What a detector means by its points, found on a head model's own surface.

The detector looks at renders of the model from the views that captures use, its points are lifted to 3D exactly as in a
fit, and the result is snapped to the model's surface. The bias of detector, views and shading is then the same on both
sides of a fit and cancels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.lifting import Landmarks3D, lift_landmarks, robust_median
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.maths.closest import nearest_on_surface

REVISION = 2
"""Counts up whenever the method changes, so that cached results of an older one are not used."""


@dataclass(frozen=True)
class CalibrationConfig:
    """How the model is shown to the detector."""

    identities: int = 2
    """Random identities beside the mean head, which average its detection noise. More were measured to add nothing
    (errors on other heads: 0.94 mm with the mean head alone, 0.95 with 2, 0.93 with 16)."""
    identity_sigma: float = 0.7
    """Standard deviation of their shape coefficients."""
    seed: int = 0
    """Of the random identities."""
    max_snap_mm: float = 8.0
    """Points farther than this from the surface get no embedding."""


@dataclass(eq=False)
class HeadViews:
    """Renders of one head in head space."""

    images: ndarray
    """(C, H, W, 3) uint8 sRGB."""
    depth: Float[ndarray, "C H W"]
    normal: Float[ndarray, "C H W 3"]
    K: Float[ndarray, "C 3 3"]
    world_to_camera: Float[ndarray, "C 4 4"]


RenderHead = Callable[[Float[ndarray, "V 3"]], HeadViews]
"""Shows vertices (head space) from the landmark views."""


def identity_coefficients(head: HeadModel, config: CalibrationConfig) -> list[ndarray]:
    """Shape coefficients of the heads to show: the mean, then pairs of opposite random ones."""
    rng = np.random.default_rng(config.seed)
    # More than these barely change the face, and the same draw serves models with other basis sizes.
    used = min(head.n_shape, 50)
    out = [np.zeros(used)]
    while len(out) <= config.identities:
        draw = config.identity_sigma * np.clip(rng.standard_normal(used), -2, 2)
        out += [draw, -draw]
    return out[: config.identities + 1]


def detect_on_head(render: RenderHead, vertices: Float[ndarray, "V 3"], detector: LandmarkDetector) -> Landmarks3D:
    """The detector's points on one head in head space, lifted as in a fit."""
    views = render(vertices)
    landmarks = detector.detect(views.images)
    return lift_landmarks(
        landmarks, views.K, views.world_to_camera, detector.scheme, views.depth, views.normal, head_from_world=np.eye(4)
    )


def calibrate(
    head: HeadModel,
    detector: LandmarkDetector,
    shading: str,
    render: RenderHead,
    config: CalibrationConfig | None = None,
    progress: Callable[[Sequence], Sequence] = list,
) -> LandmarkEmbedding:
    """The embedding of a detector's points on a head model for one kind of shading (`textured`, `lit` or `clay`)."""
    config = config or CalibrationConfig()
    template = head.v_template.detach().cpu().numpy().astype(np.float64)
    faces = head.faces.cpu().numpy()
    allowed = allowed_faces(head, detector.scheme)
    found = []
    for coefficients in progress(identity_coefficients(head, config)):
        with torch.no_grad():
            shape = torch.as_tensor(coefficients, dtype=head.v_template.dtype)
            vertices = head(shape=shape).vertices[0].cpu().numpy().astype(np.float64)
        lifted = detect_on_head(render, vertices, detector)
        face, barycentric, distance = nearest_on_surface(lifted.points, vertices, faces, allowed)
        good = (face >= 0) & (distance < 0.001 * config.max_snap_mm)
        on_template = np.einsum("nk,nkc->nc", barycentric, template[faces[np.maximum(face, 0)]])
        on_template[~good] = np.nan
        found.append((on_template, np.where(good, lifted.spread, np.nan), np.where(good, lifted.n_views, 0)))
    points, spreads, n_views = (np.stack(column) for column in zip(*found, strict=True))
    seen = np.isfinite(points).all(-1)
    center, _ = robust_median(points, seen.astype(np.float64))
    center[seen.sum(0) < 0.5 * len(points)] = np.nan
    face, barycentric, _ = nearest_on_surface(center, template, faces, allowed)
    n_seen = np.maximum(seen.sum(0), 1)
    spread = 1000 * np.where(seen, np.nan_to_num(spreads), 0).sum(0) / n_seen
    return LandmarkEmbedding(
        face_index=face,
        barycentric=barycentric,
        spread_mm=np.where(face >= 0, spread, np.nan),
        n_views=np.where(face >= 0, np.round(n_views.sum(0) / n_seen), 0).astype(np.int64),
        scheme=detector.scheme,
        detector=detector.name,
        shading=shading,
        head_hash=head.file_hash,
        detector_version=detector.version,
    )


def allowed_faces(head: HeadModel, scheme: str) -> Bool[ndarray, "N F"]:
    """Which triangles each point may lie on.

    Iris points lie on their eyeball and all others on the skin, never on teeth: a ray that misses a lid's rim by a
    hair hits the eyeball, which turns on its own. Upper and lower lip points lie on their own lip, told apart by the
    jaw's skinning weight: with closed lips both are seen at the same place.
    """
    faces = head.faces.cpu().numpy()
    order = scheme_named(scheme)
    weights = head.weights.cpu().numpy()[faces].mean(1)  # (F, J): root, neck, jaw, left eye, right eye
    eyeballs = {"left": weights[:, 3] > 0.5, "right": weights[:, 4] > 0.5}
    other = eyeballs["left"] | eyeballs["right"] | head.face_mask("teeth").cpu().numpy()
    allowed = np.broadcast_to(~other, (order.n_points, len(faces))).copy()
    groups = order.groups
    for side, own in eyeballs.items():
        if own.any() and f"{side}_iris" in groups:
            allowed[groups[f"{side}_iris"]] = own
    upper, lower = order.lips
    for points, side_faces in ((upper, weights[:, 2] < 0.5), (lower, weights[:, 2] >= 0.5)):
        allowed[points] &= side_faces
    return allowed


def spread_table(embedding: LandmarkEmbedding) -> list[tuple[str, int, float, float]]:
    """Rows (group, points, median, 95 %) of the spread over views in mm: all points, the 51 inner ones, each part."""
    order = scheme_named(embedding.scheme)
    groups = {
        "all": np.arange(len(embedding.face_index)),
        "inner 51": order.inner,
        **order.groups,
    }
    rows = []
    for name, index in groups.items():
        values = embedding.spread_mm[index]
        values = values[np.isfinite(values)]
        if len(values):
            rows.append((name, len(values), float(np.median(values)), float(np.percentile(values, 95))))
    return rows
