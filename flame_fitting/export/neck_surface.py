"""The cut through the neck as one surface in space, the same for all views of a timestep.

VHAP draws another line in every picture, through the projection of the front bottom vertex of the model: views from
above, below or behind lose parts of the head that others keep. Here the line's plane (`neck_line.neck_cut`) is made
once, on the head at rest, and the neck's skin carries it as a rigid body. A pixel is kept where what it shows lies
above the plane. What it shows is where the capture's depth says, else where the fitted head's own surface is in that
pixel; pixels without either take the depth of the nearest pixel that has one. The edge is blurred as VHAP's is.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flame_fitting.capture.camera import project, scaled_intrinsics, transform_points
from flame_fitting.capture.capture import View
from flame_fitting.capture.similarity import umeyama
from flame_fitting.export.neck_line import BLUR_FRACTION, REGIONS, neck_cut
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.mesh import clip_matrix, clip_positions
from flame_fitting.render.winding import front_faces

Array = NDArray[np.float64]
Values = NDArray[np.floating]

_RIM = ("bottomline", "front_middle_bottom_point_boundary", "back_middle_bottom_point_boundary")
_LONGEST = 256
"""Longer side, px, of the pictures in which the fitted head's depth is drawn: it is smooth where the plane cuts it."""
_CLIP_MARGIN = 0.3
"""Metres around the head that its depth is drawn for."""


@dataclass(frozen=True)
class NeckPlane:
    """A plane in the frame of the vertices it was made from, and how a head carries it."""

    center: Array
    """(3,) a point of it: the middle of the neck, m."""
    up: Array
    """(3,) its unit normal, toward the head."""

    def heights(self, depth: Array, K: Array, world_to_camera: Array) -> Array:
        """(H, W) distances above the plane (m) of what pixels show at `depth` (H, W) along the camera's z."""
        height, width = depth.shape
        # the distance is linear in the point, so it is depth times a plane over the picture, plus a constant
        rotation, shift = world_to_camera[:3, :3], world_to_camera[:3, 3]
        row = self.up @ rotation.T @ np.linalg.inv(K)
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        slope = row[0] * x[None, :] + row[1] * y[:, None] + row[2]
        return depth * slope - self.up @ (rotation.T @ shift + self.center)

    def moved(self, motion: Array) -> "NeckPlane":
        """The plane after a rigid motion (4, 4)."""
        return NeckPlane(transform_points(motion, self.center[None])[0], motion[:3, :3] @ self.up)


class NeckSurface:
    """The planes of a sequence, made on the head at rest and carried by its neck."""

    def __init__(self, head: HeadModel, shape: Values, static_offset: Values) -> None:
        """`shape` (S,) and `static_offset` (1, V, 3) of the fit. Raises ValueError where the head lacks neck points."""
        rest = _posed(head, shape, static_offset, {})[0]
        cut = neck_cut(head, rest)
        if cut is None:
            raise ValueError(f"{head.name} has no neck points")
        self._head, self._rest = head, (shape, static_offset)
        self._plane = NeckPlane(cut.center, cut.up)
        regions = head.regions
        ids = [regions[name].cpu().numpy() for name in (*_RIM, *REGIONS) if name in regions]
        self._ring = np.unique(np.concatenate(ids))
        self._at_rest = rest[self._ring]

    def at(self, poses: dict[str, Values]) -> NeckPlane:
        """The plane at one timestep; `poses` are rotation, neck_pose and translation, (1, 3) each."""
        ring = _posed(self._head, *self._rest, poses)[0][self._ring]
        return self._plane.moved(umeyama(self._at_rest, ring, with_scale=False))


def posed_neck(surface: NeckSurface, fit: FitResult, row: int) -> NeckPlane:
    """The plane at a timestep of a fit, in the frame of its vertices."""
    posed = fit.of_rows([row])
    return surface.at({key: posed.parameters[key] for key in ("rotation", "neck_pose", "translation")})


def above_neck(points: Array, surface: NeckSurface | None, fit: FitResult, row: int) -> NDArray[np.bool_]:
    """Which points (N, 3) in the frame of a fit's vertices lie above its cut at a timestep; all where nothing cuts."""
    if surface is None:
        return np.ones(len(points), dtype=bool)
    plane = posed_neck(surface, fit, row)
    return np.asarray((points - plane.center) @ plane.up > 0)


