"""Which vertex lies across each edge of a triangle mesh."""

import numpy as np
from numpy.typing import NDArray


def opposite_vertices(faces: NDArray) -> NDArray[np.int32]:
    """For each face (F, 3) and corner k, the vertex across the edge opposite that corner; -1 where there is none.

    Of an edge with more than two faces the first two different opposite vertices count. Faces with a repeated vertex
    neither have nor are neighbours.
    """
    faces = np.asarray(faces, dtype=np.int64)
    n_faces = len(faces)
    out = np.full((n_faces, 3), -1, np.int32)
    if n_faces == 0:
        return out
    a, b = faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]
    valid = np.repeat(((a != b).all(axis=1))[:, None], 3, axis=1).ravel()
    key = (np.minimum(a, b) * (faces.max() + 1) + np.maximum(a, b)).ravel()[valid]
    corner = faces.ravel()[valid]
    slot = np.arange(3 * n_faces)[valid]
    order = np.argsort(key, kind="stable")
    key, corner, slot = key[order], corner[order], slot[order]
    new_edge = np.r_[True, key[1:] != key[:-1]] if len(key) else np.zeros(0, bool)
    group = np.cumsum(new_edge) - 1
    first = corner[new_edge]
    # The first corner of the edge's group that differs from the group's first one.
    second = np.full(len(first), -1, np.int64)
    differs = np.flatnonzero(corner != first[group])
    second[group[differs[::-1]]] = corner[differs[::-1]]
    across = np.where(corner == first[group], second[group], np.where(corner == second[group], first[group], -1))
    out.reshape(-1)[slot] = across
    return out
