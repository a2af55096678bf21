"""Texture coordinates: one chart of the skin cut along the back of the head, and small charts for what is hidden.

Charts are Tutte embeddings (Tutte 1963: convex boundary, positive weights, so no triangle folds over) whose weights are
adapted for low stretch (Yoshizawa, Belyaev, Seidel 2004), with a texel density that is higher on the face.
"""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import spsolve

from open_head.mesh import boundary_edges, chain, unique_edges

EYEBALL_BOX = ((0.005, 0.004, 0.185), (0.195, 0.004, 0.185))
MOUTH_BOX = (0.395, 0.004, 0.185)
SOCKET_BOXES = ((0.60, 0.004, 0.13), (0.74, 0.004, 0.13))
SKIN_BOX = (0.004, 0.20, 0.992, 0.796)


def cut_along(faces: np.ndarray, path: np.ndarray, left_of_cut: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Double the path's vertices but the last (the tip); faces flagged left_of_cut take the doubles.

    Returns faces over corner ids and the vertex of each corner id.
    """
    n = faces.max() + 1
    double = {int(v): n + i for i, v in enumerate(path[:-1])}
    out = faces.copy()
    for f in np.flatnonzero(left_of_cut):
        out[f] = [double.get(int(v), int(v)) for v in faces[f]]
    return out, np.concatenate([np.arange(n), path[:-1]])


def tutte(
    vertices: np.ndarray,
    faces: np.ndarray,
    loop: np.ndarray,
    loop_uv: np.ndarray,
    density: np.ndarray,
    iterations: int = 12,
) -> np.ndarray:
    """Embedding (n, 2) of a disk-like mesh (holes are bridged), texel density (n,) relative."""
    holes = []
    edges_left = boundary_edges(faces)
    edges_left = edges_left[~np.isin(edges_left[:, 0], loop)]
    extra_faces, extra_points = [], []
    n = len(vertices)
    while len(edges_left):
        hole = chain(edges_left)
        center = n + len(extra_points)
        extra_points.append(vertices[hole].mean(0))
        extra_faces += [(b, a, center) for a, b in zip(hole, np.roll(hole, -1), strict=True)]
        holes.append(hole)
        edges_left = edges_left[~np.isin(edges_left[:, 0], hole)]
    if extra_points:
        vertices = np.concatenate([vertices, extra_points])
        faces = np.concatenate([faces, extra_faces])
        density = np.concatenate([density, [density[hole].mean() for hole in holes]])
    total = len(vertices)
    used = np.unique(faces)
    edges = unique_edges(faces)
    rows, cols = np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([edges[:, 1], edges[:, 0]])
    weights = 1 / np.maximum(np.linalg.norm(vertices[rows] - vertices[cols], axis=1), 1e-5)
    inner = np.setdiff1d(used, loop)
    best, best_value = None, np.inf
    for _ in range(iterations):
        matrix = sp.csr_matrix((weights, (rows, cols)), shape=(total, total))
        matrix = sp.diags(np.asarray(matrix.sum(1)).ravel()) - matrix
        uv = np.zeros((total, 2))
        uv[loop] = loop_uv
        uv[inner] = spsolve(matrix[inner][:, inner].tocsc(), -matrix[inner][:, loop] @ loop_uv)
        sigma, area = _stretch(vertices, faces, uv, density)
        value = float((sigma**2 * area).sum() / area.sum()) * float(np.abs(_area2(uv, faces)).sum())
        if value < best_value:
            best, best_value = uv, value
        per_vertex = np.bincount(faces.ravel(), np.repeat(sigma**2 * area, 3), minlength=total)
        per_vertex /= np.maximum(np.bincount(faces.ravel(), np.repeat(area, 3), minlength=total), 1e-20)
        sigma_vertex = np.sqrt(np.maximum(per_vertex, 1e-20))
        sigma_vertex /= np.median(sigma_vertex[used])
        weights = weights / np.clip(sigma_vertex[cols], 0.2, 5.0) ** 0.7
    assert best is not None
    return best[:n]


def _area2(uv: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b = uv[faces[:, 1]] - uv[faces[:, 0]], uv[faces[:, 2]] - uv[faces[:, 0]]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _stretch(
    vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, density: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """RMS stretch (F,) of the map from UV to the density-scaled surface, and the scaled area (F,)."""
    scale = density[faces].mean(1)
    corner = vertices[faces]
    e1, e2 = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    u1, u2 = uv[faces[:, 1]] - uv[faces[:, 0]], uv[faces[:, 2]] - uv[faces[:, 0]]
    det = u1[:, 0] * u2[:, 1] - u1[:, 1] * u2[:, 0]
    det = np.where(np.abs(det) < 1e-14, 1e-14, det)
    du = (e1 * u2[:, 1:2] - e2 * u1[:, 1:2]) / det[:, None]
    dv = (e2 * u1[:, 0:1] - e1 * u2[:, 0:1]) / det[:, None]
    sigma = np.sqrt(((du**2).sum(1) + (dv**2).sum(1)) / 2) * scale
    area = np.linalg.norm(np.cross(e1, e2), axis=1) / 2 * scale**2
    return sigma, area


def superellipse(count_points: np.ndarray, aspect: float, power: float = 6.0) -> np.ndarray:
    """Points at arc-length shares (n,) in 0..1 of a rounded rectangle, from the bottom middle counter-clockwise."""
    angle = np.linspace(-np.pi / 2, 1.5 * np.pi, 4001)
    c, s = np.cos(angle), np.sin(angle)
    curve = np.stack([aspect * np.sign(c) * np.abs(c) ** (2 / power), np.sign(s) * np.abs(s) ** (2 / power)], axis=1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    length /= length[-1]
    return np.stack([np.interp(count_points, length, curve[:, k]) for k in range(2)], axis=1)


def into_box(uv: np.ndarray, x: float, y: float, width: float, height: float) -> np.ndarray:
    low, high = uv.min(0), uv.max(0)
    return (uv - low) / (high - low) * [width, height] + [x, y]


def disk_chart(vertices: np.ndarray, faces: np.ndarray, box: tuple[float, float, float]) -> tuple[np.ndarray, ...]:
    """Chart of a disk-like patch: uv (n, 2) of its own vertices, faces over them, their vertex ids."""
    used = np.unique(faces)
    local = np.searchsorted(used, faces)
    loop = chain(boundary_edges(local))
    length = np.linalg.norm(vertices[used][loop] - vertices[used][np.roll(loop, -1)], axis=1)
    share = np.concatenate([[0], np.cumsum(length)[:-1]]) / length.sum()
    ring = np.stack([np.cos(2 * np.pi * share), np.sin(2 * np.pi * share)], axis=1)
    uv = tutte(vertices[used], local, loop, ring, np.ones(len(used)), 6)
    return into_box(uv, box[0], box[1], box[2], box[2]), local, used


def skin_chart(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chart of the outer skin (faces of it only): uv, faces over uv, vertex of each uv."""
    loop = max(_loops(faces), key=len_of(vertices))
    middle = np.abs(vertices[:, 0]) < 1e-6
    edges = unique_edges(faces)
    edges = edges[middle[edges].all(1)]
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    graph = sp.csr_matrix((length, (edges[:, 0], edges[:, 1])), shape=(len(vertices),) * 2)
    back = loop[np.argmin(np.where(np.abs(vertices[loop, 0]) < 2e-3, vertices[loop, 2], np.inf))]
    crown = np.flatnonzero(middle & np.isin(np.arange(len(vertices)), faces))
    tip = crown[np.argmax(vertices[crown, 1] - 0.35 * vertices[crown, 2])]
    _, before = dijkstra(graph, directed=False, indices=back, return_predecessors=True)
    path = [int(tip)]
    while path[-1] != back:
        path.append(int(before[path[-1]]))
    path = np.array(path[::-1])
    touching = np.isin(faces, path).any(1) & (vertices[faces].mean(1)[:, 0] > 0)
    cut_faces, vertex_of = cut_along(faces, path, touching)
    used = np.unique(cut_faces)
    local, owner = np.searchsorted(used, cut_faces), vertex_of[used]
    points = vertices[owner]
    rim = max(_loops(local), key=len_of(points))
    # start at the front middle of the bottom line
    start = min(rim, key=lambda i: abs(points[i, 0]) * 100 - points[i, 2])
    rim = np.roll(rim, -int(np.flatnonzero(rim == start)[0]))
    density = 1 + 1.6 * np.exp(-(((points - [0, -0.035, 0.02]) / [0.085, 0.10, 0.085]) ** 2).sum(1))
    segment = np.linalg.norm(points[rim] - points[np.roll(rim, -1)], axis=1)
    share = np.concatenate([[0], np.cumsum(segment)[:-1]]) / segment.sum()
    aspect = SKIN_BOX[2] / SKIN_BOX[3]
    uv = tutte(points, local, rim, superellipse(share, aspect), density)
    return into_box(uv, *SKIN_BOX), local, owner


def _loops(faces: np.ndarray) -> list[np.ndarray]:
    edges, loops = boundary_edges(faces), []
    while len(edges):
        loops.append(chain(edges))
        edges = edges[~np.isin(edges[:, 0], loops[-1])]
    return loops


def len_of(points: np.ndarray):
    """Key function: length of a loop of vertices."""
    return lambda loop: float(np.linalg.norm(points[loop] - points[np.roll(loop, -1)], axis=1).sum())


def eyeball_chart(
    directions: np.ndarray, faces: np.ndarray, box: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Azimuthal chart, iris enlarged, the back pole doubled once per sector: uv and faces over uv."""
    angle = np.arccos(np.clip(directions[:, 2], -1, 1))
    radius = (1 - np.exp(-angle / 0.9)) / (1 - np.exp(-np.pi / 0.9)) * 0.5
    around = np.arctan2(directions[:, 1], directions[:, 0])
    disk = np.stack([radius * np.cos(around), radius * np.sin(around)], axis=1)
    last = len(directions) - 1
    uv, out = [disk[:-1]], faces.copy()
    count = last
    for f in np.flatnonzero((faces == last).any(1)):
        others = [v for v in faces[f] if v != last]
        middle = disk[others].sum(0)
        out[f] = np.where(faces[f] == last, count, faces[f])
        uv.append((0.5 * middle / np.linalg.norm(middle))[None])
        count += 1
    x, y, size = box
    return np.concatenate(uv) * size + [x + size / 2, y + size / 2], out


def unwrap(
    skin: np.ndarray, faces: np.ndarray, cavity: np.ndarray, directions: np.ndarray, ball_faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """uv (VT, 2) and uv_faces (F, 3) row for row with skin faces, then left and right eyeball."""
    uv_parts, uv_faces, offset = [], np.zeros((len(faces), 3), dtype=np.int64), 0
    jobs = [(0, None), (1, MOUTH_BOX), (2, SOCKET_BOXES[0]), (3, SOCKET_BOXES[1])]
    for tag, box in jobs:
        rows = cavity == tag
        uv, local, _ = skin_chart(skin, faces[rows]) if box is None else disk_chart(skin, faces[rows], box)
        uv_faces[rows] = local + offset
        uv_parts.append(uv)
        offset += len(uv)
    balls = []
    for box in EYEBALL_BOX:
        uv, local = eyeball_chart(directions, ball_faces, box)
        balls.append(local + offset)
        uv_parts.append(uv)
        offset += len(uv)
    return np.concatenate(uv_parts), np.concatenate([uv_faces, *balls])
