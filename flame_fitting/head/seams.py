"""Head models as programs want them that know one texture coordinate for each vertex."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.head.model import HeadModel


class SplitMesh(NamedTuple):
    """Triangles whose vertices are split at the seams of the texture; a head without one is not split."""

    faces: Int[ndarray, "F 3"]
    vertex: Int[ndarray, " N"]
    """The head model's vertex that each is; ascending, without vertices that no triangle has."""
    uv: Float[ndarray, "N 2"] | None
    """Origin at the picture's bottom left."""


@lru_cache(maxsize=2)
def split_at_seams(head: HeadModel) -> SplitMesh:
    """The same surface, vertices at a seam several times."""
    corners = head.faces.cpu().numpy()
    if not head.has_uv:
        vertex, faces = np.unique(corners, return_inverse=True)
        return SplitMesh(faces.reshape(-1, 3), vertex, None)
    pairs = np.stack([corners.reshape(-1), head.uv_faces.cpu().numpy().reshape(-1)], axis=1)
    both, faces = np.unique(pairs, axis=0, return_inverse=True)
    return SplitMesh(faces.reshape(-1, 3).astype(np.int64), both[:, 0], head.uv.double().cpu().numpy()[both[:, 1]])
