"""The 478-point face mesh: triangles, mirror twins, groups, and which points face the camera.

Points 0..467 lie on the face, 468..472 on the subject's right iris, 473..477 on the left one (centre first). Left and
right are the subject's own. Triangles are derived from the mesh's edges, which come with mediapipe.
"""

from collections import Counter
from functools import lru_cache
from itertools import combinations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.maths.normals import vertex_area_vectors

N_POINTS = 478
N_MESH_POINTS = 468

# Eye corners outer to inner.
RIGHT_EYE = (33, 133)
LEFT_EYE = (263, 362)
FOREHEAD_TOP = 10
CHIN = 152
RIGHT_IRIS = tuple(range(468, 473))
LEFT_IRIS = tuple(range(473, 478))
# Around the face from the top of the forehead, first down the subject's left side.
OUTLINE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip

MIDLINE = (
    0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 94, 151, 152, 164, 168, 175, 195, 197, 199, 200,
)  # fmt: skip
# Twins on the left of the points 0..247 that are not on the mid-line (all on the right), in ascending order. Found by
# matching detections on renders of heads with those on the same renders mirrored.
_TWINS_OF_RIGHT = (
    248, 249, 250, 251, 252, 253, 254, 255, 256, 257, 258, 259, 260, 261, 262, 263, 264, 265, 266, 267, 268,
    269, 270, 271, 272, 273, 274, 275, 276, 277, 278, 279, 280, 281, 282, 283, 284, 285, 286, 287, 288, 289,
    290, 291, 292, 293, 294, 295, 296, 297, 298, 299, 300, 301, 302, 303, 304, 305, 306, 307, 308, 309, 310,
    311, 312, 313, 314, 315, 316, 317, 318, 319, 320, 321, 322, 323, 324, 325, 326, 327, 328, 329, 330, 331,
    332, 333, 334, 335, 336, 337, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 348, 349, 350, 351, 352,
    353, 354, 355, 356, 357, 358, 359, 360, 361, 362, 363, 364, 365, 366, 367, 368, 369, 370, 371, 372, 373,
    374, 375, 376, 377, 378, 379, 380, 381, 382, 383, 384, 385, 386, 387, 388, 389, 390, 391, 392, 393, 394,
    395, 396, 397, 398, 399, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415,
    416, 417, 418, 419, 420, 421, 422, 423, 424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 435, 436,
    437, 438, 439, 440, 441, 442, 443, 444, 445, 446, 447, 448, 449, 450, 451, 452, 453, 454, 455, 456, 457,
    458, 459, 460, 461, 462, 463, 464, 465, 466, 467,
)  # fmt: skip


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


@lru_cache(maxsize=1)
def mirror_permutation() -> ndarray:
    """(478,): the landmark that point i becomes in a mirrored picture; its own inverse."""
    out = np.arange(N_POINTS)
    right = np.setdiff1d(np.arange(len(_TWINS_OF_RIGHT) + len(MIDLINE)), MIDLINE)
    out[right] = _TWINS_OF_RIGHT
    out[list(_TWINS_OF_RIGHT)] = right
    # Irises: centre, then four rim points; a mirror swaps the two sideways ones.
    out[468:478] = (473, 476, 475, 474, 477, 468, 471, 470, 469, 472)
    return out


@lru_cache(maxsize=1)
def _iris_support() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(RIGHT_IRIS, (33, 133, 159, 145)), (LEFT_IRIS, (263, 362, 386, 374))]


def normals(points: Float[ndarray, "478 3"]) -> Float[ndarray, "478 3"]:
    """Unit outward normals of detected points (x right, y down, z away from the camera, one unit)."""
    out = vertex_area_vectors(points, triangles())
    for iris, support in _iris_support():
        out[list(iris)] = out[list(support)].mean(0)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def visibility(points: Float[ndarray, "478 3"]) -> Float[ndarray, " 478"]:
    """How far each point's surface faces the camera, 0.05 (turned away) to 1 (within about 60 degrees)."""
    facing = -normals(points)[:, 2]
    return np.clip((facing + 0.1) / 0.6, 0.05, 1.0)
