"""Which vertices of a fitted head no camera sees, for its own surface hides them: nothing can be measured there."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.capture import View
from flame_fitting.fit.surface import GRAZING_COSINE
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.normals import face_normals
from flame_fitting.report.drawing import head_avatar

_SIZE = 512
_CHUNK = 8


def seen_vertices(head: HeadModel, vertices: Float[ndarray, "V 3"], views: list[View]) -> Bool[ndarray, " V"]:
    """Vertices around which half of the triangles or more show their front, each in some view and not too flat a one.

    Too flat is what `fit.surface` takes no depth from. The head alone is in its own way. It is drawn from where the
    cameras are, as large as the picture, so neither what a camera's own frame cuts off nor what the avatar has there
    plays a role: a fit that is far off hides nothing by it. Inner lips, the inside of the mouth, the backs of eyeballs,
    and what few views leave unseen are what is left out.

    Args:
        vertices: posed, in the avatar's coordinates, as the views' cameras.
        views: all count as seeing everything if one stands so near that a part of the head lies behind it, or if
            there is none.
    """
    faces = head.faces.cpu().numpy()
    shown = np.zeros(len(faces), dtype=bool)
    scene = head_avatar(head, np.asarray(vertices, dtype=np.float64)).scene
    cameras = np.unique(np.array([view.world_to_camera for view in views]).reshape(-1, 4, 4), axis=0)
    local = transform_points(cameras, scene.vertices)
    if not len(cameras) or local[..., 2].min() <= scene.near:
        return np.ones(len(vertices), dtype=bool)
    K = _framing(local[..., :2] / local[..., 2:])
    normals, _ = face_normals(scene.vertices, faces)
    eyes = np.linalg.inv(cameras)[:, :3, 3]
    for start in range(0, len(cameras), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        _, winner = scene.rasterize(scene.project(K[chunk], cameras[chunk]), _SIZE, _SIZE)
        for eye, drawn in zip(eyes[chunk], winner, strict=True):
            found = np.unique(drawn[drawn >= 0])
            toward = eye - scene.vertices[faces[found, 0]]
            square = (normals[found] * toward).sum(axis=1) > GRAZING_COSINE * np.linalg.norm(toward, axis=1)
            shown[found[square]] = True
    around, of_shown = (np.bincount(some.reshape(-1), minlength=len(vertices)) for some in (faces, faces[shown]))
    return (of_shown > 0) & (2 * of_shown >= around)


def _framing(places: Float[ndarray, "B V 2"]) -> Float[ndarray, "B 3 3"]:
    """Intrinsics by which points x / z, y / z just fill a square picture."""
    low, high = places.min(axis=1), places.max(axis=1)
    K = np.tile(np.eye(3), (len(places), 1, 1))
    focal = (_SIZE - 2) / np.maximum((high - low).max(axis=1), 1e-12)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, :2, 2] = _SIZE / 2 - focal[:, None] * (low + high) / 2
    return K
