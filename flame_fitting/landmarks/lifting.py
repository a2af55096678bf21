"""2D landmarks of many known views to 3D points.

Two ways, where they can be compared: lifting by the depth maps (what the surface says) and triangulation of the rays
(what the views agree on, without any surface). Lifting is the more accurate one; triangulation finds the points that
something else hides, such as glasses or a fringe.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.camera import move_camera, pixel_rays
from flame_fitting.capture.similarity import (
    apply_similarity,
    decompose_similarity,
    invert_similarity,
    similarity_matrix,
)
from flame_fitting.landmarks.schemes import EYE_CORNERS, scheme_named
from flame_fitting.landmarks.seen_surface import SeenSurface
from flame_fitting.maths.quantiles import weighted_median


@dataclass(frozen=True)
class LiftingConfig:
    """Which observations count, and when rays replace the surface. Lengths are head-space millimetres."""

    min_confidence: float = 0.2
    """Detections below this confidence are left out."""
    min_facing: float = 0.3
    """Least |cosine| between surface normal and viewing direction."""
    far_half_yaw: float = 50.0
    """Degrees of yaw beyond which points on the head's far half are left out."""
    far_half_margin_mm: float = 5.0
    """Points this close to the head's mid-plane belong to both halves."""
    depth_step_mm: float = 5.0
    """Depths of neighbouring pixels that differ by less belong to one surface and are interpolated."""
    rim_mm: float = 0.8
    """How far beside a detection on the rim of lids or lips a nearer surface is looked for: what detectors err by."""
    rim_facing: float = 0.5
    """Least |cosine| between such a surface's normal and the viewing direction."""
    surface_mm: float = 2.0
    """How far around a point the surface is looked for that it is put on."""
    occlusion_mm: float = 8.0
    """Distance between lifted and triangulated point from which on something else is taken to be in front."""
    min_views: int = 2
    """Views needed for a point, where that many saw a face."""


@dataclass(eq=False)
class Landmarks3D:
    """Landmarks as points in the world."""

    points: Float[ndarray, "N 3"]
    """World units; NaN where too few views saw the point."""
    spread: Float[ndarray, " N"]
    """Median distance of the single views' points from the combined one, world units; NaN with the point."""
    n_views: ndarray
    """(N,) int: views that took part."""
    source: ndarray
    """(N,) str: `depth`, `rays`, or empty where there is no point."""
    scheme: str
    """Landmark order."""

    @classmethod
    def nowhere(cls, scheme: str) -> "Landmarks3D":
        """No point at all: nothing was detected."""
        count = scheme_named(scheme).n_points
        nothing = np.full((count, 3), np.nan)
        return cls(nothing, nothing[:, 0].copy(), np.zeros(count, dtype=int), np.full(count, "", dtype="<U5"), scheme)

    @property
    def valid(self) -> Bool[ndarray, " N"]:
        """Points that exist."""
        return np.isfinite(self.points).all(1)


def lift_landmarks(
    landmarks: Float[ndarray, "C N 3"],
    K: Float[ndarray, "C 3 3"],
    world_to_camera: Float[ndarray, "C 4 4"],
    scheme: str,
    depth: Float[ndarray, "C H W"] | None = None,
    normal: Float[ndarray, "C H W 3"] | None = None,
    head_from_world: Float[ndarray, "4 4"] | None = None,
    config: LiftingConfig | None = None,
) -> Landmarks3D:
    """Combines the detections of C views into one 3D point per landmark.

    Args:
        landmarks: x px, y px, confidence 0..1; NaN where nothing was found.
        depth: along the camera's z in world units, 0 outside. Without it all points are triangulated.
        normal: world normals, any sign; without them grazing views are not recognised.
        head_from_world: similarity to head space (metres). Without it the far half is not recognised, and the
            millimetres of `config` are measured on the face itself (outer eye corners taken as 90 mm).
    """
    # In a frame around the cameras: the world may lie far from its origin, in any unit.
    world_from_local, units = _camera_frame(world_to_camera)
    found = _lift_locally(
        np.asarray(landmarks, dtype=np.float64),
        np.asarray(K, dtype=np.float64),
        move_camera(world_to_camera, invert_similarity(world_from_local)),
        scheme,
        None if depth is None else np.asarray(depth, dtype=np.float64) / units,
        normal,
        None if head_from_world is None else head_from_world @ world_from_local,
        config or LiftingConfig(),
    )
    return replace(found, points=apply_similarity(world_from_local, found.points), spread=found.spread * units)


