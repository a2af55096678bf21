"""Coloured points on the fitted head, for programs that begin with points, and which views see them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from flame_fitting.capture.camera import project
from flame_fitting.capture.capture import View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.normals import face_normals, vertex_normals
from flame_fitting.report.drawing import head_avatar

_GREY = 153
"""Where the fit has no texture."""
_BEHIND = 0.003
"""Metres that a point may lie behind the surface drawn in its pixel and still be seen."""


@dataclass(eq=False)
class SurfacePoints:
    """N points of a surface."""

    xyz: Float[ndarray, "N 3"]
    normals: Float[ndarray, "N 3"]
    rgb: UInt8[ndarray, "N 3"]
    """sRGB."""

    def chosen(self, which: Bool[ndarray, " N"]) -> "SurfacePoints":
        """Some of them."""
        return SurfacePoints(self.xyz[which], self.normals[which], self.rgb[which])


def vertex_points(head: HeadModel, vertices: Float[ndarray, "V 3"], texture: ndarray | None) -> SurfacePoints:
    """The vertices with their normals and the texture's colours."""
    faces = head.faces.cpu().numpy()
    rgb = np.full((len(vertices), 3), _GREY, dtype=np.uint8)
    if texture is not None and head.has_uv:
        corner = np.zeros(len(vertices), dtype=np.int64)
        corner[faces.reshape(-1)] = head.uv_faces.cpu().numpy().reshape(-1)
        rgb = texture_colors(texture, head.uv.cpu().numpy()[corner])
    return SurfacePoints(vertices, vertex_normals(vertices, faces), rgb)


def sampled_points(
    head: HeadModel, vertices: Float[ndarray, "V 3"], texture: ndarray | None, count: int, seed: int = 0
) -> SurfacePoints:
    """`count` points, evenly by area."""
    faces = head.faces.cpu().numpy()
    random = np.random.default_rng(seed)
    normals, areas = face_normals(vertices, faces)
    which = random.choice(len(faces), count, p=areas / areas.sum())
    root, across = np.sqrt(random.random(count)), random.random(count)
    weights = np.stack([1 - root, root * (1 - across), root * across], axis=1)
    xyz = np.einsum("nk,nkc->nc", weights, vertices[faces[which]])
    rgb = np.full((count, 3), _GREY, dtype=np.uint8)
    if texture is not None and head.has_uv:
        uv = head.uv.cpu().numpy()[head.uv_faces.cpu().numpy()[which]]
        rgb = texture_colors(texture, np.einsum("nk,nkc->nc", weights, uv))
    return SurfacePoints(xyz, normals[which], rgb)


def texture_colors(texture: ndarray, uv: Float[ndarray, "N 2"]) -> UInt8[ndarray, "N 3"]:
    """A picture's colours (R, R, 3) at texture coordinates from its bottom left, between texels by their distance."""
    import cv2

    rows, columns = texture.shape[:2]
    # OpenCV counts from the middle of the first texel
    x = np.clip(uv[:, 0] * columns - 0.5, 0, columns - 1).astype(np.float32)
    y = np.clip((1 - uv[:, 1]) * rows - 0.5, 0, rows - 1).astype(np.float32)
    out = np.empty((len(uv), 3), dtype=np.float32)
    step = 16384  # OpenCV's pictures have at most 32767 columns
    for start in range(0, len(uv), step):
        part = slice(start, start + step)
        out[part] = cv2.remap(texture.astype(np.float32), x[None, part], y[None, part], cv2.INTER_LINEAR)[0]
    return to_uint8(out / 255.0)


def seen_in(
    points: SurfacePoints, views: Sequence[View], head: HeadModel, vertices: Float[ndarray, "V 3"]
) -> list[tuple[Int[ndarray, " S"], Float[ndarray, "S 2"]]]:
    """For every view the points that it sees of the head with these vertices, and where, px.

    Points, vertices and the views' cameras share a frame in metres.
    """
    avatar, found = head_avatar(head, vertices), []
    for view in views:
        at = project(points.xyz, view.K, view.world_to_camera)
        drawn = avatar.draw(
            view.K[None], view.world_to_camera[None], view.width, view.height, outputs=("depth",), supersample=1
        )
        assert drawn.depth is not None
        centre = -view.world_to_camera[:3, :3].T @ view.world_to_camera[:3, 3]
        before = (at[:, 2] > 0) & (((centre - points.xyz) * points.normals).sum(axis=1) > 0)
        inside = (at[:, :2] >= 0).all(axis=1) & (at[:, 0] < view.width) & (at[:, 1] < view.height)
        ids = np.flatnonzero(before & inside)
        column, row = np.floor(at[ids, :2]).astype(np.int64).T
        depth = drawn.depth[0][row, column]
        ids = ids[(depth > 0) & (at[ids, 2] < depth + _BEHIND)]
        found.append((ids, at[ids, :2]))
    return found
