"""Triangles of one mesh that pass through each other."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

_CHUNK = 2_000_000  # pairs looked at at once
_TOUCH = 1e-9  # share of an edge at its ends that may touch a triangle


def crossing_pairs(
    vertices: Float[ndarray, "V 3"],
    faces: Int[ndarray, "F 3"],
    first: Int[ndarray, " A"] | None = None,
    second: Int[ndarray, " B"] | None = None,
) -> Int[ndarray, "P 2"]:
    """Pairs of ids, smaller first, of triangles that pass through each other: one of `first`, one of `second`.

    Two triangles do where an edge of one goes through the other (Moeller and Trumbore, "Fast, minimum storage
    ray/triangle intersection", 1997, with the ray cut to the edge). Those that share a vertex, only touch, or lie in
    one plane do not count. None stands for all triangles.
    """
    everything = np.arange(len(faces))
    first = everything if first is None else np.unique(first)
    second = everything if second is None else np.unique(second)
    corners = np.asarray(vertices, dtype=np.float64)[faces]
    found = [np.zeros((0, 2), dtype=np.int64)]
    for pairs in _overlapping_boxes(corners, first, second):
        one, other = faces[pairs[:, 0]], faces[pairs[:, 1]]
        pairs = pairs[~(one[:, :, None] == other[:, None, :]).any(axis=(1, 2))]
        one, other = corners[pairs[:, 0]], corners[pairs[:, 1]]
        crossing = np.zeros(len(pairs), dtype=bool)
        for k in range(3):
            crossing |= _goes_through(one[:, k], one[:, k - 1], other)
            crossing |= _goes_through(other[:, k], other[:, k - 1], one)
        found.append(np.sort(pairs[crossing], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def self_intersections(
    vertices: Float[ndarray, "V 3"],
    faces: Int[ndarray, "F 3"],
    first: Int[ndarray, " A"] | None = None,
    second: Int[ndarray, " B"] | None = None,
) -> Bool[ndarray, " F"]:
    """Which triangles of `first` pass through one of `second` that shares no vertex; ids, None for all triangles."""
    out, chosen = np.zeros(len(faces), dtype=bool), np.zeros((2, len(faces)), dtype=bool)
    for mask, ids in zip(chosen, (first, second), strict=True):
        mask[slice(None) if ids is None else ids] = True
    pairs = crossing_pairs(vertices, faces, first, second)
    for a, b in (pairs.T, pairs[:, ::-1].T):
        out[a[chosen[0, a] & chosen[1, b]]] = True
    return out


def _overlapping_boxes(corners: ndarray, first: ndarray, second: ndarray) -> Iterator[ndarray]:
    """Pairs (P, 2) of triangles whose bounding boxes overlap, in portions: a sweep along one axis."""
    low, high = np.ascontiguousarray(corners.min(axis=1).T), np.ascontiguousarray(corners.max(axis=1).T)
    axis = int(np.argmax(high.max(axis=1) - low.min(axis=1))) if len(corners) else 0
    rest = [k for k in range(3) if k != axis]
    first = first[np.argsort(low[axis][first], kind="stable")]
    second = second[np.argsort(low[axis][second], kind="stable")]
    # each pair is found from the triangle that begins lower, within one set from either
    sweeps = [(first, second, "left"), (second, first, "right")]
    for sweeping, met, side in sweeps[:1] if np.array_equal(first, second) else sweeps:
        begins = low[axis][met]
        start = np.searchsorted(begins, low[axis][sweeping], side=side)  # type: ignore[call-overload]
        count = np.searchsorted(begins, high[axis][sweeping], side="right") - start
        portion = (np.cumsum(count) - 1) // _CHUNK
        for number in np.unique(portion):
            here = np.flatnonzero(portion == number)
            n = count[here]
            a = np.repeat(sweeping[here], n)
            b = met[np.repeat(start[here] - np.cumsum(n) + n, n) + np.arange(len(a))]
            for k in rest:
                meet = np.flatnonzero((low[k][a] <= high[k][b]) & (low[k][b] <= high[k][a]))
                a, b = a[meet], b[meet]
            yield np.stack([a, b], axis=1)[a != b]


def _goes_through(start: ndarray, end: ndarray, triangle: ndarray) -> Bool[ndarray, " N"]:
    """Whether the edge from `start` (N, 3) to `end` passes through `triangle` (N, 3, 3)."""
    edge, one, two = end - start, triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]
    p = np.cross(edge, two)
    determinant = _dot(one, p)
    scale = np.linalg.norm(edge, axis=1) * np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    upright = np.abs(determinant) > 1e-12 * scale  # neither along the plane nor without area
    inverse = np.divide(1.0, determinant, out=np.zeros_like(determinant), where=upright)
    away = start - triangle[:, 0]
    q = np.cross(away, one)
    u, v, along = inverse * _dot(away, p), inverse * _dot(edge, q), inverse * _dot(two, q)
    inside = (u >= 0) & (v >= 0) & (u + v <= 1)
    return upright & inside & (along > _TOUCH) & (along < 1 - _TOUCH)


def _dot(a: ndarray, b: ndarray) -> ndarray:
    return np.einsum("nc,nc->n", a, b)