def _camera_frame(world_to_camera: ndarray) -> tuple[Float[ndarray, "4 4"], float]:
    """Similarity `world_from_local`, without rotation, of a frame with the cameras around its origin, at most 1 away;
    and how many world units 1 is there."""
    eyes = np.linalg.inv(np.asarray(world_to_camera, dtype=np.float64))[:, :3, 3]
    center = eyes[0] + (eyes - eyes[0]).mean(0)
    size = float(np.linalg.norm(eyes - center, axis=1).max())
    size = size if size > 0 else 1.0
    return similarity_matrix(size, np.eye(3), center), size


def _lift_locally(
    landmarks: ndarray,
    K: ndarray,
    world_to_camera: ndarray,
    scheme: str,
    depth: ndarray | None,
    normal: ndarray | None,
    head_from_world: ndarray | None,
    config: LiftingConfig,
) -> Landmarks3D:
    usable = np.isfinite(landmarks).all(-1)
    confidence = np.where(usable, landmarks[..., 2], 0.0)
    confidence[confidence < config.min_confidence] = 0.0
    pixels = np.where(usable[..., None], landmarks[..., :2], 0.0)

    rays = triangulate(pixels, confidence, K, world_to_camera)
    if depth is None:
        far = _on_far_half(rays.points, K, world_to_camera, head_from_world, config)
        return _finish(triangulate(pixels, np.where(far, 0.0, confidence), K, world_to_camera), scheme, config)

    mm = _world_units_per_mm(rays.points, scheme, head_from_world)
    surface = SeenSurface(depth, normal, K, world_to_camera, config.depth_step_mm * mm)
    lifted, facing = lift_by_depth(pixels, *surface)
    rims = scheme_named(scheme).rims
    lifted[:, rims] = surface.before(pixels[:, rims], lifted[:, rims], config.rim_mm * mm, config.rim_facing)
    weights = np.where(facing >= config.min_facing, confidence * facing, 0.0)
    weights[~np.isfinite(lifted).all(-1)] = 0.0
    first, _ = robust_median(lifted, weights)
    far = _on_far_half(first, K, world_to_camera, head_from_world, config)
    weights = np.where(far, 0.0, weights)
    points, spread = robust_median(lifted, weights)
    seen = weights > 0
    n_views = seen.sum(0)

    rays = triangulate(pixels, np.where(far, 0.0, confidence), K, world_to_camera)
    occluded = _occluded(points, rays, world_to_camera, seen, config, mm)
    few = n_views < min(config.min_views, np.count_nonzero(usable.any(1)))
    by_rays = occluded | (few & (rays.n_views >= 3) & (rays.spread < config.occlusion_mm * mm / 3))
    result = Landmarks3D(points, spread, n_views, np.where(by_rays, "rays", "depth").astype("<U5"), scheme)
    result.points[by_rays], result.spread[by_rays] = rays.points[by_rays], rays.spread[by_rays]
    result.n_views[by_rays] = rays.n_views[by_rays]
    drop = few & ~by_rays
    result.points[drop], result.spread[drop], result.source[drop] = np.nan, np.nan, ""
    return _on_surface(result, surface, mm, config)


def put_on_surface(
    landmarks: Landmarks3D,
    K: Float[ndarray, "C 3 3"],
    world_to_camera: Float[ndarray, "C 4 4"],
    depth: Float[ndarray, "C H W"],
    normal: Float[ndarray, "C H W 3"] | None,
    head_from_world: Float[ndarray, "4 4"] | None = None,
    config: LiftingConfig | None = None,
) -> Landmarks3D:
    """Points made of several lifted ones, put on the surface that is seen, as `lift_landmarks` does (arguments as
    there). Lids and irises stay, as two surfaces are near them; and what is farther than twice `surface_mm` from any.
    """
    config = config or LiftingConfig()
    world_from_local, units = _camera_frame(world_to_camera)
    to_local = invert_similarity(world_from_local)
    local = replace(landmarks, points=apply_similarity(to_local, landmarks.points))
    frame = None if head_from_world is None else head_from_world @ world_from_local
    mm = _world_units_per_mm(local.points, landmarks.scheme, frame)
    maps = np.asarray(depth, dtype=np.float64) / units, normal
    surface = SeenSurface(*maps, K, move_camera(world_to_camera, to_local), config.depth_step_mm * mm)
    found = _on_surface(local, surface, mm, config)
    return replace(landmarks, points=apply_similarity(world_from_local, found.points))


