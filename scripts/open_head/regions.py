"""Vertex regions of the open head by geometric and topological definitions. Lengths in metres, head space."""

import numpy as np

from flame_fitting.maths.normals import vertex_normals
from open_head.eyes import IRIS_ANGLE
from open_head.lips import LipSeam, geodesic
from open_head.mesh import boundary_edges, chain, unique_edges


def grow(faces: np.ndarray, ids: np.ndarray, rings: int, count: int) -> np.ndarray:
    """Mask (count,) of ids and their neighbours up to rings away."""
    mask = np.zeros(count, dtype=bool)
    mask[ids] = True
    edges = unique_edges(faces)
    for _ in range(rings):
        touched = mask[edges].any(1)
        mask[edges[touched]] = True
    return mask


def facing_itself(vertices: np.ndarray, faces: np.ndarray, ids: np.ndarray, reach: float) -> np.ndarray:
    """Mask (len(ids),): a ray along the vertex normal meets the surface again within reach (inside of a cavity)."""
    import trimesh

    normal = vertex_normals(vertices, faces)[ids]
    origin = vertices[ids] + 3e-4 * normal
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    locations, rays, _ = mesh.ray.intersects_location(origin, normal, multiple_hits=True)
    near = np.linalg.norm(locations - origin[rays], axis=1) < reach
    hit = np.zeros(len(ids), dtype=bool)
    hit[rays[near]] = True
    return hit


