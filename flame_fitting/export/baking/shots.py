"""The pictures that a texture is made of: which of them, and what each needs to be looked up in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.capture.camera import move_camera, scaled_intrinsics
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.normals import vertex_normals
from flame_fitting.report.posed_head import PosedHead

MOST_VIEWS = 64
"""Pictures that a texture is made of, of a longer capture: well spread."""
_DEPTH_SIZE = 1024
"""Pixels of the longer side at which it is found what the head itself hides."""


@dataclass(frozen=True, eq=False)
class Posed:
    """The head at one timestep, in head space (m)."""

    vertices: Float[ndarray, "V 3"]
    normals: Float[ndarray, "V 3"]


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture with the head that it shows."""

    posed: Posed
    rgba: UInt8[ndarray, "H W 4"]
    places: Float[ndarray, "V 3"]
    """Homogeneous pixel coordinates (x w, y w, w) of the vertices, w the depth in metres."""
    eye: Float[ndarray, " 3"]
    focal: float
    """Pixels."""
    own: Float[ndarray, "H W"]
    """Depth (m) of the head itself, large where it is not."""
    avatar: Float[ndarray, "H2 W2"]
    """Depth (m) of what the picture shows, 0 where nothing is; (0, 0) where it is not known."""


def chosen_views(fit: FitResult, capture: Capture, most: int = MOST_VIEWS) -> list[View]:
    """All views whose pictures show the head as the others do, at full size; of many, well spread ones.

    Views for landmarks that are shaded otherwise are left out, and timesteps in which no face was found.
    """
    roles = ("fit", "heldout") if capture.landmark_shading != capture.shading else ()
    views = capture.views_of(*roles) or capture.views
    row = {timestep: number for number, timestep in enumerate(capture.timesteps)}
    used = fit.landmarks3d.get("used")
    if used is not None and len(used) == len(row) and used.any():
        views = [view for view in views if used[row[view.timestep]].any()] or views
    if len(views) > most:
        views = [views[k] for k in sorted(_spread(fit, views, [row[view.timestep] for view in views], most))]
    return [view.at_full_size() for view in views]


def _spread(fit: FitResult, views: Sequence[View], rows: Sequence[int], most: int) -> list[int]:
    """Numbers of views that look at the head from directions as different as there are (farthest points first), and
    as many again evenly over time."""
    from scipy.spatial.transform import Rotation

    turns = Rotation.from_rotvec(fit.parameters["rotation"]).as_matrix()
    cameras = np.array([move_camera(view.world_to_camera, fit.head_from_world) for view in views])
    eyes = np.linalg.inv(cameras)[:, :3, 3] - fit.parameters["translation"][list(rows)]
    directions = np.einsum("nba,nb->na", turns[list(rows)], eyes)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    even = np.unique(np.linspace(0, len(views) - 1, most // 2).round().astype(int)).tolist()
    chosen = list(even)
    nearest = np.max(directions @ directions[chosen].T, axis=1)
    while len(chosen) < most:
        found = int(np.argmin(nearest))
        chosen.append(found)
        nearest = np.maximum(nearest, directions @ directions[found])
        nearest[found] = np.inf
    return chosen


def shots(fit: FitResult, head: HeadModel, capture: Capture, views: Sequence[View]) -> Iterator[Shot]:
    """One shot after the other, by timestep."""
    row_of = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    faces = head.faces.cpu().numpy()
    scale = float(np.cbrt(np.linalg.det(fit.head_from_world[:3, :3])))
    at, posed, drawn = -1, None, None
    for view in sorted(views, key=lambda view: view.timestep):
        row = row_of[view.timestep]
        if row != at or posed is None:
            vertices = fit.vertices_head(head, [row])[0]
            posed = Posed(vertices, vertex_normals(vertices, faces))
            drawn = PosedHead(head, vertices)
            at = row
        assert drawn is not None
        image, alpha = capture.image_and_alpha(view)
        camera = move_camera(view.world_to_camera, fit.head_from_world)
        shrink = min(1.0, _DEPTH_SIZE / max(view.width, view.height))
        width, height = max(round(shrink * view.width), 1), max(round(shrink * view.height), 1)
        K = scaled_intrinsics(view.K, (view.height, view.width), (height, width))
        inverse, _ = drawn.seen(drawn.places(K, camera), width, height)
        own = np.where(inverse > 0, 1 / np.maximum(inverse, 1e-9), 1e6).astype(np.float32)
        if shrink < 1:
            own = np.asarray(cv2.resize(own, (view.width, view.height), interpolation=cv2.INTER_NEAREST), np.float32)
        avatar = np.zeros((0, 0), dtype=np.float32)
        if view.geometry_path is not None:
            avatar = (capture.geometry(view)[0] * scale).astype(np.float32)
        hidden = capture.dense(view).get("occlusion")
        if hidden is not None:
            alpha = np.where(hidden == 1, 0.0, alpha)
        # one pixel from the outline in, so that no background bleeds onto the texture
        alpha = np.asarray(cv2.erode(np.asarray(alpha, np.float32), np.ones((3, 3), np.uint8)), np.float32)
        yield Shot(
            posed,
            np.ascontiguousarray(to_uint8(np.concatenate([image, alpha[None]])).transpose(1, 2, 0)),
            drawn.places(view.K, camera),
            np.linalg.inv(camera)[:3, 3],
            float(view.K[0, 0]),
            own,
            avatar,
        )
