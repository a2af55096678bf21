"""Vertex normals that survive seams, triangle soups and mixed winding."""

import numpy as np
from jaxtyping import Float, Int

from flame_fitting.maths.normals import face_normals


def weld(positions: Float[np.ndarray, "V C"], tolerance: float = 0.0) -> tuple[np.ndarray, Int[np.ndarray, " V"]]:
    """Groups equal rows (equal after rounding to `tolerance` where that is > 0).

    Returns the first row of each group (G,) and the group of every row (V,).
    """
    keys = np.round(positions / tolerance) if tolerance > 0 else positions + 0.0  # -0.0 equals 0.0
    keys = np.ascontiguousarray(keys)
    order = np.lexsort(keys.T)
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    label = np.empty(len(keys), dtype=np.int64)
    label[order] = np.cumsum(new) - 1
    # Groups in the order of their first row, so that welding a clean mesh changes nothing.
    first = np.full(int(label.max()) + 1 if len(label) else 0, len(keys), dtype=np.int64)
    np.minimum.at(first, label, np.arange(len(keys)))
    rank = np.argsort(first)
    position = np.empty_like(rank)
    position[rank] = np.arange(len(rank))
    return first[rank], position[label]


def angle_weighted_normals(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "V 3"]:
    """Angle-weighted normals (Thuermer and Wuethrich, 1998) over coincident vertices; zero where there is no face.

    Where the faces around a point cancel out (mixed winding, double-sided sheets), the main axis of their normals
    is taken instead: its sign is arbitrary, which a renderer that turns normals to the camera does not notice.
    """
    first, label = weld(vertices)
    corners = label[faces]
    normals, _ = face_normals(vertices, faces)
    triangle = vertices[faces]
    total = np.zeros((len(first), 3))
    weight = np.zeros(len(first))
    angles = np.empty(faces.shape)
    for k in range(3):
        one = triangle[:, (k + 1) % 3] - triangle[:, k]
        two = triangle[:, (k + 2) % 3] - triangle[:, k]
        scale = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        cosine = np.einsum("fc,fc->f", one, two) / np.where(scale > 0, scale, 1.0)
        angles[:, k] = np.where(scale > 0, np.arccos(np.clip(cosine, -1.0, 1.0)), 0.0)
        weight += np.bincount(corners[:, k], angles[:, k], len(first))
        for axis in range(3):
            total[:, axis] += np.bincount(corners[:, k], angles[:, k] * normals[:, axis], len(first))
    length = np.linalg.norm(total, axis=1)
    out = total / np.where(length > 1e-12, length, 1.0)[:, None]
    unclear = length < 0.5 * weight
    if unclear.any():
        out[unclear] = _main_axes(normals, corners, angles, unclear)
    return out[label]


def _main_axes(normals: np.ndarray, corners: np.ndarray, angles: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    row = np.cumsum(chosen) - 1
    scatter = np.zeros((int(chosen.sum()), 3, 3))
    for k in range(3):
        here = chosen[corners[:, k]]
        outer = np.einsum("f,fa,fb->fab", angles[here, k], normals[here], normals[here])
        np.add.at(scatter, row[corners[here, k]], outer)
    return np.linalg.eigh(scatter)[1][:, :, 2]
