"""Closest points on a triangle mesh, exactly: with a tree of bounding boxes, or one by one for few points."""

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

_LEAF = 4
_DEPTH = 64

# @no_type_check: the shape checks of the tests must not wrap what Numba compiles.


@dataclass(frozen=True, eq=False)
class ClosestPoints:
    """What `TriangleTree.closest` finds for N points."""

    distance: Float[ndarray, " N"]
    face: Int[ndarray, " N"]
    point: Float[ndarray, "N 3"]
    barycentric: Float[ndarray, "N 3"]


class TriangleTree:
    """Search tree over the triangles of a mesh."""

    def __init__(self, vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> None:
        corners = np.asarray(vertices, dtype=np.float64)[faces]
        if len(corners) == 0:
            raise ValueError("a search tree needs at least one triangle")
        # Around the origin and of size 1: the search multiplies four lengths, whatever the unit.
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        self._center, size = 0.5 * low + 0.5 * high, float((high - low).max())
        self._size = size if size > 0 else 1.0
        self._corners = np.ascontiguousarray((corners - self._center) / self._size)
        self._tree = _build(self._corners.min(axis=1), self._corners.max(axis=1), self._corners.mean(axis=1))

    def distance(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, " N"]:
        """Distance of each of the points, which must be finite, to the closest triangle."""
        return self.closest(points).distance

    def closest(self, points: Float[ndarray, "N 3"]) -> ClosestPoints:
        """The closest point of the mesh to each of the points, which must be finite."""
        queries = np.ascontiguousarray((np.asarray(points, dtype=np.float64) - self._center) / self._size)
        if not np.isfinite(queries).all():
            raise ValueError("closest points are asked for points that are not finite")
        face = np.empty(len(queries), dtype=np.int64)
        barycentric = np.empty((len(queries), 3))
        _query(queries, self._corners, *self._tree, face, barycentric)
        found = np.einsum("nk,nkc->nc", barycentric, self._corners[face])
        distance = np.linalg.norm(queries - found, axis=1) * self._size
        return ClosestPoints(distance, face, found * self._size + self._center, barycentric)


def closest_on(points: Float[ndarray, "N 3"], corners: Float[ndarray, "N 3 3"]) -> Float[ndarray, "N 3"]:
    """Barycentric coordinates of the point of a triangle of its own that is closest to each point."""
    out = np.empty((len(points), 3))
    _on_each(np.asarray(points, dtype=np.float64), np.asarray(corners, dtype=np.float64), out)
    return out


def nearest_on_surface(
    points: Float[ndarray, "N 3"],
    vertices: Float[ndarray, "V 3"],
    faces: Int[ndarray, "F 3"],
    allowed: Bool[ndarray, "#N F"] | None = None,
) -> tuple[Int[ndarray, " N"], Float[ndarray, "N 3"], Float[ndarray, " N"]]:
    """Triangle, barycentric coordinates and distance of the surface point nearest to each point.

    Exhaustive over the triangles (of the `allowed` ones; one row may serve all points). Triangle -1 where no triangle
    is allowed or the point is not finite.
    """
    corners = np.ascontiguousarray(np.asarray(vertices, dtype=np.float64)[faces])
    mask = np.ones((1, len(faces)), dtype=np.bool_) if allowed is None else np.asarray(allowed, dtype=np.bool_)
    return _nearest(np.ascontiguousarray(points, dtype=np.float64), corners, mask)


@numba.njit(cache=True)
@no_type_check
def _build(low, high, center):
    """Nodes (low, high, first child or start, leaf count) over triangles, split at the middle of the widest axis."""
    count = len(center)
    order = np.arange(count)
    node_low = np.empty((2 * count, 3))
    node_high = np.empty((2 * count, 3))
    node_first = np.empty(2 * count, dtype=np.int64)
    node_count = np.zeros(2 * count, dtype=np.int64)
    work = np.empty((2 * count, 3), dtype=np.int64)  # node, start, end
    work[0, 0], work[0, 1], work[0, 2] = 0, 0, count
    pending, nodes = 1, 1
    while pending > 0:
        pending -= 1
        node, start, end = work[pending, 0], work[pending, 1], work[pending, 2]
        for axis in range(3):
            a, b = np.inf, -np.inf
            for i in range(start, end):
                a = min(a, low[order[i], axis])
                b = max(b, high[order[i], axis])
            node_low[node, axis], node_high[node, axis] = a, b
        if end - start <= _LEAF:
            node_first[node], node_count[node] = start, end - start
            continue
        best_axis, best_span, middle = 0, -1.0, 0.0
        for axis in range(3):
            a, b = np.inf, -np.inf
            for i in range(start, end):
                a = min(a, center[order[i], axis])
                b = max(b, center[order[i], axis])
            if b - a > best_span:
                best_axis, best_span, middle = axis, b - a, 0.5 * (a + b)
        split = start
        for i in range(start, end):
            if center[order[i], best_axis] < middle:
                order[i], order[split] = order[split], order[i]
                split += 1
        if split in (start, end):  # centres in one place: halve the list
            split = (start + end) // 2
        node_first[node] = nodes
        work[pending, 0], work[pending, 1], work[pending, 2] = nodes, start, split
        work[pending + 1, 0], work[pending + 1, 1], work[pending + 1, 2] = nodes + 1, split, end
        pending += 2
        nodes += 2
    return (
        order,
        node_low[:nodes].copy(),
        node_high[:nodes].copy(),
        node_first[:nodes].copy(),
        node_count[:nodes].copy(),
    )


@numba.njit(cache=True)
@no_type_check
def _box_distance(point, low, high):
    total = 0.0
    for axis in range(3):
        outside = max(low[axis] - point[axis], point[axis] - high[axis], 0.0)
        total += outside * outside
    return total


@numba.njit(cache=True)
@no_type_check
def _on_triangle(p, a, b, c):
    """Barycentric coordinates of the closest point of a triangle (Ericson, Real-Time Collision Detection, 5.1.5).

    Rounding can lead a triangle without area into a branch for a side of no length: then any point of it is the one.
    """
    abx, aby, abz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    acx, acy, acz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    d1 = abx * (p[0] - a[0]) + aby * (p[1] - a[1]) + abz * (p[2] - a[2])
    d2 = acx * (p[0] - a[0]) + acy * (p[1] - a[1]) + acz * (p[2] - a[2])
    if d1 <= 0 and d2 <= 0:
        return 1.0, 0.0, 0.0
    d3 = abx * (p[0] - b[0]) + aby * (p[1] - b[1]) + abz * (p[2] - b[2])
    d4 = acx * (p[0] - b[0]) + acy * (p[1] - b[1]) + acz * (p[2] - b[2])
    if d3 >= 0 and d4 <= d3:
        return 0.0, 1.0, 0.0
    vc = d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0:
        t = d1 / (d1 - d3) if d1 > d3 else 0.0
        return 1.0 - t, t, 0.0
    d5 = abx * (p[0] - c[0]) + aby * (p[1] - c[1]) + abz * (p[2] - c[2])
    d6 = acx * (p[0] - c[0]) + acy * (p[1] - c[1]) + acz * (p[2] - c[2])
    if d6 >= 0 and d5 <= d6:
        return 0.0, 0.0, 1.0
    vb = d5 * d2 - d1 * d6
    if vb <= 0 and d2 >= 0 and d6 <= 0:
        t = d2 / (d2 - d6) if d2 > d6 else 0.0
        return 1.0 - t, 0.0, t
    va = d3 * d6 - d5 * d4
    if va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        side = (d4 - d3) + (d5 - d6)
        t = (d4 - d3) / side if side > 0.0 else 0.0
        return 0.0, 1.0 - t, t
    total = va + vb + vc
    if total <= 0:  # no area
        return 1.0, 0.0, 0.0
    return va / total, vb / total, vc / total


@numba.njit(cache=True)
@no_type_check
def _on_each(points, corners, out):
    for n in range(len(points)):
        out[n, 0], out[n, 1], out[n, 2] = _on_triangle(points[n], corners[n, 0], corners[n, 1], corners[n, 2])


@numba.njit(cache=True, parallel=True)
@no_type_check
def _query(points, corners, order, low, high, first, count, face, barycentric):
    for n in numba.prange(len(points)):
        p = points[n]
        stack = np.empty(_DEPTH * 4, dtype=np.int64)
        bound = np.empty(_DEPTH * 4)
        stack[0], bound[0] = 0, _box_distance(p, low[0], high[0])
        size, best = 1, np.inf
        while size > 0:
            size -= 1
            node = stack[size]
            if bound[size] >= best:
                continue
            if count[node] > 0:
                for i in range(first[node], first[node] + count[node]):
                    f = order[i]
                    u, v, w = _on_triangle(p, corners[f, 0], corners[f, 1], corners[f, 2])
                    squared = 0.0
                    for axis in range(3):
                        q = u * corners[f, 0, axis] + v * corners[f, 1, axis] + w * corners[f, 2, axis]
                        squared += (p[axis] - q) ** 2
                    if squared < best:
                        best, face[n] = squared, f
                        barycentric[n, 0], barycentric[n, 1], barycentric[n, 2] = u, v, w
                continue
            near, far = first[node], first[node] + 1
            near_bound, far_bound = _box_distance(p, low[near], high[near]), _box_distance(p, low[far], high[far])
            if far_bound < near_bound:
                near, far, near_bound, far_bound = far, near, far_bound, near_bound
            if far_bound < best:
                stack[size], bound[size] = far, far_bound
                size += 1
            if near_bound < best:
                stack[size], bound[size] = near, near_bound
                size += 1


@numba.njit(cache=True)
@no_type_check
def _nearest(points, corners, allowed):
    count = len(points)
    face = np.full(count, -1, dtype=np.int64)
    barycentric = np.zeros((count, 3))
    distance = np.full(count, np.inf)
    middle = np.empty((len(corners), 3))
    radius = np.empty(len(corners))
    for f in range(len(corners)):
        for k in range(3):
            middle[f, k] = (corners[f, 0, k] + corners[f, 1, k] + corners[f, 2, k]) / 3
        r = 0.0
        for j in range(3):
            s = 0.0
            for k in range(3):
                s += (corners[f, j, k] - middle[f, k]) ** 2
            r = max(r, s)
        radius[f] = np.sqrt(r)
    for i in range(count):
        p = points[i]
        if not np.isfinite(p.sum()):
            continue
        row = allowed[i if len(allowed) > 1 else 0]
        for f in range(len(corners)):
            if not row[f]:
                continue
            to_middle = np.sqrt((p[0] - middle[f, 0]) ** 2 + (p[1] - middle[f, 1]) ** 2 + (p[2] - middle[f, 2]) ** 2)
            if to_middle - radius[f] > distance[i]:
                continue
            u, v, w = _on_triangle(p, corners[f, 0], corners[f, 1], corners[f, 2])
            s = 0.0
            for k in range(3):
                s += (u * corners[f, 0, k] + v * corners[f, 1, k] + w * corners[f, 2, k] - p[k]) ** 2
            d = np.sqrt(s)
            if d < distance[i]:
                distance[i], face[i] = d, f
                barycentric[i, 0], barycentric[i, 1], barycentric[i, 2] = u, v, w
    return face, barycentric, distance