def _on_surface(landmarks: Landmarks3D, surface: SeenSurface, mm: float, config: LiftingConfig) -> Landmarks3D:
    groups = scheme_named(landmarks.scheme).groups
    # points by rays, too: what hid them is farther away than a surface is looked for
    free = landmarks.valid
    for name in ("eyes", "irises"):
        free[groups.get(name, np.zeros(0, dtype=int))] = False
    points = landmarks.points.copy()
    points[free] = surface.closest(points[free], config.surface_mm * mm, config.min_facing)
    return replace(landmarks, points=points)


@dataclass(eq=False)
class RayPoints:
    """Result of `triangulate`."""

    points: Float[ndarray, "N 3"]
    spread: Float[ndarray, " N"]
    """Weighted median distance of the point from its rays, world units."""
    n_views: ndarray
    baseline_deg: Float[ndarray, " N"]
    """Largest angle between two of the point's rays."""


def triangulate(
    pixels: Float[ndarray, "C N 2"],
    weights: Float[ndarray, "C N"],
    K: Float[ndarray, "C 3 3"],
    world_to_camera: Float[ndarray, "C 4 4"],
    iterations: int = 15,
) -> RayPoints:
    """Points nearest to their rays, by iteratively re-weighted least squares with Huber weights.

    Needs two rays at least 3 degrees apart; NaN otherwise.
    """
    origin, direction = pixel_rays(pixels, K, world_to_camera)
    weights = np.asarray(weights, dtype=np.float64)
    # Distance to a ray: |(I - d d^T)(x - o)|
    projector = np.eye(3) - direction[..., :, None] * direction[..., None, :]
    seen = weights > 0
    cosine = np.einsum("cnk,dnk->cdn", direction, direction)
    cosine[~(seen[:, None] & seen[None])] = 1.0
    baseline = np.degrees(np.arccos(np.clip(cosine.min((0, 1)), -1, 1)))
    determined = (seen.sum(0) >= 2) & (baseline > 3.0)
    robust = np.ones_like(weights)
    points = np.full((weights.shape[1], 3), np.nan)
    distance = np.zeros_like(weights)
    for _ in range(iterations):
        w = weights * robust
        left = np.einsum("cn,cnij->nij", w, projector)
        right = np.einsum("cn,cnij,cj->ni", w, projector, origin)
        left[~determined] = np.eye(3)
        points = np.linalg.solve(left, right[..., None])[..., 0]
        offset = points[None] - origin[:, None]
        distance = np.linalg.norm(np.einsum("cnij,cnj->cni", projector, offset), axis=-1)
        scale = 1.5 * weighted_median(distance, weights)
        robust = np.minimum(1.0, scale / np.maximum(distance, 1e-300))
    spread = weighted_median(distance, weights)
    points[~determined], spread[~determined] = np.nan, np.nan
    return RayPoints(points, spread, seen.sum(0), baseline)


def lift_by_depth(
    pixels: Float[ndarray, "C N 2"],
    depth: Float[ndarray, "C H W"],
    normal: Float[ndarray, "C H W 3"] | None,
    K: Float[ndarray, "C 3 3"],
    world_to_camera: Float[ndarray, "C 4 4"],
    depth_step: float,
) -> tuple[Float[ndarray, "C N 3"], Float[ndarray, "C N"]]:
    """World points under pixels (NaN off the surface; `SeenSurface.under`), and |cosine| of their viewing angle (1
    without normals)."""
    surface = SeenSurface(depth, normal, K, world_to_camera, depth_step)
    points, normals = surface.under(pixels)
    hit = np.isfinite(points).all(-1)
    if normals is None:
        return points, hit.astype(np.float64)
    _, direction = pixel_rays(pixels, K, world_to_camera)
    return points, np.where(hit, np.abs((normals * direction).sum(-1)), 0.0)


