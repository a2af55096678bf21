"""Courses of the bench: as far as it says, and no farther."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scripts.rig.course import Course
from scripts.tracking.cases import BY_NAME
from scripts.tracking.course import EXPR_SIGMA, FREE_DISTANCE, JAW, SHIFT, make_course

MIDDLE = np.array([0.0, 0.02, -0.03])


def course_of(name: str, seed: int = 0, distance: float = FREE_DISTANCE, n_expr: int = 40) -> Course:
    return make_course(BY_NAME[name], BY_NAME[name].frames, n_expr, MIDDLE, distance, np.random.default_rng(seed))


def yaw_of(course: Course) -> np.ndarray:
    looking = (Rotation.from_rotvec(course.rotation) * Rotation.from_rotvec(course.neck_pose)).apply([0, 0, 1.0])
    return np.degrees(np.arctan2(looking[:, 0], looking[:, 2]))


@pytest.mark.parametrize(("name", "degrees"), [("rig", 12), ("video", 12), ("turn", 30)])
def test_motion_reaches_what_the_case_says(name: str, degrees: float) -> None:
    for seed in range(3):
        course = course_of(name, seed)
        assert course.jaw_pose[:, 0].max() == pytest.approx(JAW) and course.jaw_pose[:, 0].min() > -1e-9
        yaw = yaw_of(course)
        # nodding and rolling bend it a little
        assert yaw.max() == pytest.approx(degrees, abs=1.5) and yaw.min() == pytest.approx(-degrees, abs=1.5)
        assert 0.6 * EXPR_SIGMA < np.sqrt((course.expr**2).mean()) < 1.4 * EXPR_SIGMA
        # as people move at 25 pictures a second
        assert np.abs(np.diff(course.expr, axis=0)).max() < 1 and np.abs(np.diff(course.jaw_pose, axis=0)).max() < 0.15


def test_place() -> None:
    rig = course_of("rig")
    moved = np.linalg.norm(rig.translation + MIDDLE, axis=1)
    assert moved.max() == pytest.approx(SHIFT)
    for distance in (0.7, 1.3):
        turn = course_of("turn", distance=distance)
        depth = FREE_DISTANCE - (turn.translation + MIDDLE)[:, 2]
        assert depth.min() == pytest.approx(0.8 * distance, abs=SHIFT)
        assert depth.max() == pytest.approx(1.2 * distance, abs=SHIFT)


@pytest.mark.parametrize("name", ["still", "still_video"])
def test_nothing_moves(name: str) -> None:
    course = course_of(name)
    for values in (course.expr, course.rotation, course.translation, course.neck_pose, course.jaw_pose):
        assert np.ptp(values, axis=0).max() == 0
    assert np.abs(course.expr).max() > 0.1


def test_frames_left_out() -> None:
    video = course_of("video")
    assert np.flatnonzero(video.blank).tolist() == [5, 13, 21, 29, 37]
    assert (video.present == ~video.blank).all() and course_of("turn").present.all()


def test_seeds_decide() -> None:
    same, other = course_of("rig", 1), course_of("rig", 2)
    assert np.array_equal(course_of("rig", 1).expr, same.expr) and not np.allclose(same.expr, other.expr)
