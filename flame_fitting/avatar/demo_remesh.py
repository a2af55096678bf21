"""The same surface with other triangles: points spread anew over each texture chart, joined by Delaunay."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.maths.normals import face_normals

FOLDED = 0.1
"""Cosine between a new triangle's normal and the old surface's below which the triangle counts as folded over."""
MAX_TRIES = 4
"""Times that folds are mended by keeping the old triangles there."""


@dataclass
class Remeshed:
    """Triangles with one texture coordinate a vertex; vertices are doubled along seams."""

    vertices: Float[ndarray, "N 3"]
    uv: Float[ndarray, "N 2"]
    faces: Int[ndarray, "M 3"]
    source_face: Int[ndarray, " N"]
    """Triangle of the old mesh that holds each vertex."""
    barycentric: Float[ndarray, "N 3"]
    """Where in it."""


def remesh(
    vertices: Float[ndarray, "V 3"],
    faces: Int[ndarray, "F 3"],
    uv: Float[ndarray, "VT 2"],
    uv_faces: Int[ndarray, "F 3"],
    rng: np.random.Generator,
    keep: Bool[ndarray, " V"] | None = None,
    density: float = 1.6,
    crease_degrees: float = 25.0,
) -> Remeshed:
    """New triangulation of a mesh whose charts do not fold over in `uv`.

    Chart borders keep their vertices, so the charts still fit together; so do creases, which new triangles would
    notch. Triangles between vertices in `keep` stay, and those where new ones would cross a border or fold over.
    `density` is the number of new vertices over old ones, roughly.
    """
    spacing = _spacing(vertices, faces) / np.sqrt(density)
    creases = _creases(vertices, faces, crease_degrees)
    kept = np.zeros(len(faces), dtype=bool) if keep is None else keep[faces].all(1)
    parts = [_unchanged(vertices, faces, uv, uv_faces, np.flatnonzero(kept))]
    todo = [(rows, 0) for rows in _charts(uv_faces, np.flatnonzero(~kept))]
    while todo:
        rows, tries = todo.pop(0)
        part, crossed = _remesh_chart(vertices, faces, uv, uv_faces, rows, spacing, creases, rng, tries >= MAX_TRIES)
        if part is not None:
            parts.append(part)
            continue
        beside = np.isin(uv_faces[rows], crossed).any(1)
        parts.append(_unchanged(vertices, faces, uv, uv_faces, rows[beside]))
        todo += [(rest, tries + 1) for rest in _charts(uv_faces, rows[~beside])]
    offset = 0
    for part in parts:
        part.faces = part.faces + offset
        offset += len(part.vertices)
    return Remeshed(
        vertices=np.concatenate([part.vertices for part in parts]),
        uv=np.concatenate([part.uv for part in parts]),
        faces=np.concatenate([part.faces for part in parts]),
        source_face=np.concatenate([part.source_face for part in parts]),
        barycentric=np.concatenate([part.barycentric for part in parts]),
    )


def _spacing(vertices: ndarray, faces: ndarray) -> ndarray:
    """Side (V,) of the equilateral triangle with the mean area of the triangles around each vertex."""
    _, area = face_normals(vertices, faces)
    count = np.bincount(faces.ravel(), minlength=len(vertices))
    mean = np.bincount(faces.ravel(), np.repeat(area, 3), minlength=len(vertices)) / np.maximum(count, 1)
    return np.sqrt(4 / np.sqrt(3) * mean)


def _creases(vertices: ndarray, faces: ndarray, degrees: float) -> ndarray:
    """Mask (V,) of vertices on an edge whose two triangles turn by more than an angle."""
    normal, _ = face_normals(vertices, faces)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    owner = np.tile(np.arange(len(faces)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, owner = edges[order], owner[order]
    twin = np.flatnonzero((edges[1:] == edges[:-1]).all(1))
    sharp = (normal[owner[twin]] * normal[owner[twin + 1]]).sum(1) < np.cos(np.radians(degrees))
    mask = np.zeros(len(vertices), dtype=bool)
    mask[edges[twin[sharp]]] = True
    return mask


def _charts(uv_faces: ndarray, rows: ndarray) -> list[ndarray]:
    """Of some rows of `uv_faces`, those of each connected chart."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    # triangles that meet in a point only are not connected: a border must be a simple loop
    edges = np.sort(uv_faces[rows][:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    owner = np.repeat(np.arange(len(rows)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    twin = np.flatnonzero((edges[order][1:] == edges[order][:-1]).all(1))
    one, two = owner[order[twin]], owner[order[twin + 1]]
    graph = coo_matrix((np.ones(len(one)), (one, two)), shape=(len(rows), len(rows)))
    _, label = connected_components(graph, directed=False)
    return [rows[label == i] for i in np.unique(label)]


def _unchanged(vertices: ndarray, faces: ndarray, uv: ndarray, uv_faces: ndarray, rows: ndarray) -> Remeshed:
    """The old triangles of some rows."""
    ids, first = np.unique(uv_faces[rows].ravel(), return_index=True)
    face, corner = rows[first // 3], first % 3
    local = np.searchsorted(ids, uv_faces[rows])
    return Remeshed(vertices[faces[face, corner]], uv[ids], local, face, np.eye(3)[corner])


def _border(faces: ndarray) -> ndarray:
    """Edges (n, 2) of one triangle only."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, first, count = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    return edges[first[count == 1]]


def _remesh_chart(
    vertices: ndarray,
    faces: ndarray,
    uv: ndarray,
    uv_faces: ndarray,
    rows: ndarray,
    spacing: ndarray,
    creases: ndarray,
    rng: np.random.Generator,
    last_try: bool,
) -> tuple[Remeshed | None, ndarray]:
    """New triangles for some rows; or None, and the texture coordinates where they cross the border or fold over."""
    from scipy.spatial import Delaunay

    faces, uv_faces = faces[rows], uv_faces[rows]

    # one corner that shows each old texture coordinate
    ids, first = np.unique(uv_faces.ravel(), return_index=True)
    corner_face, corner = first // 3, first % 3
    corner_weights = np.eye(3)[corner]
    local = np.searchsorted(ids, uv_faces)
    border = _border(local)
    on_border = np.unique(border)
    on_crease = np.setdiff1d(np.flatnonzero(creases[faces[corner_face, corner]]), on_border)
    # a border edge with nothing in the circle over it is in every Delaunay triangulation
    a, b = uv[ids[border[:, 0]]], uv[ids[border[:, 1]]]
    middle, radius = 0.5 * (a + b), 0.525 * np.linalg.norm(a - b, axis=1)
    on_crease = on_crease[_outside_circles(uv[ids[on_crease]], middle, radius)]
    kept = np.concatenate([on_border, on_crease])
    inner_face, inner_weights = _spread(vertices, faces, spacing, vertices[faces[corner_face, corner]][kept], rng)
    inner_uv = np.einsum("nk,nkc->nc", inner_weights, uv[uv_faces[inner_face]])
    clear = _outside_circles(inner_uv, middle, radius)
    face = np.concatenate([corner_face[kept], inner_face[clear]])
    weights = np.concatenate([corner_weights[kept], inner_weights[clear]])
    points = np.einsum("nk,nkc->nc", weights, uv[uv_faces[face]])
    triangles = Delaunay(points * 4096.0).simplices.astype(np.int64)
    triangles = triangles[_keep(points, triangles, len(on_border), uv[uv_faces])]
    first_edge, second_edge = (points[triangles[:, k]] - points[triangles[:, 0]] for k in (1, 2))
    area = _cross(first_edge, second_edge)
    triangles[area < 0] = triangles[area < 0][:, ::-1]
    wanted = {tuple(sorted(edge)) for edge in np.searchsorted(on_border, border).tolist()}
    found = {tuple(sorted(edge)) for edge in _border(triangles).tolist()}
    if wanted != found:
        wrong = np.array(sorted(wanted ^ found)).ravel()
        return None, ids[on_border[np.unique(wrong[wrong < len(on_border)])]]
    positions = np.einsum("nk,nkc->nc", weights, vertices[faces[face]])
    normals = face_normals(vertices, faces)[0][face]
    triangles = _flipped_to_fit(positions, points, triangles, normals)
    folded = _agreement(positions, normals, triangles) < FOLDED
    if folded.any() and not last_try:
        return None, np.unique(uv_faces[face[triangles[folded]]])
    return Remeshed(positions, points, triangles, rows[face], weights), np.zeros(0, dtype=np.int64)


def _spread(
    vertices: ndarray, faces: ndarray, spacing: ndarray, fixed: ndarray, rng: np.random.Generator
) -> tuple[ndarray, ndarray]:
    """Random surface points that keep their distance to each other and to fixed ones: faces (n,), weights (n, 3)."""
    from scipy.spatial import cKDTree

    from flame_fitting.avatar.demo_kernels import accept_spread

    corners = vertices[faces]
    _, area = face_normals(vertices, faces)
    gap = spacing[faces].mean(1)
    chance = area / gap**2
    count = int(np.ceil(6 * chance.sum()))
    face = rng.choice(len(faces), size=count, p=chance / chance.sum())
    r, s = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - r, r * (1 - s), r * s], axis=1)
    points = np.einsum("nk,nkc->nc", weights, corners[face])
    reach = 0.72 * gap[face]
    gone = cKDTree(fixed).query(points)[0] < 0.6 * reach
    lists = cKDTree(points).query_ball_point(points, reach)
    lengths = np.array([len(near) for near in lists])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    taken = accept_spread(np.concatenate(lists).astype(np.int64), starts, gone)
    return face[taken], weights[taken]


def _outside_circles(points: ndarray, middle: ndarray, radius: ndarray) -> ndarray:
    """Mask (n,) of points in no circle."""
    from scipy.spatial import cKDTree

    inside = np.zeros(len(points), dtype=bool)
    tree = cKDTree(points)
    for center, size in zip(middle, radius, strict=True):
        inside[tree.query_ball_point(center, size)] = True
    return ~inside


def _keep(points: ndarray, triangles: ndarray, n_border: int, chart: ndarray) -> ndarray:
    """Mask (M,) of triangles inside the chart, given as its triangles (F, 3, 2)."""
    keep = np.ones(len(triangles), dtype=bool)
    # only triangles between border vertices can lie outside
    suspects = np.flatnonzero((triangles < n_border).all(1))
    low, high = chart.min(1), chart.max(1)
    for t in suspects:
        center = points[triangles[t]].mean(0)
        near = chart[((low <= center) & (center <= high)).all(1)]
        keep[t] = bool(_contains(near, center).any())
    return keep


def _contains(triangles: ndarray, point: ndarray) -> ndarray:
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    signs = np.stack([_cross(q - p, point - p) for p, q in ((a, b), (b, c), (c, a))])
    return np.logical_or((signs >= 0).all(0), (signs <= 0).all(0))


def _cross(a: ndarray, b: ndarray) -> ndarray:
    """z of the cross product of plane vectors (n, 2)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _flipped_to_fit(positions: ndarray, uv: ndarray, triangles: ndarray, normals: ndarray, passes: int = 8) -> ndarray:
    """Edges flipped where the triangles then follow the surface better, or are rounder and follow it as well.

    `normals` (n, 3) are the old surface's at the vertices. Both triangles stay upright in the chart.
    """
    triangles = triangles.copy()
    for _ in range(passes):
        edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        owner, place = np.repeat(np.arange(len(triangles)), 3), np.tile([0, 1, 2], len(triangles))
        order = np.lexsort((edges[:, 1], edges[:, 0]))
        twin = np.flatnonzero((edges[order][1:] == edges[order][:-1]).all(1))
        one, two = order[twin], order[twin + 1]
        f, g, k, m = owner[one], owner[two], place[one], place[two]
        a, b = triangles[f, k], triangles[f, (k + 1) % 3]
        c, d = triangles[f, (k + 2) % 3], triangles[g, (m + 2) % 3]
        first, second = np.stack([a, d, c], axis=1), np.stack([d, b, c], axis=1)
        rounder = _angle(positions, a, c, b) + _angle(positions, a, d, b) > np.pi + 1e-3
        before, after = (
            np.minimum(*(_agreement(positions, normals, t) for t in pair))
            for pair in ((triangles[f], triangles[g]), (first, second))
        )
        wanted = (after > before + 0.05) | (rounder & (after > before - 0.02))
        for new in (first, second):
            wanted &= _cross(uv[new[:, 1]] - uv[new[:, 0]], uv[new[:, 2]] - uv[new[:, 0]]) > 1e-12
        busy = np.zeros(len(triangles), dtype=bool)
        changed = False
        for i in np.flatnonzero(wanted):
            if not busy[f[i]] and not busy[g[i]]:
                busy[[f[i], g[i]]] = True
                triangles[f[i]], triangles[g[i]] = first[i], second[i]
                changed = True
        if not changed:
            break
    return triangles


def _agreement(positions: ndarray, normals: ndarray, triangles: ndarray) -> ndarray:
    """Least cosine (n,) between a triangle's normal and those of the surface at its corners."""
    return (face_normals(positions, triangles)[0][:, None] * normals[triangles]).sum(2).min(1)


def _angle(points: ndarray, a: ndarray, corner: ndarray, b: ndarray) -> ndarray:
    """Angle at corner (n,)."""
    p, q = points[a] - points[corner], points[b] - points[corner]
    return np.arctan2(np.linalg.norm(np.cross(p, q), axis=1), (p * q).sum(1))