def robust_median(
    points: Float[ndarray, "C N 3"], weights: Float[ndarray, "C N"], iterations: int = 30
) -> tuple[Float[ndarray, "N 3"], Float[ndarray, " N"]]:
    """Weighted geometric median over views (Weiszfeld) and weighted median distance from it; NaN without a view."""
    some = weights.sum(0) > 0
    safe = np.where(weights[..., None] > 0, points, 0.0)
    w = np.where(weights > 0, weights, 0.0)
    total = np.where(some, w.sum(0), 1.0)
    center = (w[..., None] * safe).sum(0) / total[:, None]
    extent = np.sqrt((w * ((safe - center) ** 2).sum(-1)).sum(0) / total)
    for _ in range(iterations):
        distance = np.linalg.norm(safe - center, axis=-1)
        step = w / np.maximum(distance, 1e-6 * extent + 1e-300)
        total = np.where(some, step.sum(0), 1.0)
        center = (step[..., None] * safe).sum(0) / total[:, None]
    spread = weighted_median(np.linalg.norm(safe - center, axis=-1), w)
    center[~some], spread[~some] = np.nan, np.nan
    return center, spread


def _finish(rays: RayPoints, scheme: str, config: LiftingConfig) -> Landmarks3D:
    source = np.where(np.isfinite(rays.points).all(1), "rays", "").astype("<U5")
    return Landmarks3D(rays.points, rays.spread, rays.n_views, source, scheme)


def _world_units_per_mm(points: ndarray, scheme: str, head_from_world: ndarray | None) -> float:
    if head_from_world is not None:
        return 0.001 / decompose_similarity(head_from_world)[0]
    corners = points[scheme_named(scheme).ibug68[list(EYE_CORNERS)]]
    if np.isfinite(corners).all():
        return float(np.linalg.norm(corners[0] - corners[1])) / 90.0
    finite = points[np.isfinite(points).all(1)]
    # No eye corners: a face spans about 150 mm. One view only: nothing can be measured, everything interpolates.
    return float(np.ptp(finite, axis=0).max()) / 150.0 if len(finite) > 3 else np.inf


def _on_far_half(
    points: ndarray, K: ndarray, world_to_camera: ndarray, head_from_world: ndarray | None, config: LiftingConfig
) -> Bool[ndarray, "C N"]:
    """Whether a camera looks at the head so much from the side that the point lies on the half turned away."""
    views, count = len(world_to_camera), len(points)
    if head_from_world is None:
        return np.zeros((views, count), dtype=bool)
    eyes = apply_similarity(head_from_world, np.linalg.inv(world_to_camera)[:, :3, 3])
    local = apply_similarity(head_from_world, np.where(np.isfinite(points), points, np.nan))
    middle = np.nanmedian(local, axis=0) if np.isfinite(local).any() else np.zeros(3)
    yaw = np.degrees(np.arctan2(eyes[:, 0] - middle[0], eyes[:, 2] - middle[2]))
    side = np.where(np.abs(local[:, 0]) > 0.001 * config.far_half_margin_mm, np.sign(local[:, 0]), 0.0)
    turned = np.where(np.abs(yaw) > config.far_half_yaw, np.sign(yaw), 0.0)
    return np.nan_to_num(turned[:, None] * side[None]) < 0


def _occluded(
    points: ndarray, rays: RayPoints, world_to_camera: ndarray, seen: ndarray, config: LiftingConfig, mm: float
) -> Bool[ndarray, " N"]:
    """Points where the rays meet, sharply, well behind the surface."""
    apart = np.linalg.norm(points - rays.points, axis=1)
    eyes = np.linalg.inv(world_to_camera)[:, :3, 3]
    nearer = np.linalg.norm(rays.points[None] - eyes[:, None], axis=-1) - np.linalg.norm(
        points[None] - eyes[:, None], axis=-1
    )
    behind = weighted_median(np.nan_to_num(nearer), seen.astype(float)) > 0.5 * np.nan_to_num(apart)
    # Or far before it: seen through an open mouth or a hole in a scan.
    sharp = (rays.spread < 0.3 * apart) & (rays.n_views >= 3) & (rays.baseline_deg > 20)
    return sharp & (((apart > config.occlusion_mm * mm) & behind) | (apart > 3 * config.occlusion_mm * mm))
