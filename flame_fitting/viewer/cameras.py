"""The cameras of a capture and their pictures, as they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.spatial.transform import Rotation

from flame_fitting.capture.camera import move_camera
from flame_fitting.capture.capture import View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.report.sampling import spread
from flame_fitting.viewer.opening import Viewed

MOST = 48
"""Cameras that are shown at most."""
_ROLE_COLORS = {"fit": (40, 90, 190), "landmark": (30, 140, 90), "heldout": (200, 110, 30)}
_ROLES = {"fit": "of the fit", "landmark": "for landmarks", "heldout": "held out"}


@dataclass(frozen=True, eq=False)
class ShownCamera:
    """One camera in the shown frame; OpenCV axes (x right, y down, z forward)."""

    name: str
    view: View
    """At the first timestep at which it has one."""
    position: Float[ndarray, " 3"]
    wxyz: Float[ndarray, " 4"]
    """Unit quaternion from the camera's axes to the shown frame's."""

    @property
    def fov_y(self) -> float:
        """Radians from the picture's top to its bottom, as if its middle were the principal point."""
        return float(2 * np.arctan(0.5 * self.view.height / self.view.K[1, 1]))

    @property
    def aspect(self) -> float:
        """Width over height, of what the camera sees."""
        return float(self.view.width / self.view.K[0, 0] * self.view.K[1, 1] / self.view.height)

    @property
    def color(self) -> tuple[int, int, int]:
        """By its role."""
        return _ROLE_COLORS[self.view.role]

    def plane(self, distance: float) -> tuple[Float[ndarray, " 3"], float, float]:
        """Middle of its picture when that stands at a distance before it, and the width and height it has there."""
        K, axes = self.view.K, Rotation.from_quat(np.roll(self.wxyz, -1)).as_matrix()
        size = np.array([self.view.width, self.view.height])
        middle = (size / 2 - K[:2, 2]) / K[[0, 1], [0, 1]] * distance
        width, height = size / K[[0, 1], [0, 1]] * distance
        return self.position + axes @ np.array([*middle, distance]), float(width), float(height)


def shown_cameras(viewed: Viewed, most: int = MOST) -> list[ShownCamera]:
    """All cameras of the capture, or so many of them; none without a capture."""
    if viewed.capture is None:
        return []
    first = {view.camera: view for view in reversed(viewed.capture.views)}
    chosen = [sorted(first)[k] for k in spread(len(first), most)]
    return [_shown(viewed, first[number]) for number in chosen]


def camera_legend(cameras: Sequence[ShownCamera]) -> list[tuple[tuple[int, int, int], str]]:
    """Colour and role of those that are there."""
    there = {camera.view.role for camera in cameras}
    return [(_ROLE_COLORS[role], name) for role, name in _ROLES.items() if role in there]


def view_at(viewed: Viewed, camera: ShownCamera, row: int) -> View | None:
    """What a camera took at a timestep."""
    assert viewed.capture is not None
    timestep = viewed.capture.timesteps[row]
    own = (view for view in viewed.capture.views if view.camera == camera.view.camera and view.timestep == timestep)
    return next(own, None)


def picture_of(viewed: Viewed, view: View, most: int) -> UInt8[ndarray, "H W 3"]:
    """The view's picture, its longer side no longer than `most` pixels."""
    import cv2

    assert viewed.capture is not None
    picture = to_uint8(viewed.capture.image(view).transpose(1, 2, 0))
    factor = most / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = [max(round(length * factor), 1) for length in picture.shape[1::-1]]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _shown(viewed: Viewed, view: View) -> ShownCamera:
    world = np.linalg.inv(move_camera(view.world_to_camera, viewed.shown_from_world))
    quaternion = np.roll(Rotation.from_matrix(world[:3, :3]).as_quat(), 1)
    names = {"landmark": "landmarks", "heldout": "held out"}
    name = f"camera {view.camera_id}" + (f" ({names[view.role]})" if view.role in names else "")
    return ShownCamera(name, view, world[:3, 3], quaternion)
