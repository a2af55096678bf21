"""Cameras of the clips, and the worlds that their files are in."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera import look_at, move_camera
from flame_fitting.errors import InputError

NAMES = ("220700191", "221501007", "222200037", "222200046")
YAW, PITCH, DISTANCE = 26.0, 9.0, 1.0
"""Degrees, metres: two by two cameras about the middle, so that their mean frame is orthogonal as it is."""
FOCAL = 2.25
"""Of the calibrated cameras, in heights of the picture."""
PRINCIPAL_POINT = (0.515, 0.47)
"""Of the picture's width and height: off the middle, as of real cameras."""
ASPECT = 11 / 16
MONOCULAR_FOCAL = 2.0
"""In the longer side of the picture; VHAP's guess is 1.5."""
AIM = (0.0, 0.0, -0.04)
"""m, in the studio: near the axis that the head turns about."""
STEP = 64
"""Sizes are multiples of it: half of a width is even too, as videos need."""


@dataclass(frozen=True, eq=False)
class RigCamera:
    """A pinhole camera."""

    name: str
    """As in file names; empty where there is only one."""
    K: Float[ndarray, "3 3"]
    """px; pixel centres at +0.5."""
    world_to_camera: Float[ndarray, "4 4"]
    """OpenCV axes, metres."""
    width: int
    height: int

    def scaled(self, factor: float) -> "RigCamera":
        """The same view with pictures of another size."""
        K = self.K.copy()
        K[:2] *= factor
        return RigCamera(
            self.name, K, self.world_to_camera, round(factor * self.width), round(factor * self.height)
        )  # fmt: skip

    def moved(self, world_from_here: Float[ndarray, "4 4"]) -> "RigCamera":
        """The same camera in another world."""
        return RigCamera(
            self.name, self.K, move_camera(self.world_to_camera, world_from_here), self.width, self.height
        )  # fmt: skip


def calibrated_cameras(size: int) -> list[RigCamera]:
    """Four cameras in the studio; `size` is the height of their pictures, px."""
    if size % STEP or size < STEP:
        raise InputError(f"--size {size}: a multiple of {STEP} is needed.")
    width = round(ASPECT * size)
    K = np.array([[FOCAL * size, 0, 0], [0, FOCAL * size, 0], [0, 0, 1.0]])
    K[:2, 2] = np.array(PRINCIPAL_POINT) * [width, size]
    out = []
    for name, (yaw, pitch) in zip(NAMES, ((-1, 1), (-1, -1), (1, 1), (1, -1)), strict=True):
        a, b = np.radians([yaw * YAW, pitch * PITCH])
        eye = DISTANCE * np.array([np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)])
        out.append(RigCamera(name, K, look_at(eye + AIM, np.array(AIM), [0, 1, 0]), width, size))
    return out


def monocular_camera(size: int) -> RigCamera:
    """The camera that VHAP takes for a video's: at (0, 0, 1), looking along -z, the principal point in the middle."""
    K = np.array([[MONOCULAR_FOCAL * size, 0, size / 2], [0, MONOCULAR_FOCAL * size, size / 2], [0, 0, 1.0]])
    world_to_camera = np.diag([1.0, -1.0, -1.0, 1.0])
    world_to_camera[2, 3] = 1.0
    return RigCamera("", K, world_to_camera, size, size)


def world_from_studio() -> Float[ndarray, "4 4"]:
    """Rigid: a calibrated rig's own world, neither level nor centred on the head."""
    from scipy.spatial.transform import Rotation

    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("YXZ", [9.0, -14.0, 5.0], degrees=True).as_matrix()
    out[:3, 3] = [0.021, -0.034, 0.015]
    return out


def aligned_from_world(cameras: list[RigCamera]) -> Float[ndarray, "4 4"]:
    """The rotation after which the cameras' mean frame has the world's axes: x right, y up, z back.

    What VHAP does to calibrated rigs (`align_cameras_to_axes`). Mean frames that are not orthogonal are made so by the
    nearest rotation; those of this rig are.
    """
    mean = np.mean([camera.world_to_camera[:3, :3].T for camera in cameras], axis=0)
    u, _, vt = np.linalg.svd(mean)
    out = np.eye(4)
    out[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ (u @ vt).T
    return out
