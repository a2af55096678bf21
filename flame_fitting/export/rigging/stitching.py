"""Which vertices of a file are one point of its surface: meshes are doubled along seams, not only where they end."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.avatar.mesh import MeshPart, faces_of, vertices_of
from flame_fitting.avatar.normals import weld
from flame_fitting.head.mesh_graph import MeshGraph
from flame_fitting.maths.normals import face_normals, vertex_normals

_SAME = 1e-6
"""Of the avatar's size: vertices nearer than this stand in one place."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles whose vertices are one where the surface goes on."""

    vertices: Float[ndarray, "W 3"]
    faces: Int[ndarray, "F 3"]
    """Without those that have no area."""
    of_vertex: Int[ndarray, " V"]
    """The point of the surface that each vertex of the parts, one after the other, is."""

    @cached_property
    def graph(self) -> MeshGraph:
        """Its edges."""
        return MeshGraph(self.faces, len(self.vertices))

    @cached_property
    def component(self) -> Int[ndarray, " W"]:
        """Number of the connected component of each point."""
        return self.graph.component

    @cached_property
    def normals(self) -> Float[ndarray, "W 3"]:
        """Unit normals."""
        return vertex_normals(self.vertices, self.faces)


def stitched(parts: list[MeshPart], vertices: Float[ndarray, "V 3"] | None = None) -> Surface:
    """The parts as one surface; `vertices` stand in for theirs where they are given (another frame).

    Edges at which a part ends are sewn to one in the same place where they differ in part, texture coordinate, normal
    or colour: vertices are doubled for that. Edges that differ in nothing were cut on purpose, as lips may be (unless
    all triangles of a part stand alone). Inner vertices are never merged: shut lips may touch.
    """
    own = vertices_of(parts)
    faces = faces_of(parts)
    placed = own if vertices is None else np.asarray(vertices, dtype=np.float64)
    size = float(np.ptp(own, axis=0).max()) or 1.0
    _, place = weld(own, _SAME * size)
    kind = _kinds(parts, place)
    # triangles that are a line or a point join nothing
    solid = (place[faces] != place[np.roll(faces, 1, axis=1)]).all(axis=1)
    edges, owner = _open_edges(faces[solid])
    normals = face_normals(own, faces[solid])[0][owner]
    joined = _pairs(edges, place, kind, normals)
    root = _union(len(own), joined)
    first, label = np.unique(root, return_inverse=True)
    merged = label[faces]
    flat = (merged == np.roll(merged, 1, axis=1)).any(axis=1)
    return Surface(placed[first], merged[~flat], label)


def _kinds(parts: list[MeshPart], place: ndarray) -> Int[ndarray, " V"]:
    """Vertices of the same number differ in nothing; each has its own number where all triangles stand alone."""
    out, start, used = np.empty(len(place), dtype=np.int64), 0, 0
    for part in parts:
        count = len(part.vertices)
        here = slice(start, start + count)
        if len(part.faces) and count >= 3 * len(part.faces):
            label = np.arange(count)
        else:
            values = (part.normals, part.uv, part.vertex_colors)
            rows = [place[here, None].astype(np.float64), *(value for value in values if value is not None)]
            label = weld(np.concatenate(rows, axis=1))[1]
        out[here] = used + label
        start, used = start + count, used + count
    return out


def _open_edges(faces: ndarray) -> tuple[Int[ndarray, "E 2"], Int[ndarray, " E"]]:
    """Directed edges of one triangle only, and that triangle."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    owner = np.tile(np.arange(len(faces)), 3)
    _, inverse, count = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    alone = count[inverse.reshape(-1)] == 1
    return edges[alone], owner[alone]


def _pairs(edges: ndarray, place: ndarray, kind: ndarray, normals: ndarray) -> Int[ndarray, "P 2"]:
    """Pairs of vertices to merge: the ends of open edges that lie on each other."""
    if not len(edges):
        return np.zeros((0, 2), dtype=np.int64)
    at = place[edges]
    key = np.sort(at, axis=1)
    order = np.lexsort((key[:, 1], key[:, 0]))
    new = np.concatenate([[True], (key[order][1:] != key[order][:-1]).any(axis=1)])
    out: list[tuple[int, int]] = []
    for group in np.split(order, np.flatnonzero(new)[1:]):
        if len(group) < 2:
            continue
        # of several sheets that end in one place those go on into each other that bend least
        rows, columns = np.triu_indices(len(group), 1)
        bend = (normals[group[rows]] * normals[group[columns]]).sum(axis=1)
        taken: set[int] = set()
        for best in np.argsort(-bend, kind="stable"):
            a, b = int(group[rows[best]]), int(group[columns[best]])
            if a in taken or b in taken:
                continue
            turned = at[a, 0] != at[b, 0]
            ends = edges[b, ::-1] if turned else edges[b]
            if (kind[edges[a]] == kind[ends]).all():
                continue
            taken |= {a, b}
            out += [(int(edges[a, 0]), int(ends[0])), (int(edges[a, 1]), int(ends[1]))]
    return np.array(out, dtype=np.int64).reshape(-1, 2)


def _union(count: int, pairs: ndarray) -> Int[ndarray, " V"]:
    """The smallest vertex that each is merged with."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    label = connected_components(graph, directed=False)[1]
    smallest = np.full(int(label.max()) + 1 if count else 0, count, dtype=np.int64)
    np.minimum.at(smallest, label, np.arange(count))
    return smallest[label]
