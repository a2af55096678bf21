"""3D landmarks against known points: planes with exact depth, outliers, occluders, holes and the far half."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, move_camera, pixel_rays, project
from flame_fitting.capture.similarity import apply_similarity, similarity_matrix
from flame_fitting.landmarks.lifting import (
    Landmarks3D,
    LiftingConfig,
    lift_by_depth,
    lift_landmarks,
    put_on_surface,
    robust_median,
    triangulate,
)
from flame_fitting.landmarks.schemes import scheme_named

SIZE = 128
RADIUS = 0.09


def ring_of_cameras(yaws=(-40, -20, 0, 20, 40), distance=1.0):
    angle = np.radians(np.asarray(yaws, dtype=np.float64))
    eyes = distance * np.stack([np.sin(angle), 0.1 * np.ones_like(angle), np.cos(angle)], -1)
    w2c = look_at(eyes, np.zeros(3), np.broadcast_to([0.0, 1, 0], eyes.shape))
    K = np.broadcast_to(intrinsics_from_fov(25.0, SIZE, SIZE), (len(eyes), 3, 3))
    return K, w2c


def sphere_views(K, w2c, radius=RADIUS):
    """Exact depth and normals of a sphere around the origin."""
    v, u = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    origin, direction = pixel_rays(np.stack([u, v], -1).reshape(-1, 2)[None].repeat(len(K), 0), K, w2c)
    b = (direction * origin[:, None]).sum(-1)
    root = b**2 - ((origin**2).sum(-1)[:, None] - radius**2)
    hit = root > 0
    t = -b - np.sqrt(np.maximum(root, 0))
    points = origin[:, None] + t[..., None] * direction
    depth = np.where(hit, (points @ w2c[:, :3, :3].swapaxes(1, 2) + w2c[:, None, :3, 3])[..., 2], 0)
    normal = np.where(hit[..., None], points / radius, 0)
    return depth.reshape(-1, SIZE, SIZE), normal.reshape(-1, SIZE, SIZE, 3)


def points_on_sphere(count=68, radius=RADIUS, seed=0):
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(count, 3)) * [0.5, 0.5, 0.1] + [0, 0, 1]
    return radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def observe(points, K, w2c, noise=0.0, seed=1):
    landmarks = project(points, K, w2c)
    landmarks[..., :2] += noise * np.random.default_rng(seed).normal(size=landmarks[..., :2].shape)
    landmarks[..., 2] = 1.0
    return landmarks


def test_exact_detections_are_lifted_to_the_surface():
    K, w2c = ring_of_cameras()
    points = points_on_sphere()
    depth, normal = sphere_views(K, w2c)
    result = lift_landmarks(observe(points, K, w2c), K, w2c, "ibug68", depth, normal, np.eye(4))
    # A pixel is 3.5 mm wide: the sphere bends by 0.02 mm within it, and slopes by several mm near its rim.
    error = np.linalg.norm(result.points - points, axis=1)
    assert np.median(error) < 5e-5 and error.max() < 2e-3
    assert (result.source == "depth").all() and result.valid.all()
    assert result.n_views.max() == 5


def test_result_moves_with_the_world_and_its_unit():
    K, w2c = ring_of_cameras()
    points = points_on_sphere()
    depth, normal = sphere_views(K, w2c)
    landmarks = observe(points, K, w2c, noise=0.5)
    plain = lift_landmarks(landmarks, K, w2c, "ibug68", depth, normal, np.eye(4))
    rotation = Rotation.from_euler("xyz", [30, 100, -50], degrees=True).as_matrix()
    world = similarity_matrix(1000.0, rotation, np.array([5.0, -3, 2]))
    moved = lift_landmarks(
        landmarks, K, move_camera(w2c, world), "ibug68", 1000 * depth, normal @ rotation.T, np.linalg.inv(world)
    )
    np.testing.assert_allclose(moved.points, 1000 * plain.points @ rotation.T + [5.0, -3, 2], atol=1e-4)
    np.testing.assert_allclose(moved.spread, 1000 * plain.spread, atol=1e-4)
    assert (moved.source == plain.source).all()


@pytest.mark.parametrize("geometry", [True, False])
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e6, 1e9])
@pytest.mark.parametrize("place", [0.0, 1.0])
def test_any_unit_far_from_the_origin(geometry, scale, place):
    """Millimetres hold to a billionth of a head, whatever a file's unit and place."""
    K, w2c = ring_of_cameras()
    points = points_on_sphere()
    depth, normal = sphere_views(K, w2c) if geometry else (None, None)
    landmarks = observe(points, K, w2c, noise=0.5)
    plain = lift_landmarks(landmarks, K, w2c, "ibug68", depth, normal, np.eye(4))
    world = similarity_matrix(scale, np.eye(3), scale * place * np.array([348211.0, 5412877.0, 112.0]))
    depth = None if depth is None else scale * depth
    frame = np.linalg.inv(world)
    moved = lift_landmarks(landmarks, K, move_camera(w2c, world), "ibug68", depth, normal, frame)
    back = (moved.points - world[:3, 3]) / scale
    np.testing.assert_allclose(back, plain.points, atol=1e-8 if place else 1e-12)
    np.testing.assert_allclose(moved.spread / scale, plain.spread, atol=1e-8)
    np.testing.assert_array_equal(moved.source, plain.source)


