"""Neighbourhood of a triangle mesh: components, open boundaries, rings."""

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

UNREACHED = np.iinfo(np.int64).max


class MeshGraph:
    """Edges of a mesh of `count` vertices; isolated vertices are components of their own."""

    def __init__(self, faces: Int[ndarray, "F 3"], count: int) -> None:
        self.faces, self.count = np.asarray(faces, dtype=np.int64).reshape(-1, 3), count

    @cached_property
    def edges(self) -> Int[ndarray, "E 2"]:
        """Undirected edges, once each."""
        f = self.faces
        both = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
        return np.unique(np.sort(both, axis=1), axis=0)

    @cached_property
    def component(self) -> Int[ndarray, " V"]:
        """Number of the connected component of each vertex."""
        return self.components_within(np.ones(self.count, dtype=bool))

    def components_within(self, mask: Bool[ndarray, " V"]) -> Int[ndarray, " V"]:
        """Components of the mesh without its vertices outside the mask."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        edges = self.edges[mask[self.edges].all(1)]
        graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(self.count, self.count))
        return connected_components(graph, directed=False)[1].astype(np.int64)

    @cached_property
    def boundary_loops(self) -> list[Int[ndarray, " n"]]:
        """Open boundaries as closed walks of vertices, in the direction of their triangles' edges."""
        f = self.faces
        directed = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
        key, twin = directed @ [self.count, 1], directed[:, ::-1] @ [self.count, 1]
        successor = dict(map(tuple, directed[~np.isin(key, twin)].tolist()))
        loops = []
        while successor:
            start, vertex = successor.popitem()
            walk = [start]
            while vertex != start and vertex in successor:
                walk.append(vertex)
                vertex = successor.pop(vertex)
            if vertex == start and len(walk) > 2:
                loops.append(np.array(walk))
        return loops

    def hops(self, ids: Int[ndarray, " n"], limit: int) -> Int[ndarray, " V"]:
        """Edges from each vertex to the nearest of `ids`; UNREACHED beyond `limit`."""
        out = np.full(self.count, UNREACHED)
        out[ids] = 0
        for ring in range(1, limit + 1):
            near = out[self.edges] == ring - 1
            touched = np.concatenate([self.edges[near[:, 0], 1], self.edges[near[:, 1], 0]])
            out[touched[out[touched] == UNREACHED]] = ring
        return out

    def edge_length(self, vertices: Float[ndarray, "V 3"]) -> Float[ndarray, " V"]:
        """Mean length of the edges at each vertex; 0 where there is none."""
        a, b = self.edges.T
        length = np.linalg.norm(vertices[a] - vertices[b], axis=1)
        return self._at_ends(length, length) / np.maximum(self.degree, 1)

    @cached_property
    def degree(self) -> Int[ndarray, " V"]:
        """Number of edges at each vertex."""
        return np.bincount(self.edges.ravel(), minlength=self.count)

    def _at_ends(self, first: ndarray, second: ndarray) -> ndarray:
        a, b = self.edges.T
        return np.bincount(a, first, self.count) + np.bincount(b, second, self.count)

    def filled(self, mask: Bool[ndarray, " V"], within: Bool[ndarray, " V"]) -> Bool[ndarray, " V"]:
        """The mask with its holes: what it cuts off from the largest piece of the rest of `within`."""
        rest = within & ~mask
        if not rest.any():
            return mask
        piece = self.components_within(rest)
        return mask | (rest & (piece != np.argmax(np.bincount(piece[rest]))))

    def majority(self, mask: Bool[ndarray, " V"], rounds: int) -> Bool[ndarray, " V"]:
        """Each vertex takes the side of most of its neighbours; a tie keeps it."""
        a, b = self.edges.T
        for _ in range(rounds):
            inside = self._at_ends(mask[b].astype(float), mask[a].astype(float))
            mask = np.where(2 * inside == self.degree, mask, 2 * inside > self.degree)
        return mask

    def cycle(self, mask: Bool[ndarray, " V"]) -> Int[ndarray, " n"] | None:
        """The vertices of the mask in order, if they form one closed chain of edges, else None."""
        edges = self.edges[mask[self.edges].all(1)]
        size = int(mask.sum())
        if size < 3 or len(edges) != size or (np.bincount(edges.ravel(), minlength=self.count)[mask] != 2).any():
            return None
        neighbours: dict[int, list[int]] = {}
        for a, b in edges.tolist():
            neighbours.setdefault(a, []).append(b)
            neighbours.setdefault(b, []).append(a)
        walk = [int(edges[0, 0])]
        previous = -1
        while len(walk) <= size:
            a, b = neighbours[walk[-1]]
            step = b if a == previous else a
            if step == walk[0]:
                break
            previous = walk[-1]
            walk.append(step)
        return np.array(walk) if len(walk) == size else None
