"""How the heads of the bench move: a second or two of speech before cameras, drawn from a seed."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ..rig.course import Course
from .cases import Case

FPS = 25.0
EXPR_SIGMA = 0.75
JAW = 0.25
"""rad, wide open."""
SHIFT = 0.03
"""m, farthest from the middle."""
NECK_SHARE = 1 / 3
"""Of the turn, made by the neck."""
NECK_SWAY, GAZE, TILT = 0.04, 0.1, 0.05
"""rad, standard deviation: the neck beside the turn, the eyes, nodding and rolling."""
FREE_DISTANCE = 1.0
"""m, from the cameras to the middle, where the camera is known; of others it follows the focal length."""


def make_course(
    case: Case, frames: int, n_expr: int, middle: Float[ndarray, " 3"], distance: float, rng: np.random.Generator
) -> Course:
    """Draws a course.

    Args:
        middle: of the head at rest, in head space; it is brought to the origin, where the cameras look.
        distance: of the one camera from the head, m; it stands at (0, 0, `FREE_DISTANCE`).
    """
    time = np.arange(frames) / FPS

    def waves(slow: float, fast: float, count: int = 1, parts: int = 3) -> Float[ndarray, "T count"]:
        """Smooth random curves of unit variance, frequencies in Hz."""
        hertz = rng.uniform(slow, fast, (parts, count))
        phase = rng.uniform(0, 2 * np.pi, (parts, count))
        return np.sqrt(2 / parts) * np.sin(2 * np.pi * hertz * time[:, None, None] + phase).sum(1)

    expr = EXPR_SIGMA * waves(0.4, 1.6, n_expr)
    jaw = np.zeros((frames, 3))
    jaw[:, 0] = JAW * 0.5 * (1 + _reaching(waves(1.0, 2.5))[:, 0])
    jaw[:, 1] = 0.01 * waves(0.5, 2.0)[:, 0]
    yaw = np.radians(case.turn_degrees) * _reaching(waves(0.3, 0.9))[:, 0]
    neck = NECK_SWAY * waves(0.3, 1.0, 3) * [1.0, 0.5, 0.5]
    rotation = TILT * waves(0.3, 0.9, 3) * [1.0, 0.0, 0.6]
    rotation[:, 1] += (1 - NECK_SHARE) * yaw
    neck[:, 1] = NECK_SHARE * yaw
    gaze = GAZE * waves(0.3, 1.2, 3) * [0.5, 1.0, 0.0]
    shift = waves(0.25, 0.8, 3)
    shift -= 0.5 * (shift.min(0) + shift.max(0))
    shift *= SHIFT / max(float(np.linalg.norm(shift, axis=1).max()), 1e-12)
    nearer = case.depth_share * _reaching(waves(0.3, 0.8))[:, 0]
    away = FREE_DISTANCE - distance * (1 - nearer)
    translation = shift - middle + np.stack([0 * away, 0 * away, away], axis=1)
    course = Course(
        expr,
        rotation,
        translation,
        neck,
        jaw,
        np.tile(gaze, 2),
        present=~case.left_out(frames),
        blank=case.left_out(frames),
        events={},
    )
    return _held(course) if case.still else course


def _reaching(wave: Float[ndarray, "T 1"]) -> Float[ndarray, "T 1"]:
    """The curve moved and stretched so that it reaches from -1 to 1."""
    low, high = wave.min(), wave.max()
    return (2 * wave - low - high) / max(float(high - low), 1e-12)


def _held(course: Course) -> Course:
    """The course's first moment, for as long."""
    for name in ("expr", "rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose"):
        values = getattr(course, name)
        values[:] = values[:1].copy()
    return course
