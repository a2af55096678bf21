"""The neck line: which pixels of a picture lie above the head's cut through the neck.

VHAP draws a line through the projection of the front bottom vertex of the model with the slope from the right to the
left neck vertex, which has no slope at exact profile and passes above the nape in views from behind. Here the cut is a
plane in space that holds the same three vertices' tilt; its rim around the neck is an ellipse, and the line is the
picture of the rim's tangent at the point nearest to the camera. In frontal views this is VHAP's line.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.camera import project
from flame_fitting.head.model import HeadModel

Array = NDArray[np.float64]

REGIONS = ("neck_left_point", "neck_right_point", "front_middle_bottom_point_boundary")
_BACK, _RIM = "back_middle_bottom_point_boundary", "bottomline"
BLUR_FRACTION = 0.03
"""Width of the soft edge as a part of the picture's width."""


@dataclass(frozen=True)
class NeckCut:
    """The cut through the neck at one timestep, in the frame of the vertices it was made from."""

    center: Array
    """(3,) centre of the rim."""
    up: Array
    """(3,) unit normal of the cut, toward the head."""
    front: Array
    """(3,) from the centre to the front bottom vertex."""
    side: Array
    """(3,) from the centre to the rim on the subject's left."""

    def tangent(self, camera_center: Array) -> tuple[Array, Array] | None:
        """Rim point nearest to the camera and the unit direction of the rim there; None along the neck's own axis."""
        view = camera_center - self.center
        toward = view - self.up * (view @ self.up)
        length = np.linalg.norm(toward)
        if length < 0.05 * np.linalg.norm(view):
            return None
        toward /= length
        along_front, along_side = self.front @ toward, self.side @ toward
        reach = np.hypot(along_front, along_side)
        point = self.center + (along_front * self.front + along_side * self.side) / reach
        return point, np.cross(self.up, toward)

    def keep(self, K: Array, world_to_camera: Array, width: int, height: int) -> NDArray[np.float32]:
        """(H, W) 0..1: 1 above the line, 0 below, with a soft edge; all ones for a camera along the neck's axis."""
        ones = np.ones((height, width), dtype=np.float32)
        rotation = world_to_camera[:3, :3]
        found = self.tangent(-rotation.T @ world_to_camera[:3, 3])
        if found is None:
            return ones
        point, direction = found
        step = 0.1 * np.linalg.norm(self.side)
        inside = np.stack([point, point + step * direction, point + step * self.up])
        pixels = project(inside, K, world_to_camera)
        if (pixels[:, 2] <= 0).any():
            return ones
        origin, along, above = pixels[0, :2], pixels[1, :2] - pixels[0, :2], pixels[2, :2] - pixels[0, :2]
        normal = np.array([-along[1], along[0]]) / np.linalg.norm(along)
        normal *= np.sign(normal @ above) or 1.0
        x, y = np.arange(width) + 0.5 - origin[0], np.arange(height) + 0.5 - origin[1]
        distance = normal[0] * x[None, :] + normal[1] * y[:, None]
        return np.clip(0.5 + distance / (BLUR_FRACTION * width), 0.0, 1.0).astype(np.float32)


def neck_cut(head: HeadModel, vertices: Array, up: Array | None = None, at_sides: bool = False) -> NeckCut | None:
    """The cut of one posed head (V, 3); None where the head model lacks the three neck points.

    `up` (3,) is the direction from the neck to the head in the vertices' frame, +Y where None. `at_sides` moves the cut
    up from the front bottom vertex to the two vertices at the sides of the neck, above any shoulders.
    """
    regions = head.regions
    if any(name not in regions or len(regions[name]) == 0 for name in REGIONS):
        return None
    left, right, front = (vertices[regions[name].cpu().numpy()].mean(0) for name in REGIONS)
    across = left - right
    across /= np.linalg.norm(across)
    normal = np.array([0.0, 1.0, 0.0]) if up is None else np.asarray(up, dtype=np.float64)
    normal = normal - across * (normal @ across)
    normal /= np.linalg.norm(normal)

    def into_cut(point: Array) -> Array:
        return point - normal * (normal @ (point - front))

    middle = into_cut(0.5 * (left + right))
    center = middle
    if _BACK in regions and len(regions[_BACK]):
        center = 0.5 * (front + into_cut(vertices[regions[_BACK].cpu().numpy()].mean(0)))
    # the rim's front axis points at the front vertex; its side axis stands square on it and spans the rim
    ahead = front - center
    sideways = np.cross(normal, ahead)
    sideways /= np.linalg.norm(sideways)
    if at_sides:
        half_width = 0.5 * float(np.linalg.norm(left - right))
        return NeckCut(
            center=0.5 * (left + right),
            up=normal,
            front=ahead / np.linalg.norm(ahead) * half_width,
            side=sideways * half_width,
        )
    half_width = 0.5 * float(np.linalg.norm(left - right))
    if _RIM in regions and len(regions[_RIM]):
        half_width = max(half_width, 0.5 * float(np.ptp(vertices[regions[_RIM].cpu().numpy()] @ sideways)))
    return NeckCut(center=center, up=normal, front=ahead, side=sideways * half_width)
