"""A texture layout of few charts for heads of FLAME's kind: the skin cut open at the back, and the eyeballs' halves.

The skin is a Tutte embedding (Tutte, "How to draw a graph", 1963: a convex boundary and positive weights, so that no
triangle folds over) whose weights are adapted in a few rounds toward the wanted texel density, after Yoshizawa, Belyaev
and Seidel, "A fast and simple stretch-minimizing mesh parameterization", 2004.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.head.mesh_graph import MeshGraph

SKIN_BOX = (0.006, 0.14, 0.994, 0.95)
"""Left, bottom, right, top."""
FRONT_DISCS, BACK_DISCS = ((0.80, 0.07), (0.20, 0.07)), ((0.68, 0.035), (0.32, 0.035))
"""Centres of the eyeballs' front and back halves, left one first."""
FRONT_RADIUS, BACK_RADIUS = 0.06, 0.025
RIM_SHARE = 0.3
"""Part of the outline that the neck's rim takes; the cut takes the rest."""
ROUNDNESS = 3.0
"""Exponent of the superellipse that the skin's outline follows."""
ADAPTATIONS, STEP = 8, 0.3
"""Rounds, and the part of the mismatch that one round works against: more evens out texels and shears triangles."""
FRONT_DENSITY = 3.0
"""Texels per area at the tip of the nose, relative to the back of the head."""


def flat_map(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]
) -> tuple[Float[ndarray, "VT 2"], Int[ndarray, "F 3"]] | None:
    """UV and its triangles, or None where the mesh is not one open skin with ball-shaped eyes, or the result folds."""
    graph = MeshGraph(faces, len(vertices))
    number = graph.component[faces[:, 0]] if len(faces) else np.zeros(0, dtype=np.int64)
    pieces = np.unique(number)
    if not len(pieces):
        return None
    skin = pieces[np.argmax([(number == piece).sum() for piece in pieces])]
    balls = sorted((p for p in pieces if p != skin), key=lambda p: -vertices[faces[number == p]][..., 0].mean())
    if len(balls) not in (0, 2):
        return None
    uv: list[ndarray] = []
    uv_faces = np.zeros_like(faces)
    parts = [(number == skin, _skin(vertices, faces[number == skin]))]
    for ball, front_center, back_center in zip(balls, FRONT_DISCS, BACK_DISCS, strict=False):
        middle = 0.5 * sum(bound(vertices[faces[number == ball]].reshape(-1, 3), axis=0) for bound in (np.min, np.max))
        front = vertices[faces].mean(1)[:, 2] > middle[2]
        for side, center, radius, sign in (
            (front, front_center, FRONT_RADIUS, 1),
            (~front, back_center, BACK_RADIUS, -1),
        ):
            mask = (number == ball) & side
            parts.append((mask, _disc(vertices - middle, faces[mask], np.array(center), radius, sign)))
    first = 0
    for mask, part in parts:
        if part is None:
            return None
        uv_faces[mask] = part[1] + first
        uv.append(part[0])
        first += len(part[0])
    # On a grid far finer than a texel, so that machines agree on the layout to the bit.
    coordinates = np.round(np.concatenate(uv) * 2**17) / 2**17
    if (signed_areas(coordinates, uv_faces) <= 1e-11).any():
        return None
    return coordinates.astype(np.float32), uv_faces


def signed_areas(uv: Float[ndarray, "VT 2"], uv_faces: Int[ndarray, "F 3"]) -> Float[ndarray, " F"]:
    """Area of each triangle in texture space, negative where it is mirrored."""
    a, b, c = np.asarray(uv, dtype=np.float64)[uv_faces].transpose(1, 0, 2)
    return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])


def _disc(local: ndarray, faces: ndarray, center: ndarray, radius: float, sign: int) -> tuple[ndarray, ndarray] | None:
    """Half of a ball about the origin, seen along -z (sign 1) or +z: the angle off the axis becomes the radius."""
    if not len(faces):
        return None
    used, compact = np.unique(faces, return_inverse=True)
    x, y, z = (local[used] * [sign, 1, sign]).T
    flat = np.hypot(x, y)
    angle = np.arctan2(flat, z)
    along = np.stack([x, y], axis=1) / np.maximum(flat, 1e-12)[:, None]
    return center + radius * (angle / angle.max())[:, None] * along, compact.reshape(-1, 3)


