"""Distances along a surface, edge by edge, to the nearer of two sides."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.head.mesh_graph import MeshGraph


def nearest_side(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], seeds: Int[ndarray, " V"], reach: float
) -> tuple[Int[ndarray, " V"], Float[ndarray, " V"], Float[ndarray, " V"]]:
    """The side (1, -1; 0: farther than `reach`) whose seeds are nearer along the surface, and both distances.

    `seeds` is 1 and -1 where the side is known. Distances beyond `reach` are infinite.
    """
    distances = [_along(vertices, faces, np.flatnonzero(seeds == sign), reach) for sign in (1, -1)]
    up, down = distances
    side = np.where(np.isfinite(np.minimum(up, down)), np.where(up <= down, 1, -1), 0)
    return side, up, down


def sure(
    side: Int[ndarray, " V"], up: Float[ndarray, " V"], down: Float[ndarray, " V"], margin: float
) -> Int[ndarray, " V"]:
    """`side` without what is all but as near to the other one: corners, where both go over into each other."""
    near, far = np.minimum(up, down), np.maximum(up, down)
    return np.where(near + margin < far, side, 0)


def _along(vertices: ndarray, faces: ndarray, sources: ndarray, reach: float) -> Float[ndarray, " V"]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    if not len(sources):
        return np.full(len(vertices), np.inf)
    edges = MeshGraph(faces, len(vertices)).edges
    # an edge of no length would be none
    length = np.maximum(np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1), 1e-9)
    graph = coo_matrix((length, (edges[:, 0], edges[:, 1])), shape=(len(vertices), len(vertices))).tocsr()
    return np.asarray(dijkstra(graph, directed=False, indices=sources, limit=reach, min_only=True))
