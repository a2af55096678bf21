"""What is asked of every texture layout."""

import numpy as np

from flame_fitting.head.flat_map import signed_areas


def coverage(uv: np.ndarray, uv_faces: np.ndarray, size: int) -> np.ndarray:
    """How many triangles (size, size) cover each texel's centre, by edge functions; shared edges count once."""
    out = np.zeros((size, size), dtype=np.int64)
    # Off the grid of layouts, so that no centre lies on an edge.
    shift = np.array([0.5031, 0.5017])
    for triangle in uv[uv_faces].astype(np.float64) * size - shift:
        low = np.maximum(np.ceil(triangle.min(0)).astype(int), 0)
        high = np.minimum(np.floor(triangle.max(0)).astype(int) + 1, size)
        if (high <= low).any():
            continue
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        inside = np.ones(x.shape, dtype=bool)
        for k in range(3):
            (ax, ay), (bx, by) = triangle[k], triangle[(k + 1) % 3]
            inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0
        out[y[inside], x[inside]] += 1
    return out


def check_layout(uv: np.ndarray, uv_faces: np.ndarray, faces: np.ndarray, size: int = 512) -> None:
    """In the picture, not mirrored, nothing empty, nothing twice, and each texture vertex on one vertex of the mesh."""
    assert uv_faces.shape == faces.shape and uv_faces.max() == len(uv) - 1
    assert uv.min() >= 0 and uv.max() <= 1
    assert signed_areas(uv, uv_faces).min() > 1e-10
    assert coverage(uv, uv_faces, size).max() == 1
    owner = np.full(len(uv), -1)
    owner[uv_faces] = faces
    np.testing.assert_array_equal(owner[uv_faces], faces)
