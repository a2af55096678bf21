"""The lip seam: which vertices face each other, how far lips overlap, how strongly expressions may part them."""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from flame_fitting.maths.normals import vertex_normals
from open_head.mesh import boundary_edges, chain, unique_edges


def geodesic(vertices: np.ndarray, faces: np.ndarray, sources: np.ndarray, limit: float = np.inf) -> np.ndarray:
    """Distance along edges (V,) from the nearest source vertex, inf beyond limit."""
    edges = unique_edges(faces)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    graph = csr_matrix((length, (edges[:, 0], edges[:, 1])), shape=(len(vertices),) * 2)
    return dijkstra(graph, directed=False, indices=sources, min_only=True, limit=limit)


class LipSeam:
    """Upper and lower lip around the line where they meet."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, cavity: np.ndarray) -> None:
        self.ring = chain(boundary_edges(faces[cavity == 1]))
        ring_points = vertices[self.ring]
        left, right = ring_points[:, 0].argmax(), ring_points[:, 0].argmin()
        self.corners = np.array([self.ring[left], self.ring[right]])
        one = np.take(self.ring, np.arange(left + 1, left + (right - left) % len(self.ring)), mode="wrap")
        two = np.take(self.ring, np.arange(right + 1, right + (left - right) % len(self.ring)), mode="wrap")
        upper_first = self._mean_height(vertices, faces, one) > self._mean_height(vertices, faces, two)
        self.ring_upper, self.ring_lower = (one, two) if upper_first else (two, one)
        # lip sides: nearest ring half along the surface, with the corners as walls
        walls = np.isin(faces, self.corners).any(1)
        self.distance_upper = geodesic(vertices, faces[~walls], self.ring_upper, 0.04)
        self.distance_lower = geodesic(vertices, faces[~walls], self.ring_lower, 0.04)
        self.upper = np.flatnonzero((self.distance_upper < 0.012) & (self.distance_upper < self.distance_lower))
        self.lower = np.flatnonzero((self.distance_lower < 0.012) & (self.distance_lower < self.distance_upper))
        # vertices beside the corners lie behind the other lip without touching it
        depth = self._depths(vertices, faces, self.upper)
        inner = np.abs(vertices[self.upper, 0]) < np.abs(vertices[self.corners, 0]).min() - 0.0015
        self.tested = self.upper[inner & (depth < 0.0002)]

    @staticmethod
    def _mean_height(vertices: np.ndarray, faces: np.ndarray, ids: np.ndarray) -> float:
        """Mean height of what lies two rings around ids: the ring halves themselves touch."""
        for _ in range(3):
            ids = np.unique(faces[np.isin(faces, ids).any(1)])
        return float(vertices[ids, 1].mean())

    def overlap(self, vertices: np.ndarray, faces: np.ndarray) -> float:
        """How deep the upper lip dips into the lower one, metres."""
        return float(self._depths(vertices, faces, self.tested).max(initial=0.0))

    def _depths(self, vertices: np.ndarray, faces: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Depth of upper-lip vertices below the smooth surface of the lower lip, 0 where not below it."""
        normal = vertex_normals(vertices, faces)
        patch = faces[np.isin(faces, self.lower).all(1)]
        steps = np.array([(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]) / 4.0
        samples = np.einsum("sk,fkc->fsc", steps, vertices[patch]).reshape(-1, 3)
        directions = np.einsum("sk,fkc->fsc", steps, normal[patch]).reshape(-1, 3)
        distance, nearest = cKDTree(samples).query(vertices[ids])
        depth = -((vertices[ids] - samples[nearest]) * directions[nearest]).sum(1)
        # a true dip lies along the normal; what is beside the patch does not
        return np.where((distance < 0.010) & (depth > 0.7 * distance), depth, 0)

    def parting(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of facing ring vertices: for each upper ring vertex the lower one at the same place along the mouth."""
        nearest = cKDTree(vertices[self.ring_lower][:, :1]).query(vertices[self.ring_upper][:, :1])[1]
        return self.ring_upper, self.ring_lower[nearest]

    def soften(self, vertices: np.ndarray, displacement: np.ndarray, keep: float, reach: float = 0.016) -> np.ndarray:
        """Displacements (B, V, 3) whose parting of the lips is scaled by keep, fading out over reach.

        A linear basis has both signs of every direction: what parts the lips far also pushes them far into each other.
        """
        upper, lower = self.parting(vertices)
        order = np.argsort(vertices[upper, 0])
        upper, lower = upper[order], lower[order]
        stations = vertices[upper, 0]
        out = displacement.copy()
        # up and down counts in full, back and forth by half
        for axis, kept in ((1, keep), (2, 0.5 * (1 + keep))):
            part = displacement[:, upper, axis] - displacement[:, lower, axis]
            for side, distance in ((1.0, self.distance_upper), (-1.0, self.distance_lower)):
                closer = self.distance_upper <= self.distance_lower
                ids = np.flatnonzero((closer if side > 0 else ~closer) & (distance < reach))
                fade = np.cos(np.pi / 2 * distance[ids] / reach) ** 2
                place = np.clip(np.searchsorted(stations, vertices[ids, 0]), 1, len(stations) - 1)
                step = stations[place] - stations[place - 1] + 1e-9
                share = np.clip((vertices[ids, 0] - stations[place - 1]) / step, 0, 1)
                local = part[:, place - 1] * (1 - share) + part[:, place] * share
                out[:, ids, axis] -= side * 0.5 * (1 - kept) * fade * local
        return out
