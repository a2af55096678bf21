"""Nearest points on a triangle mesh, for few points.

`no_type_check` keeps the tests' run-time type checker from wrapping what Numba has to compile.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit
from numpy import ndarray


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


@njit(cache=True)
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
            u, v, w = _closest(p, corners[f])
            s = 0.0
            for k in range(3):
                s += (u * corners[f, 0, k] + v * corners[f, 1, k] + w * corners[f, 2, k] - p[k]) ** 2
            d = np.sqrt(s)
            if d < distance[i]:
                distance[i], face[i] = d, f
                barycentric[i, 0], barycentric[i, 1], barycentric[i, 2] = u, v, w
    return face, barycentric, distance


@njit(cache=True)
@no_type_check
def _closest(p, triangle):
    """Barycentric coordinates of the triangle's point nearest to p (Ericson, Real-Time Collision Detection, 5.1.5)."""
    a, b, c = triangle[0], triangle[1], triangle[2]
    ab, ac, ap = b - a, c - a, p - a
    d1, d2 = ab @ ap, ac @ ap
    if d1 <= 0 and d2 <= 0:
        return 1.0, 0.0, 0.0
    bp = p - b
    d3, d4 = ab @ bp, ac @ bp
    if d3 >= 0 and d4 <= d3:
        return 0.0, 1.0, 0.0
    vc = d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0 and d1 > d3:
        t = d1 / (d1 - d3)
        return 1 - t, t, 0.0
    cp = p - c
    d5, d6 = ab @ cp, ac @ cp
    if d6 >= 0 and d5 <= d6:
        return 0.0, 0.0, 1.0
    vb = d5 * d2 - d1 * d6
    if vb <= 0 and d2 >= 0 and d6 <= 0 and d2 > d6:
        t = d2 / (d2 - d6)
        return 1 - t, 0.0, t
    va = d3 * d6 - d5 * d4
    if va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0 and (d4 - d3) + (d5 - d6) > 0:
        t = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        return 0.0, 1 - t, t
    total = va + vb + vc
    if total <= 0:
        return 1.0, 0.0, 0.0
    return va / total, vb / total, vc / total
