"""Planned views: counts, roles, aim, and independence of the avatar's own frame and unit."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.view_planning import HeadFrame, directions, fit_angles, heldout_angles, plan_views
from flame_fitting.capture.camera import project
from flame_fitting.capture.similarity import invert_similarity, similarity_matrix

FRAME = HeadFrame((0.0, 0.03, -0.02), 0.2)


def some_similarity() -> np.ndarray:
    rotation = Rotation.from_euler("xyz", [80, -30, 200], degrees=True).as_matrix()
    return similarity_matrix(0.013, rotation, np.array([0.4, -2.0, 1.0]))


def test_default_plan_has_the_documented_views():
    views = plan_views(np.eye(4), frame=FRAME)
    assert [v.role for v in views] == ["landmark"] * 21 + ["fit"] * 32 + ["heldout"] * 8
    fit = np.array([(v.pitch, v.yaw) for v in views if v.role == "fit"])
    assert [int((fit[:, 0] == p).sum()) for p in (0, 25, -25, 65)] == [12, 10, 8, 2]
    assert sorted(fit[fit[:, 0] == 0][:, 1]) == list(range(-180, 180, 30))


@pytest.mark.parametrize("count", [1, 5, 12, 32, 64])
def test_other_counts_are_met_and_see_the_front(count):
    angles = fit_angles(count)
    assert angles.shape == (count, 2)
    assert len({tuple(a) for a in np.round(angles, 6)}) == count
    assert (0.0, 0.0) in {tuple(a) for a in angles}


def test_views_look_at_the_head_from_where_they_say():
    views = plan_views(some_similarity(), frame=FRAME, resolution=300)
    world_from_head = invert_similarity(some_similarity())
    center = np.array(FRAME.center)
    for view in views:
        points = np.stack([center, center + [0, 0.01, 0]])
        pixels = project(points @ world_from_head[:3, :3].T + world_from_head[:3, 3], view.K, view.world_to_camera)
        np.testing.assert_allclose(pixels[0, :2], [view.width / 2, view.height / 2], atol=1e-6)
        assert pixels[1, 1] < pixels[0, 1], "the head's up is the picture's up"
        assert view.near < pixels[0, 2] < view.far
        eye = np.linalg.inv(view.world_to_camera)[:3, 3]
        eye = some_similarity()[:3, :3] @ eye + some_similarity()[:3, 3] - center
        np.testing.assert_allclose(
            eye / np.linalg.norm(eye), directions(np.array([[view.yaw, view.pitch]]))[0], atol=1e-9
        )


def test_yaw_is_positive_toward_the_subjects_left():
    np.testing.assert_allclose(directions(np.array([[90.0, 0.0], [0.0, 90.0]])), [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_pictures_do_not_depend_on_the_avatars_frame():
    plain, moved = plan_views(np.eye(4), frame=FRAME), plan_views(some_similarity(), frame=FRAME)
    points = np.random.default_rng(0).normal(scale=0.1, size=(50, 3))
    inverse = invert_similarity(some_similarity())
    for a, b in zip(plain, moved, strict=True):
        pa = project(points, a.K, a.world_to_camera)
        pb = project(points @ inverse[:3, :3].T + inverse[:3, 3], b.K, b.world_to_camera)
        np.testing.assert_allclose(pa[:, :2], pb[:, :2], atol=1e-6)
        np.testing.assert_allclose(np.linalg.det(b.world_to_camera[:3, :3]), 1.0)


def test_heldout_views_lie_between_the_fit_views():
    fit = fit_angles(32)
    held = heldout_angles(8, fit)
    between = np.degrees(np.arccos(np.clip(directions(held) @ directions(fit).T, -1, 1))).min(1)
    assert between.min() > 10.0
    apart = np.degrees(np.arccos(np.clip(directions(held) @ directions(held).T - 2 * np.eye(8), -1, 1)))
    assert apart.min() > 10.0
    assert (np.abs(held[:, 0]) <= 75).sum() == 6
