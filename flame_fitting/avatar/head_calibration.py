"""Landmark embeddings of head models: shipped, cached, or made by showing the model to the detector."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting import assets, progress
from flame_fitting.avatar.head_paints import drawn_paints
from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.mesh_avatar import MeshAvatar, avatar_from_arrays
from flame_fitting.avatar.view_planning import HeadFrame, head_cameras, landmark_angles
from flame_fitting.capture.camera import intrinsics_from_fov
from flame_fitting.capture.pictures import picture_as_uint8
from flame_fitting.errors import InputError
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.calibration import (
    REVISION,
    Appearance,
    CalibrationConfig,
    HeadViews,
    RenderHead,
    calibrate,
)
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.embedding_schemes import for_scheme
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.licensed_embeddings import load_licensed_embedding
from flame_fitting.landmarks.registry import DETECTORS, Settings, make_detector
from flame_fitting.landmarks.schemes import scheme_named

CALIBRATION_SHADING = {"textured": "unlit", "lit": "lit", "clay": "clay"}
"""How the model is rendered for each kind of calibration. Crossing kinds costs 0.3 to 0.5 mm on the inner points."""
KINDS = tuple(CALIBRATION_SHADING)
RESOLUTION = 512

_SKIN, _LIP, _BROW = (0.82, 0.63, 0.53), (0.70, 0.38, 0.36), (0.25, 0.17, 0.12)
_SCLERA, _IRIS, _HAIR, _LID = (0.93, 0.92, 0.90), (0.30, 0.20, 0.13), (0.30, 0.22, 0.17), (0.68, 0.48, 0.41)
_TOOTH = (0.86, 0.83, 0.77)
_SHOWN = (
    *("face", "neck", "scalp", "hair", "left_ear", "right_ear"),
    *("lips_tight", "lip_outside_ring_upper", "lip_outside_ring_lower"),
)
"""Regions that decide what the detector is shown."""
_PAINTS, _PAINT_SEED = 8, 5
"""Of drawn heads."""
_SOFT_EDGE = 0.002
"""Metres over which paint fades at an outline: vertices are coarse, and a hard edge would be a saw."""


def shading_kind(shading: str) -> str:
    """Which calibration belongs to pictures of this shading (unlit, lit or clay)."""
    return "textured" if shading == "unlit" else shading


def head_frame(head: HeadModel) -> HeadFrame:
    """What cameras aim at: the middle of the head without its neck, and a radius that leaves room for hair."""
    template = head.v_template.detach().cpu().numpy().astype(np.float64)
    # FLAME's scalp goes down the nape.
    mask = (head.region_mask("face", "scalp", "left_ear", "right_ear") & ~head.region_mask("neck")).cpu().numpy()
    if not mask.any():
        # No regions: everything above the chin, the lowest point that the jaw moves.
        jaw = head.weights[:, 2].cpu().numpy() > 0.5
        mask = template[:, 1] >= template[jaw, 1].min() if jaw.any() else np.ones(len(template), dtype=bool)
    part = template[mask]
    center = 0.5 * (part.min(0) + part.max(0))
    center[0] = 0.0
    radius = 1.45 * float(np.linalg.norm(part - center, axis=1).max())
    return HeadFrame((0.0, float(center[1]), float(center[2])), radius)


def landmark_embedding(
    head: HeadModel,
    detector: LandmarkDetector,
    kind: str,
    config: CalibrationConfig | None = None,
    notify: Callable[[str], None] | None = None,
    licensed: Path | None = None,
) -> LandmarkEmbedding:
    """The embedding for a model, detector, its weights and kind of shading: shipped, from the cache, or calibrated now.

    `licensed` names a file of FLAME's own embeddings, which is taken instead for every kind.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind} is not one of {KINDS}")
    if licensed is not None:
        return for_scheme(load_licensed_embedding(licensed, head), detector.scheme, head)
    shipped = shipped_embedding(head, detector.name, kind) if config is None else None
    if shipped is not None and shipped.detector_version == detector.version:
        return shipped
    config = config or CalibrationConfig()
    cached = _cache_path(head, detector, kind, config)
    if cached.is_file():
        try:
            return LandmarkEmbedding.load(cached)
        except InputError:
            cached.unlink(missing_ok=True)
    if notify is not None:
        notify(f"calibrating the landmarks of {detector.name} on the head model {head.name} ({kind}), once")
    embedding = calibrate_head(head, detector, kind, config)
    try:
        embedding.save(cached)
    except OSError as error:
        if notify is not None:
            notify(f"{cached}: not written ({error}); the calibration will be made again next time")
    return embedding


def shipped_embedding(head: HeadModel, detector_name: str, kind: str) -> LandmarkEmbedding | None:
    """The embedding that comes with the program for a model and kind of shading; None where none does.

    It belongs to the weights that its `detector_version` says.
    """
    path = assets.shipped_embedding_path(detector_name, kind)
    embedding = LandmarkEmbedding.load(path) if path.is_file() else None
    return embedding if embedding is not None and embedding.head_hash == head.file_hash else None


