"""How deep one part of a mesh has passed through another: lips through each other, eyeballs through lids."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from flame_fitting.maths.closest import TriangleTree
from flame_fitting.maths.normals import vertex_normals


def passed_through(
    vertices: Float[ndarray, "V 3"],
    faces: Int[ndarray, "F 3"],
    first: Int[ndarray, " A"],
    second: Int[ndarray, " B"],
    pairs: Int[ndarray, "P 2"],
) -> tuple[Int[ndarray, " N"], Float[ndarray, " N"]]:
    """Vertices of the triangles `first` that have passed through the triangles `second`, and how deep they are.

    Those that lie behind the nearest point of `second`, in one piece with a triangle that crosses it: the nearest point
    alone is no proof where surfaces are open. `pairs` are `crossing_pairs` of these triangles; others among them do not
    matter. Vertices that both share do not count. Depths are in the vertices' unit.
    """
    turned = np.concatenate([pairs, pairs[:, ::-1]])
    crossing = turned[np.isin(turned[:, 0], first) & np.isin(turned[:, 1], second), 0]
    if not len(crossing):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    ids = np.setdiff1d(faces[first], faces[second])
    found = TriangleTree(vertices, faces[second]).closest(vertices[ids])
    corners = vertex_normals(vertices, faces[second])[faces[second][found.face]]
    outward = (found.barycentric[..., None] * corners).sum(1)
    behind = np.zeros(len(vertices), dtype=bool)
    behind[ids] = ((vertices[ids] - found.point) * outward).sum(1) < 0
    edges = np.concatenate([faces[first][:, [k, k - 1]] for k in range(3)])
    edges = edges[behind[edges].all(1)]
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(vertices),) * 2)
    piece = connected_components(graph, directed=False)[1]
    seeds = np.intersect1d(faces[crossing], np.flatnonzero(behind))
    through = behind & np.isin(piece, piece[seeds])
    return np.flatnonzero(through), found.distance[through[ids]]
