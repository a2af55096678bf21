"""What a detector means by its points, found on a head model's own surface.

The detector looks at renders of the model from the views that captures use, its points are lifted to 3D exactly as in a
fit, and the result is snapped to the model's surface. The bias of detector, views and shading is then the same on both
sides of a fit and cancels. Heads drawn at random, with expressions, in other paints and lights, move the places to
what holds for most of them, and tell how far a point is off on a face that is no template
(`LandmarkEmbedding.residual_mm`, and in single pictures `picture_mm`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.camera import project
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.lifting import Landmarks3D, lift_landmarks, robust_median
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.maths.closest import nearest_on_surface

REVISION = 5
"""Counts up whenever the method changes, so that cached results of an older one are not used."""


@dataclass(frozen=True)
class CalibrationConfig:
    """How the model is shown to the detector."""

    identities: int = 2
    """Random identities beside the mean head, all neutral and in its own paint, which average its detection noise."""
    identity_sigma: float = 0.7
    """Standard deviation of their shape coefficients."""
    seed: int = 0
    """Of the random identities."""
    drawn: int = 8
    """Heads with expressions, other paints and lights. They brought the error on yet others from 1.02 to 1.00 mm; four
    brought nothing."""
    drawn_seed: int = 5000
    shape_sigma: float = 0.95
    expr_sigma: float = 0.3
    jaw: float = 0.1
    """Widest opening of the jaw of drawn heads, rad."""
    light_turn: float = 100.0
    """Half of the drawn heads are lit from the side: by a light turned about the head by this at most, degrees."""
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


@dataclass(frozen=True)
class Appearance:
    """How a drawn head looks."""

    number: int
    """Picks the paint."""
    light_turn: float
    """Of the lights about the head's up axis, rad."""


RenderHead = Callable[[Float[ndarray, "V 3"], Appearance | None], HeadViews]
"""Shows vertices (head space) from the landmark views of a capture; drawn heads, as they look, from some of them."""


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


def heads_to_show(head: HeadModel, config: CalibrationConfig) -> list[tuple[ndarray, Appearance | None]]:
    """Vertices (V, 3) m of the neutral heads in the model's own paint, then of the drawn ones and how they look."""

    def posed(**values: ndarray) -> ndarray:
        with torch.no_grad():
            out = head(**{name: torch.as_tensor(value, dtype=head.v_template.dtype) for name, value in values.items()})
        return np.asarray(out.vertices[0].cpu().numpy().astype(np.float64))

    out: list[tuple[ndarray, Appearance | None]] = []
    out += [(posed(shape=coefficients), None) for coefficients in identity_coefficients(head, config)]
    for number in range(config.drawn):
        rng = np.random.default_rng([config.drawn_seed, number])
        shape = config.shape_sigma * rng.standard_normal(min(head.n_shape, 100))
        expr = config.expr_sigma * rng.standard_normal((1, head.n_expr))
        jaw = np.array([[rng.uniform(0.0, config.jaw), 0.0, 0.0]])
        gaze = rng.normal(0, (0.06, 0.12))
        turn = np.radians(rng.uniform(-config.light_turn, config.light_turn)) if rng.random() < 0.5 else 0.0
        eyes = np.array([[*gaze, 0.0, *gaze, 0.0]])
        vertices = posed(shape=shape, expr=expr, jaw_pose=jaw, eyes_pose=eyes)
        out.append((vertices, Appearance(number, float(turn))))
    return out


class SeenHead(NamedTuple):
    """What a detector made of one head."""

    lifted: Landmarks3D
    """In head space, lifted as in a fit."""
    landmarks: Float[ndarray, "C N 3"]
    """In the pictures: x px, y px, confidence."""
    K: Float[ndarray, "C 3 3"]
    world_to_camera: Float[ndarray, "C 4 4"]


def see_head(
    render: RenderHead, vertices: Float[ndarray, "V 3"], detector: LandmarkDetector, look: Appearance | None = None
) -> SeenHead:
    """The detector's points in the pictures of one head, and in head space."""
    views = render(vertices, look)
    landmarks = detector.detect(views.images)
    lifted = lift_landmarks(
        landmarks, views.K, views.world_to_camera, detector.scheme, views.depth, views.normal, head_from_world=np.eye(4)
    )
    return SeenHead(lifted, landmarks, views.K, views.world_to_camera)


def detect_on_head(
    render: RenderHead, vertices: Float[ndarray, "V 3"], detector: LandmarkDetector, look: Appearance | None = None
) -> Landmarks3D:
    """The detector's points on one head in head space, lifted as in a fit."""
    return see_head(render, vertices, detector, look).lifted


def calibrate(
    head: HeadModel,
    detector: LandmarkDetector,
    shading: str,
    render: RenderHead,
    config: CalibrationConfig | None = None,
    progress: Callable[[Sequence], Iterable] = list,
) -> LandmarkEmbedding:
    """The embedding of a detector's points on a head model for one kind of shading (`textured`, `lit` or `clay`)."""
    config = config or CalibrationConfig()
    template = head.v_template.detach().cpu().numpy().astype(np.float64)
    faces = head.faces.cpu().numpy()
    allowed = allowed_faces(head, detector.scheme)
    found, drawn = [], []
    for vertices, look in progress(heads_to_show(head, config)):
        seen_head = see_head(render, vertices, detector, look)
        lifted = seen_head.lifted
        if look is not None:
            drawn.append((vertices, seen_head))
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
    embedding = LandmarkEmbedding(
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
    return _with_residuals(head, embedding, drawn) if drawn else embedding


def _with_residuals(
    head: HeadModel, embedding: LandmarkEmbedding, drawn: Sequence[tuple[ndarray, SeenHead]]
) -> LandmarkEmbedding:
    """With how far the points of drawn heads lie from its places, in space and in every picture."""
    inner = scheme_named(embedding.scheme).inner
    vertices = torch.as_tensor(np.array([vertices for vertices, _ in drawn]))
    places = embedding.points(vertices, head.faces)[:, inner].cpu().numpy().astype(np.float64)
    in_pictures = []
    for there, (_, seen) in zip(places, drawn, strict=True):
        pixels = project(np.nan_to_num(there), seen.K, seen.world_to_camera)
        mm_per_pixel = 1000 * pixels[..., 2:] / seen.K[:, None, [0, 1], [0, 1]]
        offset = (seen.landmarks[:, inner, :2] - pixels[..., :2]) * mm_per_pixel
        in_pictures.append(np.where(np.isfinite(there).all(1)[:, None], offset, np.nan))
    eyes = np.linalg.inv(drawn[0][1].world_to_camera)[:, :3, 3]
    return replace(
        embedding,
        residual_mm=(1000 * (np.array([seen.lifted.points[inner] for _, seen in drawn]) - places)).astype(np.float32),
        # two decimals are plenty, and the files ship
        picture_mm=np.array(in_pictures, dtype=np.float16),
        picture_yaw=np.degrees(np.arctan2(eyes[:, 0], eyes[:, 2])).astype(np.float32),
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