def embedding_of_landmarks(
    head: HeadModel,
    landmarks: Landmarks2D,
    kind: str,
    settings: Settings | None = None,
    notify: Callable[[str], None] | None = None,
    licensed: Path | None = None,
) -> LandmarkEmbedding:
    """The embedding for the landmarks of a capture, in their order.

    Where one of this program's detectors made them, it belongs to the same weights, else an InputError is raised.
    Points that a user brings are taken for those of MediaPipe with the same meaning. No detector is loaded where the
    embedding ships or is licensed.
    """
    if licensed is not None:
        return for_scheme(load_licensed_embedding(licensed, head), landmarks.scheme, head)
    made_here = landmarks.made_here
    shipped = shipped_embedding(head, landmarks.detector if made_here else DETECTORS[0], kind)
    if shipped is not None and (not made_here or landmarks.detector_version == shipped.detector_version):
        return for_scheme(shipped, landmarks.scheme, head)
    detector = make_detector(landmarks.detector if made_here else DETECTORS[0], settings)
    if made_here and landmarks.detector_version != detector.version:
        raise InputError(
            f"The landmarks of {landmarks.detector} were detected with other weights or settings than are found now. "
            "Give the same ones, or detect again: --exp.no-reuse-landmarks."
        )
    return for_scheme(landmark_embedding(head, detector, kind, notify=notify), landmarks.scheme, head)


def calibrate_head(
    head: HeadModel, detector: LandmarkDetector, kind: str, config: CalibrationConfig | None = None
) -> LandmarkEmbedding:
    """Calibrates without looking at shipped or cached files."""
    own = partial(progress.each, description=f"calibration of {detector.name} ({kind})", unit="head")
    if kind != "clay" and (head.texture is None or not head.has_uv):
        few = replace(config or CalibrationConfig(), drawn=0)  # only says where to paint
        paint = partial(progress.each, description="calibration: where to paint", unit="head")
        # every detector is shown the same face: orders without an outline could say of no brow where it is
        painter = detector if detector.name == DETECTORS[0] else make_detector(DETECTORS[0])
        clay = calibrate(head, painter, "clay", render_head(head, "clay"), few, paint)
        return calibrate(head, detector, kind, render_head(head, kind, painted_colors(head, clay)), config, own)
    return calibrate(head, detector, kind, render_head(head, kind), config, own)


def render_head(head: HeadModel, kind: str, vertex_colors: Float[ndarray, "V 3"] | None = None) -> RenderHead:
    """A function that shows vertices of the model from the landmark views of a capture, drawn heads from some."""
    frame = head_frame(head)
    every = landmark_angles()
    some = every[(every[:, 1] == 0) | np.isin(np.abs(every[:, 0]), (0, 40))]

    @cache
    def paints() -> list[ndarray]:
        return drawn_paints(head, vertex_colors, _PAINTS, _PAINT_SEED)

    def render(vertices: Float[ndarray, "V 3"], look: Appearance | None = None) -> HeadViews:
        angles = every if look is None else some
        K = np.broadcast_to(intrinsics_from_fov(25.0, RESOLUTION, RESOLUTION), (len(angles), 3, 3))
        # Real textures hold some shading; plain paint holds none, and a nose without any is not found from the side.
        shading = CALIBRATION_SHADING[kind] if vertex_colors is None else "lit"
        if look is None or kind == "clay":
            avatar = head_avatar(head, vertices, kind, vertex_colors)
        else:
            avatar = painted_avatar(head, vertices, paints()[look.number % _PAINTS])
        turn = np.eye(3) if look is None else turned_light(look.light_turn)
        return render_views(avatar, K, head_cameras(angles, np.eye(4), frame), RESOLUTION, shading, turn)

    return render


