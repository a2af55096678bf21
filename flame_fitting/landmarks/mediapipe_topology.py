"""The 478-point face mesh: its triangles, and which points face the camera.

Left and right are the subject's own. Triangles are derived from the mesh's edges, which come with mediapipe.
"""

from collections import Counter
from functools import lru_cache
from itertools import combinations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.landmarks.schemes import SCHEMES
from flame_fitting.maths.normals import vertex_area_vectors

_GROUPS = SCHEMES["mediapipe478"].groups

N_MESH_POINTS = 468

# Eye corners outer to inner.
RIGHT_EYE = (33, 133)
LEFT_EYE = (263, 362)
FOREHEAD_TOP = 10
CHIN = 152
_IRIS_SUPPORT = {"right_iris": (33, 133, 159, 145), "left_iris": (263, 362, 386, 374)}
"""Points around each eye that an iris faces the camera with."""


@lru_cache(maxsize=1)
def triangles() -> ndarray:
    """(F, 3) int64, consistently wound: counter-clockwise seen from outside with x right and y up."""
    from mediapipe.tasks.python.vision import FaceLandmarksConnections

    neighbours: list[set[int]] = [set() for _ in range(N_MESH_POINTS)]
    for edge in FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION:
        neighbours[edge.start].add(edge.end)
        neighbours[edge.end].add(edge.start)
    cycles = {
        tuple(sorted((a, b, c)))
        for a in range(N_MESH_POINTS)
        for b in neighbours[a]
        if b > a
        for c in neighbours[a] & neighbours[b]
    }
    # A ring of three edges around a vertex is no triangle of the mesh: each of its edges has two others beside it.
    count = Counter(edge for cycle in cycles for edge in combinations(cycle, 2))
    real = [cycle for cycle in sorted(cycles) if not all(count[edge] > 2 for edge in combinations(cycle, 2))]
    return _wound_alike(real)


def _wound_alike(faces: list[tuple[int, ...]]) -> ndarray:
    by_edge: dict[tuple[int, int], list[int]] = {}
    for i, face in enumerate(faces):
        for edge in combinations(face, 2):
            by_edge.setdefault((edge[0], edge[1]), []).append(i)
    # Seed: the bridge of the nose; 6 is its middle, 197 below it, 122 on its right side (subject's).
    seed = next(i for i, face in enumerate(faces) if {6, 197} <= set(face) and set(face) & {196, 122})
    third = next(iter(set(faces[seed]) - {6, 197}))
    wound: dict[int, tuple[int, int, int]] = {seed: (6, third, 197)}
    queue = [seed]
    while queue:
        current = wound[queue.pop()]
        for k in range(3):
            a, b = current[k], current[(k + 1) % 3]
            pair = by_edge[min(a, b), max(a, b)]
            for other in pair:
                if other not in wound:
                    c = next(iter(set(faces[other]) - {a, b}))
                    wound[other] = (b, a, c)
                    queue.append(other)
    return np.array([wound[i] for i in sorted(wound)], dtype=np.int64)


def normals(points: Float[ndarray, "478 3"]) -> Float[ndarray, "478 3"]:
    """Unit outward normals of detected points (x right, y down, z away from the camera, one unit)."""
    out = vertex_area_vectors(points, triangles())
    for iris, support in _IRIS_SUPPORT.items():
        out[_GROUPS[iris]] = out[list(support)].mean(0)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def visibility(points: Float[ndarray, "478 3"]) -> Float[ndarray, " 478"]:
    """How far each point's surface faces the camera, 0.05 (turned away) to 1 (within about 60 degrees)."""
    facing = -normals(points)[:, 2]
    return np.clip((facing + 0.1) / 0.6, 0.05, 1.0)