def test_one_wild_view_does_not_move_the_points():
    K, w2c = ring_of_cameras()
    points = points_on_sphere()
    depth, normal = sphere_views(K, w2c)
    landmarks = observe(points, K, w2c)
    landmarks[1, :, :2] += [6.0, -5.0]
    result = lift_landmarks(landmarks, K, w2c, "ibug68", depth, normal, np.eye(4))
    assert np.median(np.linalg.norm(result.points - points, axis=1)) < 0.0005


def test_rays_replace_what_an_occluder_hides():
    K, w2c = ring_of_cameras()
    points = points_on_sphere()
    depth, normal = sphere_views(K, w2c)
    front_depth, front_normal = sphere_views(K, w2c, radius=RADIUS + 0.02)
    covered = np.zeros((SIZE, SIZE), dtype=bool)
    covered[: SIZE // 2] = True
    hidden_depth = np.where(covered, front_depth, depth)
    hidden_normal = np.where(covered[..., None], front_normal, normal)
    result = lift_landmarks(
        observe(points, K, w2c, noise=0.05), K, w2c, "ibug68", hidden_depth, hidden_normal, np.eye(4)
    )
    hidden = points[:, 1] > 0.01
    assert (result.source[hidden] == "rays").all()
    assert (result.source[points[:, 1] < -0.01] == "depth").all()
    assert np.linalg.norm(result.points - points, axis=1).max() < 0.003


def test_without_geometry_points_are_triangulated():
    K, w2c = ring_of_cameras()
    points = points_on_sphere()
    landmarks = observe(points, K, w2c)
    landmarks[3, 10, :2] += 40.0
    result = lift_landmarks(landmarks, K, w2c, "ibug68")
    assert (result.source == "rays").all()
    assert np.linalg.norm(result.points - points, axis=1).max() < 2e-4


def test_missing_views_and_points_stay_missing():
    K, w2c = ring_of_cameras()
    points = points_on_sphere()
    depth, normal = sphere_views(K, w2c)
    landmarks = observe(points, K, w2c)
    landmarks[0] = np.nan
    landmarks[1:, 7] = np.nan
    landmarks[1:, 8, 2] = 0.01  # too little confidence
    landmarks[2:, 9] = np.nan  # one view only
    result = lift_landmarks(landmarks, K, w2c, "ibug68", depth, normal, np.eye(4))
    assert not result.valid[[7, 8, 9]].any() and (result.source[[7, 8, 9]] == "").all()
    assert np.isnan(result.spread[7])
    assert result.valid.sum() == 65 and result.n_views.max() <= 4


def test_far_half_is_left_out_at_strong_yaw():
    K, w2c = ring_of_cameras(yaws=(-60, 60))
    points = points_on_sphere()
    points[:, 0] = np.where(np.abs(points[:, 0]) < 0.008, 0.02, points[:, 0])
    points *= RADIUS / np.linalg.norm(points, axis=1, keepdims=True)
    depth, normal = sphere_views(K, w2c)
    config = LiftingConfig(min_facing=0.0, min_views=1)
    result = lift_landmarks(observe(points, K, w2c), K, w2c, "ibug68", depth, normal, np.eye(4), config)
    assert (result.n_views == 1).all()


def test_grazing_views_are_left_out():
    K, w2c = ring_of_cameras()
    depth, normal = sphere_views(K, w2c)
    rim = np.array([[0.985 * RADIUS, 0.0, np.sqrt(1 - 0.985**2) * RADIUS]])
    _, facing = lift_by_depth(observe(rim, K, w2c)[..., :2], depth, normal, K, w2c, 0.005)
    assert facing[2, 0] < 0.3 < facing[4, 0]


def test_interpolation_stops_at_depth_edges():
    K, w2c = ring_of_cameras(yaws=(0,))
    depth = np.full((1, SIZE, SIZE), 1.0)
    depth[..., SIZE // 2 :] = 2.0
    depth[:, 100:] = 0.0
    edge = float(SIZE // 2)
    pixels = np.array([[[edge - 0.2, 50.0], [edge + 0.2, 50.0], [30.3, 99.9], [30.3, 101.0], [-1.0, 5.0]]])
    points, facing = lift_by_depth(pixels, depth, None, K, w2c, 0.005)
    z = (points @ w2c[0, :3, :3].T + w2c[0, :3, 3])[0, :, 2]
    np.testing.assert_allclose(z[:3], [1.0, 2.0, 1.0])
    assert np.isnan(z[3:]).all() and (facing[0, 3:] == 0).all()


def test_triangulation_needs_a_baseline():
    K, w2c = ring_of_cameras(yaws=(0, 1, 2))
    points = points_on_sphere(5)
    result = triangulate(observe(points, K, w2c)[..., :2], np.ones((3, 5)), K, w2c)
    assert np.isnan(result.points).all()


@pytest.mark.parametrize("outliers", [0, 1, 2])
def test_median_ignores_a_minority(outliers):
    rng = np.random.default_rng(0)
    views = rng.normal(scale=0.01, size=(7, 4, 3))
    views[:outliers] += 50.0
    center, spread = robust_median(views, np.ones((7, 4)))
    assert np.abs(center).max() < 0.02 and spread.max() < 0.05


def lid_before_eyeball(K, w2c, step=0.002):
    """Exact maps of the plane z = `step` where y > 0, and of the plane z = 0 behind it elsewhere."""
    v, u = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    origin, direction = pixel_rays(np.stack([u, v], -1).reshape(-1, 2)[None].repeat(len(K), 0), K, w2c)
    origin = origin[:, None]
    near, far = (origin + ((z - origin[..., 2:]) / direction[..., 2:]) * direction for z in (step, 0.0))
    points = np.where(near[..., 1:2] > 0, near, far)
    depth = (points @ w2c[:, :3, :3].swapaxes(1, 2) + w2c[:, None, :3, 3])[..., 2]
    normal = np.broadcast_to([0.0, 0.0, 1.0], (len(K), SIZE, SIZE, 3))
    return depth.reshape(-1, SIZE, SIZE), normal


def test_points_on_rims_lie_on_the_nearer_surface():
    """Detections are off by 0.7 px, 0.7 mm here: half of them hit what lies behind the rim."""
    K, w2c = ring_of_cameras(yaws=(-40, -30, -20, -10, 0, 10, 20, 30, 40), distance=0.3)
    points = np.stack([np.linspace(-0.02, 0.02, 68), np.full(68, 1e-4), np.full(68, 0.002)], -1)
    maps = lid_before_eyeball(K, w2c)
    landmarks = observe(points, K, w2c, noise=0.7)
    lifted = lift_landmarks(landmarks, K, w2c, "ibug68", *maps, np.eye(4))
    plain = lift_landmarks(landmarks, K, w2c, "ibug68", *maps, np.eye(4), LiftingConfig(rim_mm=0.0))
    rims = scheme_named("ibug68").rims
    rest = np.setdiff1d(np.arange(68), rims)
    behind = 1000 * (0.002 - lifted.points[:, 2])
    assert np.abs(behind[rims]).mean() < 0.35 * (1000 * (0.002 - plain.points[rims, 2])).mean()
    assert np.abs(behind[rims]).max() < 0.6
    np.testing.assert_array_equal(lifted.points[rest], plain.points[rest])


def test_points_are_put_on_the_surface_but_for_eyes():
    K, w2c = ring_of_cameras()
    points = points_on_sphere()
    maps = sphere_views(K, w2c)
    landmarks = observe(points, K, w2c, noise=2.0)
    lifted = lift_landmarks(landmarks, K, w2c, "ibug68", *maps, np.eye(4))
    plain = lift_landmarks(landmarks, K, w2c, "ibug68", *maps, np.eye(4), LiftingConfig(surface_mm=0.0))
    eyes = scheme_named("ibug68").groups["eyes"]
    rest = np.setdiff1d(np.arange(68), eyes)
    np.testing.assert_array_equal(lifted.points[eyes], plain.points[eyes])
    off, before = (np.abs(np.linalg.norm(one.points[rest], axis=1) - RADIUS) for one in (lifted, plain))
    assert before.max() > 5e-4, "a median of points all around lies beneath a bent surface"
    assert off.max() < 0.2 * before.max()


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_merged_points_are_put_on_the_surface_that_is_near(scale):
    K, w2c = ring_of_cameras()
    points = points_on_sphere()
    depth, normal = sphere_views(K, w2c)
    world = similarity_matrix(scale, np.eye(3), np.array([30.0, -2.0, 7.0]) * scale)
    length = np.where(np.arange(68) % 2 == 0, 0.002, 0.006)
    outside = points * (1 + length / RADIUS)[:, None]
    outside[3] = np.nan
    given = Landmarks3D(
        apply_similarity(world, outside), np.full(68, 0.1), np.full(68, 5), np.full(68, "depth"), "ibug68"
    )
    found = put_on_surface(given, K, move_camera(w2c, world), scale * depth, normal, np.linalg.inv(world))
    back = apply_similarity(np.linalg.inv(world), found.points)
    free = np.setdiff1d(np.arange(68), scheme_named("ibug68").groups["eyes"])
    near = free[free % 2 == 0]
    assert np.linalg.norm(back[near] - points[near], axis=1).max() < 1e-4
    others = np.setdiff1d(np.arange(68), near)
    np.testing.assert_allclose(found.points[others], given.points[others], rtol=1e-12)
    np.testing.assert_array_equal(found.spread, given.spread)