def _skin(vertices: ndarray, faces: ndarray) -> tuple[ndarray, ndarray] | None:
    graph = MeshGraph(faces, len(vertices))
    if not graph.boundary_loops:
        return None
    rim = min(graph.boundary_loops, key=lambda loop: vertices[loop, 1].mean())
    path = _back_line(graph, vertices, rim)
    if path is None:
        return None
    cut, origin = _cut(faces, path, len(vertices))
    used, compact = np.unique(cut, return_inverse=True)
    cut, origin = compact.reshape(-1, 3), origin[used]
    points, tip = vertices[origin], int(np.flatnonzero(origin == path[-1])[0])
    holes = MeshGraph(cut, len(points)).boundary_loops
    outline = next((loop for loop in holes if tip in loop), None)
    if outline is None:
        return None
    # Other openings, the mouth's, are closed with a fan for the while.
    filled, count = [cut], len(points)
    for loop in holes:
        if loop is not outline:
            filled.append(np.stack([np.roll(loop, -1), loop, np.full(len(loop), count)], axis=1))
            points = np.concatenate([points, points[loop].mean(0, keepdims=True)])
            count += 1
    whole = np.concatenate(filled)
    edges = MeshGraph(whole, count).edges
    if count - len(edges) + len(whole) != 1:
        return None  # not a disc
    outline = np.roll(outline, -int(np.flatnonzero(outline == tip)[0]))
    fixed = _outline(points, outline, np.isin(np.append(origin, np.full(count - len(origin), -1))[outline], rim))
    plane = _embed(points, whole, outline, fixed)
    left, bottom, right, top = SKIN_BOX
    square = 0.5 * (plane + 1)
    return (np.array([left, bottom]) + square * [right - left, top - bottom])[: len(origin)], cut


def _back_line(graph: MeshGraph, vertices: ndarray, rim: ndarray) -> ndarray | None:
    """Edges from the middle of the rim's back to the crown, close to the middle plane."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    behind = rim[vertices[rim, 2] < vertices[rim, 2].mean()]
    start = behind[np.argmin(np.abs(vertices[behind, 0]))]
    mesh_ids = np.unique(graph.faces)
    tip = mesh_ids[np.argmax(vertices[mesh_ids, 1] - 3 * np.abs(vertices[mesh_ids, 0]))]
    a, b = graph.edges.T
    width = np.ptp(vertices[mesh_ids, 0])
    aside = (np.abs(vertices[a, 0]) + np.abs(vertices[b, 0])) / width
    cost = np.linalg.norm(vertices[a] - vertices[b], axis=1) * (1 + 40 * aside)
    # Along the back, not over the face.
    cost *= 1 + 10 * (np.maximum(vertices[a, 2], vertices[b, 2]) > vertices[tip, 2] + 1e-6)
    network = coo_matrix((cost, (a, b)), shape=(graph.count, graph.count)).tocsr()
    _, previous = dijkstra(network, directed=False, indices=start, return_predecessors=True)
    walk = [int(tip)]
    while walk[-1] != start:
        if previous[walk[-1]] < 0:
            return None
        walk.append(int(previous[walk[-1]]))
    path = np.array(walk[::-1])
    # The rim is left once and not met again.
    last = int(np.flatnonzero(np.isin(path, rim))[-1])
    return path[last:] if len(path) - last > 2 else None


def _cut(faces: ndarray, path: ndarray, count: int) -> tuple[ndarray, ndarray]:
    """Opens the mesh along a path; all its vertices but the last are doubled. Returns faces and each id's vertex."""
    order = {int(v): i for i, v in enumerate(path)}
    on_path = {frozenset(pair) for pair in zip(path[:-1].tolist(), path[1:].tolist(), strict=True)}
    doubled = {int(v): count + i for i, v in enumerate(path[:-1])}
    touching = np.flatnonzero(np.isin(faces, path).any(1))
    by_edge: dict[frozenset[int], list[int]] = {}
    left: list[int] = []
    for f in touching.tolist():
        a, b, c = faces[f].tolist()
        for p, q in ((a, b), (b, c), (c, a)):
            by_edge.setdefault(frozenset((p, q)), []).append(f)
            if order.get(q, -2) - order.get(p, 10**9) == 1:
                left.append(f)
    seen = set(left)
    while left:
        f = left.pop()
        a, b, c = faces[f].tolist()
        for pair in (frozenset((a, b)), frozenset((b, c)), frozenset((c, a))):
            if pair in on_path or not any(v in doubled for v in pair):
                continue
            for other in by_edge[pair]:
                if other not in seen:
                    seen.add(other)
                    left.append(other)
    out = faces.copy()
    for f in seen:
        out[f] = [doubled.get(v, v) for v in faces[f].tolist()]
    return out, np.concatenate([np.arange(count), path[:-1]])