def turned_light(angle: float) -> Float[ndarray, "3 3"]:
    """Rotation (rad) about the head's up axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def render_views(
    avatar: Avatar,
    K: Float[ndarray, "B 3 3"],
    world_to_camera: Float[ndarray, "B 4 4"],
    size: int,
    shading: str,
    light_rotation: Float[ndarray, "3 3"] | None = None,
    supersample: int = 2,
) -> HeadViews:
    """Square pictures with their geometry, as a detector and the lifting want them."""
    views = avatar.draw(K, world_to_camera, size, size, shading, light_rotation=light_rotation, supersample=supersample)
    assert views.image is not None and views.depth is not None and views.normal is not None
    return HeadViews(detector_input(views.image), views.depth, views.normal, K, world_to_camera)


def detector_input(images: Float[ndarray, "*B 3 H W"]) -> ndarray:
    """Drawn pictures (..., 3, H, W) in 0..1 as detectors are shown them: (..., H, W, 3) uint8, halves rounded to even.

    So the shipped calibrations were made. Rounding them up, as picture files are, moves a detector's points by more
    than a fit may change: both sides must change together, with `calibration.REVISION`.
    """
    return picture_as_uint8(images, halves="even")


def head_avatar(
    head: HeadModel, vertices: Float[ndarray, "V 3"], kind: str, vertex_colors: Float[ndarray, "V 3"] | None = None
) -> MeshAvatar:
    """The head model as an avatar in memory, with its texture where the kind of shading wants one."""
    if kind == "clay":
        return avatar_from_arrays(vertices, head.faces.cpu().numpy())
    paint = head.texture if vertex_colors is None else vertex_colors
    if paint is None:
        raise ValueError(f"the head model {head.name} has no texture")
    return painted_avatar(head, vertices, np.ascontiguousarray(paint))


def painted_avatar(head: HeadModel, vertices: Float[ndarray, "V 3"], paint: ndarray) -> MeshAvatar:
    """The head model as an avatar in memory, with vertex colours (V, 3) in 0..1 or a texture (S, S, 3) uint8."""
    faces = head.faces.cpu().numpy()
    if paint.ndim == 2:
        return avatar_from_arrays(vertices, faces, vertex_colors=paint)
    return avatar_from_arrays(vertices, faces, head.uv.cpu().numpy(), head.uv_faces.cpu().numpy(), paint)


def painted_colors(head: HeadModel, clay: LandmarkEmbedding) -> Float[ndarray, "V 3"]:
    """Plain colours for a model without a texture: skin, hair, lips, brows, lids and eyes.

    Where the model names no region for a part, the points found on clay renders say where it is.
    """
    template = head.v_template.detach().cpu().numpy().astype(np.float64)
    points = clay.points(head.v_template[None], head.faces)[0].cpu().numpy().astype(np.float64)
    colors = np.tile(_SKIN, (head.n_vertices, 1))

    def paint(cover: ndarray, color: tuple[float, float, float]) -> None:
        share = cover.astype(np.float64)[:, None]
        colors[:] = (1 - share) * colors + share * np.array(color)

    def region(*names: str) -> ndarray:
        return head.region_mask(*names).cpu().numpy()

    paint(region("hair") if region("hair").any() else region("scalp") & ~region("face", "neck"), _HAIR)
    groups = scheme_named(clay.scheme).groups
    if "outline" in groups:
        front = template[:, 2] > np.nanmedian(points[groups["outline"], 2])
        for side in ("left", "right"):
            paint(front * _cover(template, points[groups[f"{side}_brow"]], ordered=False), _BROW)
            paint(front * _cover(template, points[groups[f"{side}_eye"]]), _LID)
        if not region("lips_tight").any():
            paint(front * _cover(template, points[groups["outer_lips"]]), _LIP)
    lips = region("lips_tight")
    paint(lips, _LIP)
    # The red ends on the contour, so paint on it is halved.
    paint(0.5 * (region("lip_outside_ring_upper", "lip_outside_ring_lower") & ~lips), _LIP)
    paint(region("teeth"), _TOOTH)
    weights = head.weights.cpu().numpy()
    for joint in (3, 4):
        eyeball = weights[:, joint] > 0.5
        if eyeball.any():
            paint(eyeball, _SCLERA)
            # An iris covers about 25 degrees around the optical axis, which is +Z at rest.
            sphere = template[eyeball]
            axis = sphere - 0.5 * (sphere.min(0) + sphere.max(0))
            looking = axis[:, 2] > np.cos(np.radians(26)) * np.linalg.norm(axis, axis=1)
            colors[np.flatnonzero(eyeball)[looking]] = _IRIS
    return colors


def _cover(template: ndarray, contour: ndarray, ordered: bool = True) -> ndarray:
    """Share (V,) of paint: 1 where the contour, seen from the front, closes before a vertex, with a soft edge."""
    from scipy.spatial import ConvexHull

    outline = contour[np.isfinite(contour).all(1), :2]
    if len(outline) < 3:
        return np.zeros(len(template))
    if not ordered:
        outline = outline[ConvexHull(outline).vertices]
    # Even-odd rule: count the edges that a ray toward +x crosses.
    x, y = template[:, 0, None], template[:, 1, None]
    (x0, y0), (x1, y1) = outline.T, np.roll(outline, -1, axis=0).T
    straddles = (y0 > y) != (y1 > y)
    rise = np.where(y1 == y0, 1.0, y1 - y0)
    inside = (straddles & (x < x0 + (y - y0) * (x1 - x0) / rise)).sum(1) % 2 == 1
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / np.maximum((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-12)
    along = np.clip(along, 0, 1)
    distance = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)).min(1)
    return np.clip(0.5 + np.where(inside, distance, -distance) / _SOFT_EDGE, 0, 1)


def regions_hash(head: HeadModel) -> str:
    """Of the regions that decide where cameras aim and how a model without texture is painted.

    Teeth come after all other triangles and are out of sight.
    """
    regions = hashlib.sha256()
    for name in _SHOWN:
        ids = head.regions[name].cpu().numpy().astype(np.int64) if name in head.regions else np.zeros(0, np.int64)
        regions.update(name.encode() + len(ids).to_bytes(8, "little") + ids.tobytes())
    return regions.hexdigest()


def _cache_path(head: HeadModel, detector: LandmarkDetector, kind: str, config: CalibrationConfig) -> Path:
    parts = (REVISION, head.file_hash, regions_hash(head), detector.name, detector.version, kind, config)
    text = " ".join(str(part) for part in parts)
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    return assets.cache_dir() / "landmark_embeddings" / f"{key}.npz"
