"""Depth maps of several views: what they say together, how far they are apart, and which look where nobody has seen."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.avatar.splat_avatar import SplatAvatar
from flame_fitting.avatar.splat_scene import is_solid
from flame_fitting.avatar.splats import Splats
from flame_fitting.avatar.view_fusion import DepthViews, moved_out, settled_depth, shift_by_colors, unseen_views
from flame_fitting.avatar.view_planning import PlannedView, directions, fit_angles, side_of
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, pixel_rays
from flame_fitting.render_avatar import _settled
from tests.avatar.splat_cases import ball

SIZE = 128


def cameras(count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    away = 5.6 * directions(fit_angles(count))
    K = np.stack([intrinsics_from_fov(25.0, SIZE, SIZE)] * count)
    return K, look_at(away, np.zeros(3), np.tile([0.0, 1.0, 0.0], (count, 1)))


def ball_views(radius: float = 1.0, back: bool = True) -> DepthViews:
    """Exact depth of a ball, without the half behind z = 0 where there is no `back`; its inside is seen then."""
    K, poses = cameras()
    depth, normal = np.zeros((len(K), SIZE, SIZE), np.float32), np.zeros((len(K), SIZE, SIZE, 3), np.float32)
    pixels = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).reshape(-1, 2) + 0.5
    for k in range(len(K)):
        eye, rays = pixel_rays(pixels, K[k], poses[k])
        middle = rays @ eye
        under = middle**2 - eye @ eye + radius**2
        root = np.sqrt(np.maximum(under, 0))
        near, far = -middle - root, -middle + root
        along = near if back else np.where((eye + near[:, None] * rays)[:, 2] > 0, near, far)
        points = eye + along[:, None] * rays
        hit = (under > 0) & (back | (points[:, 2] > 0))
        normals = points / radius * np.where(np.einsum("nc,nc->n", points, rays) > 0, -1, 1)[:, None]
        depth[k].reshape(-1)[hit] = (points @ poses[k, 2, :3] + poses[k, 2, 3])[hit]
        normal[k].reshape(-1, 3)[hit] = normals[hit]
    return DepthViews(depth, normal, K, poses)


def noisy(views: DepthViews, sigma: float, seed: int = 0) -> DepthViews:
    noise = np.random.default_rng(seed).normal(0, sigma, views.depth.shape).astype(np.float32)
    return DepthViews(np.where(views.depth > 0, views.depth + noise, 0), views.normal, views.K, views.world_to_camera)


def test_exact_depth_stays_and_has_no_noise() -> None:
    views = ball_views()
    found = settled_depth(views, views.depth[0], views.normal[0], views.K[0], views.world_to_camera[0])
    inner = np.hypot(*(np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2)) < 40
    assert np.abs(found.depth - views.depth[0])[inner].max() < 0.003
    assert np.quantile(found.noise[inner], 0.95) < 0.002
    assert not found.noise[views.depth[0] == 0].any()


def test_noise_is_measured_and_becomes_less() -> None:
    sigma, true = 0.02, ball_views()
    views = noisy(true, sigma)
    found = settled_depth(views, views.depth[0], views.normal[0], views.K[0], views.world_to_camera[0])
    inner = np.hypot(*(np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2)) < 35
    before, after = (np.abs(d - true.depth[0])[inner].mean() for d in (views.depth[0], found.depth))
    assert after < 0.6 * before
    assert 0.3 * sigma < np.median(found.noise[inner]) < 1.2 * sigma


def test_a_hole_in_one_view_is_outvoted() -> None:
    views = ball_views()
    depth = views.depth.copy()
    depth[0, 60:66, 60:66] += 0.06  # looked through there, and farther than views may be apart
    depth[0, 70:76, 60:66] += 0.5
    views = DepthViews(depth, views.normal, views.K, views.world_to_camera)
    found = settled_depth(views, depth[0], views.normal[0], views.K[0], views.world_to_camera[0])
    assert np.abs(found.depth - ball_views().depth[0])[60:66, 60:66].max() < 0.01
    assert found.noise[70:76, 60:66].min() > 0.05


@pytest.mark.parametrize("inside", [0.0, 0.04])
def test_colours_tell_how_far_outside_the_surface_is(inside: float) -> None:
    true, deep = ball_views(), ball_views(1.0 - inside)

    def picture(k: int) -> np.ndarray:
        rows, columns = np.nonzero(true.depth[k] > 0)
        eye, rays = pixel_rays(np.stack([columns + 0.5, rows + 0.5], axis=1), true.K[k], true.world_to_camera[k])
        points = eye + rays * (true.depth[k][rows, columns] / (rays @ true.world_to_camera[k, 2, :3]))[:, None]
        out = np.zeros((3, SIZE, SIZE))
        out[:, rows, columns] = 0.5 + 0.15 * np.sin(9 * points).sum(axis=1) / 1.5
        return out

    shift = shift_by_colors(deep, picture, np.arange(len(deep.K)))
    assert abs(shift - inside) < 0.01
    moved = moved_out(deep.depth[0], deep.normal[0], deep.K[0], deep.world_to_camera[0], shift)
    assert abs(moved[64, 64] - true.depth[0, 64, 64]) < 0.01


def test_a_side_that_nobody_has_seen_is_found() -> None:
    assert not unseen_views(ball_views()).any()
    unseen = unseen_views(ball_views(back=False))
    yaw = fit_angles(16)[:, 0]
    assert unseen[np.abs(yaw) > 130].all() and not unseen[np.abs(yaw) < 50].any()


def test_splats_say_what_their_back_is() -> None:
    K, poses = cameras()
    splats = ball(6000, degree=0)
    assert is_solid(Splats(splats.means, splats.scales, splats.quats, np.full(6000, 0.95, np.float32), splats.sh))
    assert not is_solid(splats)
    whole = SplatAvatar(splats, Path("memory"), "", "memory").settled(K, poses, SIZE)
    assert whole.views is not None and not whole.unseen.any()
    front = splats.taken(splats.means[:, 2] > -0.05)
    half = SplatAvatar(front, Path("memory"), "", "memory").settled(K, poses, SIZE)
    yaw = fit_angles(16)[:, 0]
    assert half.unseen[np.abs(yaw) > 130].all() and not half.unseen[np.abs(yaw) < 50].any()
    drawn = whole.draw(K[:1], poses[:1], SIZE, SIZE)
    assert drawn.noise is not None and drawn.depth is not None
    assert abs(drawn.depth[0, 64, 64] - 4.6) < 0.03 and drawn.noise[0, 64, 64] < 0.05


def test_views_of_unseen_sides_are_left_out_and_said() -> None:
    splats = ball(6000, degree=0)
    front = splats.taken(splats.means[:, 2] > -0.05)

    def planned(count: int) -> list[PlannedView]:
        poses, angles = cameras(count)[1], fit_angles(count)
        views = [
            PlannedView(role, cameras(1)[0][0], pose, SIZE, SIZE, yaw, pitch, 3.0, 8.0)
            for role in ("fit", "heldout", "landmark")
            for pose, (yaw, pitch) in zip(poses, angles.tolist(), strict=True)
        ]
        return views

    def kept(views: list[PlannedView]) -> tuple[set[int], list[str]]:
        found, left = _settled(SplatAvatar(front, Path("memory"), "", "memory"), views)
        return {views.index(view) for view in left}, found.warnings

    views = planned(16)
    left, warnings = kept(views)
    out = [views[k] for k in set(range(len(views))) - left]
    assert {view.role for view in out} == {"fit", "heldout"}
    assert all(abs(view.yaw) > 50 for view in out)
    assert {k for k, view in enumerate(views) if view.role == "landmark"} <= left
    assert len(warnings) == 1 and "never seen" in warnings[0] and "back" in warnings[0]

    few = planned(4)
    left, warnings = kept(few)
    assert left == set(range(len(few))) and "never seen" in warnings[0]


def test_sides_have_names() -> None:
    named = {(0, 0): "front", (-90, 0): "right", (45, 0): "front left", (180, 0): "back", (-130, 0): "back right"}
    assert all(side_of(*angles) == name for angles, name in named.items())
    assert side_of(0, 65) == "above"
