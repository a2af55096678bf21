"""Points and views that cannot be right, among synthetic detections."""

import numpy as np
import pytest

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.landmarks.outliers import Outliers, face_sizes, over_time, over_views


def scene(cameras: int = 6, steps: int = 2, noise: float = 0.4):
    """Detections (T, C, 40, 3) of a face-sized cloud, K and cameras."""
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.04, (40, 3)) * (1, 1, 0.5)
    angles = np.linspace(-0.7, 0.7, cameras)
    poses = np.stack(
        [look_at([np.sin(a), 0.2 * (-1) ** i, np.cos(a)], [0, 0, 0], [0, 1, 0]) for i, a in enumerate(angles)]
    )
    K = np.tile(intrinsics_from_fov(20.0, 512, 512), (cameras, 1, 1))
    pixels = project(points, K, poses)[..., :2]
    pixels = pixels + noise * rng.standard_normal((steps, *pixels.shape))
    found = np.concatenate([pixels, np.ones((*pixels.shape[:3], 1))], axis=-1)
    return found, np.tile(K, (steps, 1, 1, 1)), np.tile(poses, (steps, 1, 1, 1))


def test_clean_views_lose_nothing():
    found = over_views(*scene())
    assert not found.points.any() and not found.views.any()


@pytest.mark.parametrize("cameras", [4, 6, 12])
def test_single_points_that_other_views_contradict_are_found(cameras):
    landmarks, K, poses = scene(cameras)
    size = float(np.nanmedian(face_sizes(landmarks)))
    rng = np.random.default_rng(1)
    wrong = np.zeros(landmarks.shape[:3], dtype=bool)
    for step in range(len(landmarks)):
        for point in rng.choice(40, 12, replace=False):
            wrong[step, rng.integers(cameras), point] = True
    angle = rng.uniform(0, 2 * np.pi, wrong.sum())
    landmarks[wrong, :2] += size * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = over_views(landmarks, K, poses)
    assert not found.points[~wrong].any(), "no right point is lost"
    assert found.points[wrong].mean() > 0.9
    assert np.isnan(found.removed_from(landmarks)[found.points]).all()


def test_a_view_that_shows_another_face_failed_and_the_others_keep_their_points():
    landmarks, K, poses = scene()
    landmarks[1, 2, :, :2] += (150, -40)
    found = over_views(landmarks, K, poses)
    assert found.views.tolist() == [[False] * 6, [False, False, True, False, False, False]]
    assert not found.points.any()
    assert np.isnan(found.removed_from(landmarks)[1, 2]).all() and np.isfinite(found.removed_from(landmarks)[0]).all()


def test_two_views_cannot_tell_which_is_wrong():
    landmarks, K, poses = scene(2)
    landmarks[0, 0, 3, :2] += 100
    assert not over_views(landmarks, K, poses).points.any()


def test_points_that_are_no_fixed_ones_are_not_judged():
    landmarks, K, poses = scene()
    landmarks[0, 0, 3, :2] += 100
    assert over_views(landmarks, K, poses).points[0, 0, 3]
    assert not over_views(landmarks, K, poses, ignore=[3]).points.any()


def video(frames: int = 30, noise: float = 0.3) -> np.ndarray:
    """A face of 60 points that drifts and turns its size a little."""
    rng = np.random.default_rng(2)
    points = rng.uniform(-60, 60, (60, 2))
    time = np.arange(frames)[:, None, None]
    pixels = 250 + points * (1 + 0.003 * time) + time * (2.0, 0.5) + noise * rng.standard_normal((frames, 60, 2))
    return np.concatenate([pixels, np.ones((frames, 60, 1))], axis=-1)


def test_a_point_that_jumps_for_a_frame_is_out_and_a_part_that_moves_is_not():
    landmarks = video()
    landmarks[12, 7, :2] += (12, -9)
    # a blink: the points of one corner of the face move together and come back
    lid = np.argsort(np.linalg.norm(landmarks[0, :, :2] - landmarks[0, :, :2].min(0), axis=1))[:12]
    landmarks[20:22, lid, 1] += 12
    found = over_time(landmarks)
    assert found.points[12, 0, 7] and found.points.sum() <= 2
    assert not found.views.any()


@pytest.mark.parametrize("stays", [1, 2])
def test_a_face_elsewhere_for_some_frames_failed(stays):
    landmarks = video()
    landmarks[10 : 10 + stays, :, :2] += (220, 0)
    landmarks[5] = np.nan
    found = over_time(landmarks)
    assert np.flatnonzero(found.views[:, 0]).tolist() == list(range(10, 10 + stays))


def test_a_head_that_moves_fast_is_no_outlier():
    landmarks = video()
    landmarks[..., 0] += 15 * np.arange(30)[:, None]
    assert not over_time(landmarks).views.any()


def test_share_is_of_views_that_did_not_fail():
    points = np.zeros((1, 2, 10), dtype=bool)
    points[0, 0, :2] = True
    assert Outliers(points, np.array([[False, True]])).share == 0.2