def _outline(points: ndarray, loop: ndarray, is_rim: ndarray) -> ndarray:
    """Positions (n, 2) of the loop on a superellipse, from the top counter-clockwise; the rim lies at the bottom."""
    step = np.linalg.norm(points[loop] - points[np.roll(loop, -1)], axis=1)
    of_rim = is_rim & np.roll(is_rim, -1)
    share = np.where(of_rim, RIM_SHARE * step / step[of_rim].sum(), (1 - RIM_SHARE) * step / step[~of_rim].sum())
    where = np.concatenate([[0.0], np.cumsum(share)[:-1]])
    angle = np.linspace(0, 2 * np.pi, 4001) + np.pi / 2
    shape = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    curve = np.sign(shape) * np.abs(shape) ** (2 / ROUNDNESS)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    return np.stack([np.interp(where * length[-1], length, curve[:, k]) for k in (0, 1)], axis=1)


def _embed(points: ndarray, faces: ndarray, outline: ndarray, fixed: ndarray) -> ndarray:
    """Each inner vertex at the weighted mean of its neighbours, the outline at `fixed`."""
    import scipy.sparse as sparse
    from scipy.sparse.linalg import spsolve

    count = len(points)
    start, end, weight = _mean_value_weights(points, faces)
    inner = np.ones(count, dtype=bool)
    inner[outline] = False
    plane = np.zeros((count, 2))
    plane[outline] = fixed
    corners = points[faces]
    surface = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    surface = np.maximum(surface, 1e-12)
    around = np.maximum(np.bincount(faces.ravel(), np.repeat(surface, 3), count), 1e-12)
    depth = corners.mean(1)[:, 2]
    wanted = np.log(FRONT_DENSITY) * (depth - depth.min()) / np.ptp(depth)
    best, best_spread = plane, np.inf
    for _ in range(ADAPTATIONS):
        matrix = sparse.csr_matrix((weight, (start, end)), shape=(count, count))
        laplacian = sparse.diags(np.asarray(matrix.sum(1)).ravel()) - matrix
        trial = plane.copy()
        trial[inner] = spsolve(laplacian[inner][:, inner].tocsc(), -laplacian[inner][:, ~inner] @ plane[~inner])
        excess = np.log(np.maximum(signed_areas(trial, faces), 1e-14) / surface) - wanted
        excess -= np.average(excess, weights=surface)
        spread = float(np.average(excess**2, weights=surface))
        if spread >= best_spread:
            break
        best, best_spread = trial, spread
        # Edges are springs: stiffer ones draw a part together that has too many texels.
        at_vertex = np.bincount(faces.ravel(), np.repeat(excess * surface, 3), count) / around
        weight = weight * np.exp(0.5 * STEP * (at_vertex[start] + at_vertex[end]))
    return best


def _mean_value_weights(points: ndarray, faces: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Directed edges and their weights (tan(a/2) + tan(b/2)) / length, with the angles at the edge's first vertex.

    Floater, "Mean value coordinates", 2003: positive, and nearly without change of angles.
    """
    start, end, weight = [], [], []
    for k in range(3):
        first, second, third = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        one, two = points[second] - points[first], points[third] - points[first]
        lengths = np.linalg.norm(one, axis=1), np.linalg.norm(two, axis=1)
        cosine = (one * two).sum(1) / np.maximum(lengths[0] * lengths[1], 1e-20)
        half = np.tan(0.5 * np.arccos(np.clip(cosine, -0.999, 0.999)))
        for other, length in zip((second, third), lengths, strict=True):
            start.append(first)
            end.append(other)
            weight.append(half / np.maximum(length, 1e-9))
    return np.concatenate(start), np.concatenate(end), np.concatenate(weight)
