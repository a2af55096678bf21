"""Where to look at a found head from: landmark, fit and held-out views, all planned in the head's own frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, move_camera
from flame_fitting.capture.roles import Role
from flame_fitting.capture.similarity import decompose_similarity

HEAD_RADIUS = 0.20
"""Metres: a head with hair, seen from the middle of the head (2.2 times the distance of the outer eye corners)."""
LANDMARK_YAWS = (-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0)
LANDMARK_PITCHES = (-15.0, 0.0, 15.0)
# Share of the fit views on each ring of equal pitch (degrees), as 12 + 10 + 8 + 2 of 32.
_FIT_RINGS = ((0.0, 12), (25.0, 10), (-25.0, 8), (65.0, 2))


@dataclass(frozen=True)
class HeadFrame:
    """What the cameras aim at, in head space."""

    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Metres: the middle of the head without its neck."""
    radius: float = HEAD_RADIUS
    """Metres: what must stay in the picture around the centre."""


@dataclass(frozen=True, eq=False)
class PlannedView:
    """A camera to render."""

    role: Role
    K: Float[ndarray, "3 3"]
    """px."""
    world_to_camera: Float[ndarray, "4 4"]
    """OpenCV axes, world units."""
    width: int
    height: int
    yaw: float
    """Degrees around the head's up axis from its front, positive toward its left (+X)."""
    pitch: float
    """Degrees above the head's horizon."""
    near: float
    far: float
    """World units: the head lies between."""


def camera_distance(radius: float, fov: float) -> float:
    """Distance at which a sphere fills 80 % of the vertical field of view (degrees); units of `radius`."""
    return radius / (0.8 * np.tan(0.5 * np.radians(fov)))


def directions(yaw_pitch: Float[ndarray, "N 2"]) -> Float[ndarray, "N 3"]:
    """Unit vectors from the head to the camera, head space; angles in degrees."""
    yaw, pitch = np.radians(np.asarray(yaw_pitch, dtype=np.float64)).T
    return np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], axis=-1)


def head_cameras(
    yaw_pitch: Float[ndarray, "N 2"],
    head_from_world: Float[ndarray, "4 4"],
    frame: HeadFrame | None = None,
    fov: float = 25.0,
    distance_factor: float = 1.0,
) -> Float[ndarray, "N 4 4"]:
    """World-to-camera matrices (rigid, world units) of cameras around a head, at `distance_factor` times the usual
    distance."""
    frame = frame or HeadFrame()
    center = np.asarray(frame.center)
    distance = distance_factor * camera_distance(frame.radius, fov)
    direction = directions(yaw_pitch)
    in_head = look_at(center + distance * direction, center, np.broadcast_to([0.0, 1.0, 0.0], direction.shape))
    return move_camera(in_head, np.linalg.inv(head_from_world))


def landmark_angles() -> Float[ndarray, "21 2"]:
    """Yaw and pitch of the landmark views, degrees."""
    return np.array([(yaw, pitch) for pitch in LANDMARK_PITCHES for yaw in LANDMARK_YAWS])


def fit_angles(count: int) -> Float[ndarray, "count 2"]:
    """Yaw and pitch of `count` fit views, degrees: rings around the head, each starting at the front.

    32 views are 12 at pitch 0 (every 30 degrees), 10 at +25, 8 at -25 and 2 at +65; other counts keep the shares.
    """
    if count < 1:
        raise ValueError("at least one fit view is needed")
    share = np.array([n for _, n in _FIT_RINGS], dtype=np.float64)
    exact = share * count / share.sum()
    number = np.floor(exact).astype(int)
    # Largest remainders; a tie goes to the ring that comes first.
    for i in np.argsort(-(exact - number), kind="stable")[: count - number.sum()]:
        number[i] += 1
    return np.array(
        [(_wrap(360.0 * k / n), pitch) for (pitch, _), n in zip(_FIT_RINGS, number, strict=True) for k in range(n)]
    )


def heldout_angles(count: int, fit: Float[ndarray, "N 2"]) -> Float[ndarray, "count 2"]:
    """Yaw and pitch of held-out views: each as far as possible from all fit views and from the ones before it.

    Three of four look at the front half, where the face is.
    """
    yaws, pitches = np.arange(-180.0, 180.0, 5.0), np.arange(-20.0, 45.1, 5.0)
    candidates = np.stack(np.meshgrid(yaws, pitches, indexing="ij"), axis=-1).reshape(-1, 2)
    unit = directions(candidates)
    taken = list(directions(fit))
    front = np.abs(candidates[:, 0]) <= 75.0
    chosen = []
    for i in range(count):
        nearest = (unit @ np.array(taken).T).max(1)
        allowed = front if i % 4 != 3 else ~front
        # Rounded, so that ties are broken by order and not by the last bit.
        best = int(np.argmin(np.where(allowed, np.round(nearest, 9), 2.0)))
        chosen.append(candidates[best])
        taken.append(unit[best])
    return np.array(chosen).reshape(count, 2)


def plan_views(
    head_from_world: Float[ndarray, "4 4"],
    n_fit: int = 32,
    n_heldout: int = 8,
    resolution: int = 512,
    fov: float = 25.0,
    frame: HeadFrame | None = None,
    landmark_resolution: int = 512,
) -> list[PlannedView]:
    """Landmark views (yaw x pitch grid), fit views and held-out views around the found head, in this order.

    Landmark views keep their own resolution and a field of view of 25 degrees: the detector's points depend on both.
    """
    frame = frame or HeadFrame()
    scale = decompose_similarity(head_from_world)[0]
    fit = fit_angles(n_fit)
    groups: tuple[tuple[Role, ndarray, int, float], ...] = (
        ("landmark", landmark_angles(), landmark_resolution, 25.0),
        ("fit", fit, resolution, fov),
        ("heldout", heldout_angles(n_heldout, fit), resolution, fov),
    )
    views = []
    for role, angles, size, field in groups:
        K = intrinsics_from_fov(field, size, size)
        distance = camera_distance(frame.radius, field)
        near, far = max(distance - 3 * frame.radius, 0.05 * distance) / scale, (distance + 3 * frame.radius) / scale
        for (yaw, pitch), camera in zip(angles, head_cameras(angles, head_from_world, frame, field), strict=True):
            views.append(PlannedView(role, K, camera, size, size, float(yaw), float(pitch), near, far))
    return views


def of_moments(views: Sequence[PlannedView]) -> list[int]:
    """Indices of the views that show what an expression changes: from the front, a third of them all."""
    return [
        number
        for number, view in enumerate(views)
        if (view.role == "landmark" and (abs(view.yaw) in (0.0, 40.0) or (view.pitch == 0.0 and abs(view.yaw) < 40.0)))
        or (view.role == "fit" and abs(view.yaw) <= 60.5 and abs(view.pitch) <= 30.0)
    ]


def side_of(yaw: float, pitch: float) -> str:
    """The side of the head that a view shows, in words; right and left are the person's."""
    if abs(pitch) > 50.0:
        return "above" if pitch > 0 else "below"
    turn = abs(_wrap(yaw))
    if turn <= 22.5 or turn >= 157.5:
        return "front" if turn <= 22.5 else "back"
    side = "left" if _wrap(yaw) > 0 else "right"
    if turn < 67.5:
        return f"front {side}"
    return side if turn <= 112.5 else f"back {side}"


def _wrap(degrees: float) -> float:
    return (degrees + 180.0) % 360.0 - 180.0