def _posed(head: HeadModel, shape: Values, static_offset: Values, poses: dict[str, Values]) -> Array:
    given = {"shape": shape, "static_offset": static_offset} | poses
    with torch.no_grad():
        out = head(**{key: torch.as_tensor(value).to(head.v_template) for key, value in given.items()})
        vertices: Array = out.vertices.double().cpu().numpy()
    return vertices


def keep_above(
    plane: NeckPlane,
    view: View,
    depth: NDArray[np.floating] | None,
    vertices: Array,
    faces: NDArray[np.integer],
    counts: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """(H, W) 0..1: 1 where a view shows what lies above the plane, 0 below, soft in between.

    The view's camera, `plane` and `vertices` (V, 3) share a frame in metres. `depth` (H, W), in metres along the
    camera's z and 0 where nothing is, is what the view shows; None: what it shows of the head with these vertices and
    `faces`. Pixels that do not count (`counts` (H, W) 0, else 1) are 0, and nothing runs over from them.
    """
    import cv2

    if depth is None:
        heights = _drawn_heights(plane, view, vertices, faces)
    else:
        heights = plane.heights(_filled(np.asarray(depth, np.float64)), view.K, view.world_to_camera)
    if heights is None:
        return np.ones((view.height, view.width), dtype=np.float32)
    above = (heights > 0).astype(np.float32)
    size = max(1, int(BLUR_FRACTION * view.width)) | 1

    def soft(levels: NDArray[np.float32]) -> NDArray[np.float32]:
        blurred = cv2.GaussianBlur(levels, (size, size), sigmaX=size, borderType=cv2.BORDER_REPLICATE)
        return np.clip(blurred, 0, 1).astype(np.float32)

    if counts is None:
        return soft(above)
    return counts * np.clip(soft(above * counts) / np.maximum(soft(counts), 1e-6), 0, 1)


def _drawn_heights(plane: NeckPlane, view: View, vertices: Array, faces: NDArray[np.integer]) -> Array | None:
    """Heights by the head's own surface; by the neck's middle where the view does not show the head; None behind it."""
    import cv2

    factor = min(1.0, _LONGEST / max(view.width, view.height))
    width, height = max(1, round(view.width * factor)), max(1, round(view.height * factor))
    K = scaled_intrinsics(view.K, (view.height, view.width), (height, width))
    z = project(vertices, K, view.world_to_camera)[:, 2]
    middle = float(project(plane.center[None], K, view.world_to_camera)[0, 2])
    far = float(z.max()) + _CLIP_MARGIN
    if far <= 2 * _CLIP_MARGIN or middle <= 0:
        return None
    near = max(float(z.min()) - _CLIP_MARGIN, 1e-3 * far)
    depth = _filled(_drawn_depth(vertices, faces, K, view.world_to_camera, (height, width), near, far), middle)
    small = plane.heights(depth, K, view.world_to_camera)
    if (height, width) == (view.height, view.width):
        return small
    return np.asarray(cv2.resize(small, (view.width, view.height), interpolation=cv2.INTER_LINEAR), dtype=np.float64)


def _drawn_depth(
    vertices: Array,
    faces: NDArray[np.integer],
    K: Array,
    world_to_camera: Array,
    resolution: tuple[int, int],
    near: float,
    far: float,
) -> Array:
    """Depth of the outside of a mesh, 0 where there is none. The inside, seen through the neck, does not count."""
    rasterizer = make_rasterizer("cpu")
    matrix = clip_matrix(torch.as_tensor(K)[None], torch.as_tensor(world_to_camera)[None], resolution, near, far)
    triangles = torch.as_tensor(np.ascontiguousarray(faces)).int()
    with torch.no_grad():
        pos = clip_positions(torch.as_tensor(vertices)[None], matrix)
        rast, _ = rasterizer.rasterize(pos, triangles, resolution, front_faces(pos, triangles))
        depth, _ = rasterizer.interpolate(pos[..., 3:].contiguous(), rast, triangles)
    out: Array = depth[0, ..., 0].double().numpy()
    return out


def _filled(depth: Array, empty: float = 0.0) -> Array:
    """Depth with that of the nearest pixel that has one; `empty` where none has."""
    import cv2

    known = depth > 0
    if known.all() or not known.any():
        return depth if known.any() else np.full_like(depth, empty)
    # labels count the zero pixels row by row
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(int(labels.max()) + 1)
    values[labels[known]] = depth[known]
    return values[labels]