def pinna(faces: np.ndarray, moving: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """The ear from the vertices that ear changes move: one piece, holes (the canal) filled, one ring more."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(moving)
    mask = grow(faces, np.flatnonzero(moving & (outward > 0)), 1, count)
    mask &= outward > 0.066
    edges = unique_edges(faces)
    edges = edges[~mask[edges].any(1)]
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, piece = connected_components(graph, directed=False)
    largest = np.argmax(np.bincount(piece[~mask]))
    return mask | (piece != largest)


def smoothed(faces: np.ndarray, values: np.ndarray, steps: int) -> np.ndarray:
    """Vertex values averaged with their neighbours' a few times."""
    edges = unique_edges(faces)
    both = np.concatenate([edges, edges[:, ::-1]])
    degree = np.maximum(np.bincount(both[:, 0], minlength=len(values)), 1)
    for _ in range(steps):
        values = 0.5 * values + 0.5 * np.bincount(both[:, 0], values[both[:, 1]], minlength=len(values)) / degree
    return values


def lip_height(x: np.ndarray) -> np.ndarray:
    """Width along the surface, from the seam, of the red of the lips at mouth position x."""
    return 0.0030 + 0.0090 * np.clip(1 - (np.abs(x) / 0.0275) ** 3, 0, 1)


def build_regions(
    vertices: np.ndarray,
    skin_faces: np.ndarray,
    cavity: np.ndarray,
    seam: LipSeam,
    eye_center: np.ndarray,
    ball_directions: np.ndarray,
    supports: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Regions by name, and smooth vertex fields that painting uses.

    vertices (V, 3): skin, left, right eyeball. supports: how much (n_skin,) 0..1 ears and nose move with their own
    identity changes.
    """
    n_skin, n_ball = len(vertices) - 2 * len(ball_directions), len(ball_directions)
    count = len(vertices)
    skin = vertices[:n_skin]
    x, y, z = (skin - eye_center).T
    is_skin = np.arange(count) < n_skin

    def padded(mask: np.ndarray) -> np.ndarray:
        return np.concatenate([mask, np.zeros(2 * n_ball, dtype=bool)])

    masks: dict[str, np.ndarray] = {}
    outer_faces = skin_faces[cavity == 0]
    outer = np.zeros(n_skin, dtype=bool)
    outer[outer_faces] = True
    loops, edges = [], boundary_edges(outer_faces)
    while len(edges):
        loops.append(chain(edges))
        edges = edges[~np.isin(edges[:, 0], loops[-1])]
    bottom = chain(boundary_edges(skin_faces))
    rims = sorted(
        (loop for loop in loops if not np.isin(loop, bottom).any() and not np.isin(loop, seam.ring).any()),
        key=lambda loop: -skin[loop, 0].mean(),
    )
    left = x > -1e-6
    right = x < 1e-6

    # eyes
    rim_distance = [geodesic(skin, outer_faces, rim, 0.05) for rim in rims]
    for side, name in enumerate(("left", "right")):
        ball = np.zeros(count, dtype=bool)
        ball[n_skin + side * n_ball : n_skin + (side + 1) * n_ball] = True
        masks[f"{name}_eyeball"] = ball
        iris = ball.copy()
        iris[ball] = ball_directions[:, 2] > np.cos(np.radians(IRIS_ANGLE))
        masks[f"{name}_iris"] = iris
        socket = np.zeros(n_skin, dtype=bool)
        socket[skin_faces[cavity == 2 + side]] = True
        masks[f"_{name}_socket"] = padded(socket)
        distance = rim_distance[side]
        masks[f"{name}_eyelid"] = padded(outer & (distance < 0.0075) & ~socket)
        masks[f"{name}_eye_region"] = padded((outer & (distance < 0.017)) | socket)
        masks[f"_{name}_surround"] = padded(outer & (distance < 0.017) & ~socket)
        masks[f"{name}_eye"] = masks[f"{name}_eye_region"] | ball
    for plural, single in (
        ("eyeballs", "eyeball"),
        ("irises", "iris"),
        ("eyelids", "eyelid"),
        ("eye_region", "eye_region"),
        ("_sockets", "socket"),
        ("eyes", "surround"),
    ):
        prefix = "_" if single in ("socket", "surround") else ""
        masks[plural] = masks[f"{prefix}left_{single}"] | masks[f"{prefix}right_{single}"]
    masks["sclerae"] = masks["eyeballs"] & ~masks["irises"]

    # mouth
    bag = np.zeros(n_skin, dtype=bool)
    bag[skin_faces[cavity == 1]] = True
    ring_distance = geodesic(skin, skin_faces, seam.ring, 0.06)
    inside = bag | (ring_distance < 0.0025)
    red = outer & (ring_distance < lip_height(x)) & (np.abs(x) < 0.03)
    for name, ids in (
        ("lip_inside_ring", seam.ring),
        ("lip_inside_ring_upper", seam.ring_upper),
        ("lip_inside_ring_lower", seam.ring_lower),
    ):
        masks[name] = np.isin(np.arange(count), ids)
    masks["lip_inside"] = padded(inside)
    masks["lips"] = padded(red & ~inside)
    masks["lips_tight"] = padded(red | (bag & (ring_distance < 0.010)))
    stations = np.linspace(-0.022, 0.022, 15)
    is_upper = seam.distance_upper <= seam.distance_lower
    for name, half in (("upper", is_upper), ("lower", ~is_upper)):
        band = np.flatnonzero(red & ~inside & half)
        excess = np.abs(ring_distance[band] - lip_height(x[band]))
        chosen: list[int] = []
        for station in stations:
            cost = np.abs(x[band] - station) + excess + np.where(np.isin(band, chosen), 1.0, 0.0)
            chosen.append(int(band[np.argmin(cost)]))
        masks[f"lip_outside_ring_{name}"] = np.isin(np.arange(count), chosen)

    # ears, nose
    ear_l, ear_r = (
        pinna(skin_faces, supports[side] > 0.14, x * sign) for side, sign in (("left_ear", 1), ("right_ear", -1))
    )
    masks["left_ear"], masks["right_ear"] = padded(ear_l & outer), padded(ear_r & outer)
    masks["ears"] = masks["left_ear"] | masks["right_ear"]
    ear = ear_l | ear_r
    nose = outer & (supports["nose"] > 0.62) & (y > -0.0535) & (np.abs(x) < 0.0235)
    nose_ids = np.flatnonzero(grow(skin_faces, np.flatnonzero(nose), 2, n_skin) & outer & (z > 0.005))
    nostril = np.zeros(n_skin, dtype=bool)
    nostril[nose_ids] = facing_itself(skin, skin_faces, nose_ids, 0.013)
    nostril &= (y < -0.02) & (y > -0.06) & (np.abs(x) < 0.02)
    masks["nose"] = padded(nose & ~nostril)

    # neck, face, scalp share the rest of the outer skin
    under_jaw = np.where(z > -0.078, -0.112 + 0.52 * np.clip(0.0 - z, 0, None), -0.0715)
    neck = outer & ~ear & (y < under_jaw)
    hairline = 0.078 - 0.010 * (np.abs(x) / 0.05) ** 2
    side_limit = np.where(y > -0.005, -0.048, -0.062)
    face = outer & ~ear & ~neck & (z > side_limit) & (y < hairline) & ~inside & ~nostril
    face &= ~masks["_sockets"][:n_skin]
    scalp = (
        outer & ~ear & ~neck & ~face & ~inside & ~nostril & ~masks["_sockets"][:n_skin] & ((z < -0.045) | (y > 0.05))
    )
    masks["face"], masks["neck"], masks["scalp"] = padded(face), padded(neck), padded(scalp)
    masks["forehead"] = padded(face & (y > 0.024) & ~masks["eyes"][:n_skin])
    masks["hair"] = masks["scalp"] & ~masks["face"] & ~masks["neck"]
    cheek = face & (y < -0.012) & (y > -0.085) & (np.abs(x) > 0.028) & (z > -0.05)
    cheek &= ~masks["lips"][:n_skin] & ~masks["nose"][:n_skin]
    masks["left_cheek"], masks["right_cheek"] = padded(cheek & (x > 0)), padded(cheek & (x < 0))
    masks["chin"] = padded(face & (y < -0.088) & (np.abs(x) < 0.035) & ~masks["lips"][:n_skin])
    masks["bottomline"] = np.isin(np.arange(count), bottom)
    masks["boundary"] = padded(grow(skin_faces, bottom, 2, n_skin))
    share = geodesic(skin, skin_faces, bottom)
    top_of_neck = np.median(share[neck][share[neck] > np.percentile(share[neck], 90)])
    share = share / top_of_neck
    masks["neck_lower"] = padded(neck & (share > 0.08) & (share < 0.5))
    masks["neck_upper"] = padded(neck & (share > 0.45) & (share < 1.0))
    rim_of_neck = grow(skin_faces, np.flatnonzero(outer & ~neck & ~bag), 1, n_skin) & neck
    masks["neck_top"] = padded(rim_of_neck)
    masks["skin"] = is_skin & ~masks["hair"] & ~masks["lips_tight"] & ~masks["boundary"]

    # single points
    height = np.quantile(y[neck], 0.45)
    for name, sign in (("left", 1), ("right", -1)):
        cost = np.where(neck, np.abs(y - height) * 4 - sign * x, np.inf)
        masks[f"neck_{name}_point"] = np.isin(np.arange(count), [np.argmin(cost)])
    for name, sign in (("front", 1), ("back", -1)):
        middle = np.abs(x[bottom]) * 100 - sign * z[bottom]
        masks[f"{name}_middle_bottom_point_boundary"] = np.isin(np.arange(count), [bottom[np.argmin(middle)]])
    ball_left = np.arange(count) >= n_skin
    masks["left_half"] = np.where(is_skin, padded(left), ball_left & (vertices[:, 0] > 0))
    masks["right_half"] = np.where(is_skin, padded(right), ball_left & (vertices[:, 0] < 0))

    fields = {
        "ring_distance": np.minimum(ring_distance, 0.06),
        "rim_distance": np.minimum(np.minimum(*rim_distance), 0.05),
        "nostril": nostril.astype(float),
        "bag": bag.astype(float),
        "socket": masks["_sockets"][:n_skin].astype(float),
        "ear": smoothed(skin_faces, ear.astype(float), 3),
        "nose": supports["nose"],
        "scalp": scalp.astype(float),
        "upper": is_upper.astype(float),
    }
    regions = {name: np.flatnonzero(mask) for name, mask in masks.items() if not name.startswith("_")}
    return regions, fields
