"""Which vertices of a fitted head its own surface hides from every camera: nothing can be measured there."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.capture import View
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.normals import area_vectors
from flame_fitting.report.drawing import head_avatar

_SIZE = 512
_CHUNK = 8


def seen_vertices(head: HeadModel, vertices: Float[ndarray, "V 3"], views: list[View]) -> Bool[ndarray, " V"]:
    """Vertices of which a triangle shows its front in at least one view, if nothing but the head is in its way.

    The head is drawn from where the cameras are, as large as the picture, so neither what a camera's own frame cuts off
    nor what the avatar has there plays a role: a fit that is far off hides nothing by it. Inner lips, the inside of the
    mouth and the backs of eyeballs are what is left out.

    Args:
        vertices: posed, in the avatar's coordinates, as the views' cameras.
        views: all count as seeing everything if one stands so near that a part of the head lies behind it, or if
            there is none.
    """
    faces = head.faces.cpu().numpy()
    seen = np.zeros(len(vertices), dtype=bool)
    scene = head_avatar(head, np.asarray(vertices, dtype=np.float64)).scene
    cameras = np.unique(np.array([view.world_to_camera for view in views]).reshape(-1, 4, 4), axis=0)
    local = transform_points(cameras, scene.vertices)
    if not len(cameras) or local[..., 2].min() <= scene.near:
        return np.ones(len(vertices), dtype=bool)
    K = _framing(local[..., :2] / local[..., 2:])
    normals = area_vectors(scene.vertices, faces)
    eyes = np.linalg.inv(cameras)[:, :3, 3]
    for start in range(0, len(cameras), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        _, winner = scene.rasterize(scene.project(K[chunk], cameras[chunk]), _SIZE, _SIZE)
        for eye, drawn in zip(eyes[chunk], winner, strict=True):
            found = np.unique(drawn[drawn >= 0])
            toward = eye - scene.vertices[faces[found, 0]]
            seen[faces[found[(normals[found] * toward).sum(axis=1) > 0]]] = True
    return seen


def _framing(places: Float[ndarray, "B V 2"]) -> Float[ndarray, "B 3 3"]:
    """Intrinsics by which points x / z, y / z just fill a square picture."""
    low, high = places.min(axis=1), places.max(axis=1)
    K = np.tile(np.eye(3), (len(places), 1, 1))
    focal = (_SIZE - 2) / np.maximum((high - low).max(axis=1), 1e-12)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, :2, 2] = _SIZE / 2 - focal[:, None] * (low + high) / 2
    return K
