"""Vertex regions of a FLAME head from its own mesh: topology where the mesh is laid out that way, outlines elsewhere.

Names are those of FLAME_masks.pkl and those that trackers built on FLAME add. The subject's left is +x.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.head import mouth, outlines
from flame_fitting.head.mesh_graph import UNREACHED, MeshGraph
from flame_fitting.head.outlines import HeadMeasures, around, within

OFFICIAL = (
    "face",
    "neck",
    "scalp",
    "boundary",
    "left_eyeball",
    "right_eyeball",
    "left_ear",
    "right_ear",
    "forehead",
    "eye_region",
    "left_eye_region",
    "right_eye_region",
    "nose",
    "lips",
)
"""Names in FLAME_masks.pkl."""

BOUNDARY_RINGS = 3
"""The boundary is all within so many edges of the neck's open rim."""
NECK_TUBE, NECK_MIDDLE, NECK_REACH = (2, 9), 6, 14
"""Rings of edges above the rim: first and last all around, the one that lower and upper part share, the last one
under the chin."""
SOCKET_RINGS, LID_RINGS, LID_CORNER_RING = 2, (3, 7), 5
"""Rings of edges around the innermost vertex of an eye socket."""
IRIS_ANGLE = 25.0
"""Degrees around the optical axis, +z at rest."""

Mask = Bool[ndarray, " V"]


class Eye(NamedTuple):
    """One eyeball and the socket around it."""

    ball: Mask
    center: Float[ndarray, " 3"]
    socket_ring: Int[ndarray, " V"]
    """Edges from the innermost vertex of the socket; UNREACHED where there is none."""


def flame_regions(
    v_template: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], masks: dict[str, ndarray] | None = None
) -> dict[str, Int[ndarray, " n"]]:
    """Vertex ids by region name, sorted. What the mesh does not have (eyeballs, an open mouth) is empty.

    v_template: at rest, metres, head space. masks: vertex ids of FLAME_masks.pkl; they take the place of the
    geometric definition under the same name, and everything else is derived from them.

    The official masks overlap (the hairline is face and scalp, most of the nape is neck and scalp) and leave out the
    sockets, the inside of the mouth and two strips below the ears. Official sets are kept as they are with one
    exception: `face` loses the inside of the lips, and what is scalp, neck or ear.
    """
    vertices = np.asarray(v_template, dtype=np.float64)
    count = len(vertices)
    graph = MeshGraph(faces, count)
    out: dict[str, Mask] = {name: np.zeros(count, dtype=bool) for name in (*OFFICIAL, "nostrils")}

    skin = graph.component == np.argmax(np.bincount(graph.component, minlength=1)) if count else np.zeros(0, dtype=bool)
    eyes = _eyes(graph, vertices, skin)
    for name, eye in eyes.items():
        out[f"{name}_eyeball"] = eye.ball
    rings = mouth.mouth_rings(graph, vertices)
    mouth_ring = np.full(count, UNREACHED) if rings is None else rings.ring
    rim = _neck_rim(graph, vertices)
    rim_ring = graph.hops(rim, NECK_REACH)
    if len(eyes) == 2 and rings is not None:
        mouth_center = vertices[mouth_ring == 0].mean(0)
        measures = outlines.measure(vertices[skin], eyes["left"].center, eyes["right"].center, mouth_center)
        if measures is not None:
            out |= _outlined(graph, vertices, skin, eyes, measures, mouth_ring, rim_ring)
    out["boundary"] = rim_ring <= BOUNDARY_RINGS
    out["lips"] = (mouth_ring >= mouth.LIPS_FROM) & (mouth_ring <= mouth.LIPS_TO)
    out |= _official(masks or {}, count)

    out |= _of_eyes(vertices, eyes, out)
    out |= _of_mouth(mouth_ring, rings)
    out |= _of_neck(graph, vertices, rim, rim_ring, out)
    out["ears"] = out["left_ear"] | out["right_ear"]
    out["hair"] = out["scalp"] & ~out["face"] & ~out["neck"]
    out["face"] = out["face"] & ~(
        out["lip_inside"] | out["eye_sockets"] | out["eyeballs"] | out["ears"] | out["neck"] | out["scalp"]
    )
    out["skin"] = ~(out["eyeballs"] | out["hair"] | out["lips_tight"] | out["boundary"])
    out |= _of_face(vertices, eyes, out)
    out["left_half"], out["right_half"] = _halves(graph, vertices, eyes)
    return {name: np.flatnonzero(mask) for name, mask in out.items()}


def _eyes(graph: MeshGraph, vertices: ndarray, skin: Mask) -> dict[str, Eye]:
    """The two ball-shaped components, if there are such, by side."""
    balls = []
    for number in np.unique(graph.component[~skin]):
        ball = graph.component == number
        if ball.sum() < 20:
            continue
        center, radius = fit_sphere(vertices[ball])
        spread = np.abs(np.linalg.norm(vertices[ball] - center, axis=1) - radius).max()
        if spread < 0.15 * radius:
            balls.append((radius, center, ball))
    # Of more than two, the largest two on opposite sides.
    out = {}
    for name, sign in (("left", 1.0), ("right", -1.0)):
        there = [entry for entry in balls if sign * entry[1][0] > 0.5 * entry[0]]
        if there:
            radius, center, ball = max(there, key=lambda entry: entry[0])
            distance = np.where(skin, np.linalg.norm(vertices - center, axis=1), np.inf)
            apex = np.argmin(distance)
            has_socket = distance[apex] < 0.6 * radius
            out[name] = Eye(ball, center, graph.hops(np.array([apex] if has_socket else [], dtype=int), 12))
    return out


def fit_sphere(points: ndarray) -> tuple[ndarray, float]:
    """Centre and radius by least squares on |p|^2 = 2 c.p + (r^2 - |c|^2)."""
    middle = points.mean(0)
    local = points - middle
    system = np.concatenate([2 * local, np.ones((len(points), 1))], axis=1)
    solution = np.linalg.lstsq(system, (local**2).sum(1), rcond=None)[0]
    return middle + solution[:3], float(np.sqrt(max(solution[3] + (solution[:3] ** 2).sum(), 0.0)))


def _neck_rim(graph: MeshGraph, vertices: ndarray) -> Int[ndarray, " n"]:
    """The lowest open boundary."""
    empty = np.zeros(0, dtype=np.int64)
    return min(graph.boundary_loops, key=lambda loop: vertices[loop, 1].mean(), default=empty)


def _outlined(
    graph: MeshGraph,
    vertices: ndarray,
    skin: Mask,
    eyes: dict[str, Eye],
    measures: HeadMeasures,
    mouth_ring: ndarray,
    rim_ring: ndarray,
) -> dict[str, Mask]:
    """The regions that end along outlines."""
    out: dict[str, Mask] = {}
    iod, between = measures.iod, measures.eyes
    sockets = (eyes["left"].socket_ring <= SOCKET_RINGS) | (eyes["right"].socket_ring <= SOCKET_RINGS)
    outer = skin & ~sockets & (mouth_ring >= mouth.LIPS_FROM)
    for name, sign in (("left", 1.0), ("right", -1.0)):
        out[f"{name}_ear"] = _ear(graph, vertices, outer, measures, sign)
    outer &= ~(out["left_ear"] | out["right_ear"])

    out["nose"] = _nose(vertices, outer & (mouth_ring > mouth.LIPS_TO), measures)
    nostrils = out["nose"] & _facing_itself(graph, vertices, out["nose"], 0.2 * iod)
    turn, off_forward = around(vertices, measures)
    out["nostrils"] = nostrils
    face = outer & ~nostrils & (off_forward < np.interp(turn, *outlines.FACE))
    scalp = outer & ~face & (180 - off_forward < np.interp(turn, *outlines.SCALP)) & (rim_ring >= BOUNDARY_RINGS)
    tube = (rim_ring >= NECK_TUBE[0]) & (rim_ring <= NECK_TUBE[1])
    under_chin = outer & ~face & ~scalp & (rim_ring > NECK_TUBE[1]) & (rim_ring <= NECK_REACH)
    out["face"], out["scalp"], out["neck"] = face, scalp, tube | under_chin

    x, y, _ = ((vertices - between) / iod).T
    out["forehead"] = face & (y > np.interp(np.abs(x), *outlines.FOREHEAD))
    front = outer & (vertices[:, 2] > between[2] - 0.8 * iod) & (mouth_ring > mouth.LIPS_TO)
    out["eye_region"] = front & within(x, y, outlines.EYE_REGION, zero_is_up=True)
    for name, sign in (("left", 1.0), ("right", -1.0)):
        x, y, z = ((vertices - eyes[name].center) / iod).T
        out[f"{name}_eye_region"] = outer & (z > -0.2) & within(sign * x, y, outlines.ONE_EYE)
    return out


def _ear(graph: MeshGraph, vertices: ndarray, outer: Mask, measures: HeadMeasures, sign: float) -> Mask:
    outward = sign * (vertices[:, 0] - measures.eyes[0])
    lateral = outer & (outward > 0.75 * measures.half_width)
    beside = lateral & (vertices[:, 1] > measures.mouth[1]) & (vertices[:, 2] < measures.eyes[2])
    if not beside.any():
        return beside
    # Ears are meshed more finely than the skull behind them.
    lateral &= graph.edge_length(vertices) < 0.13 * measures.iod
    about = vertices[np.argmax(np.where(beside, outward, -np.inf))]
    ear = lateral
    for outline in (outlines.EAR_FROM_TIP, outlines.EAR):
        side_view = (vertices - about) / measures.iod
        ear = lateral & within(side_view[:, 2], side_view[:, 1], outline)
        if not ear.any():
            return ear
        about = 0.5 * (vertices[ear].min(0) + vertices[ear].max(0))
    return graph.majority(graph.filled(ear, outer), 2) & outer


def _nose(vertices: ndarray, outer: Mask, measures: HeadMeasures) -> Mask:
    """Nostrils included, as in the official mask."""
    x, y, _ = (vertices - measures.eyes).T
    drop = measures.eyes[1] - measures.mouth[1]
    middle = outer & (np.abs(x) < 0.25 * measures.iod) & (y < 0) & (y > -0.8 * drop)
    if not middle.any():
        return middle
    tip = vertices[np.argmax(np.where(middle, vertices[:, 2], -np.inf))]
    x, y, z = ((vertices - tip) / measures.iod).T
    return outer & (z > -0.75) & within(x, y, outlines.NOSE, zero_is_up=True)


def _facing_itself(graph: MeshGraph, vertices: ndarray, mask: Mask, reach: float) -> Mask:
    """Vertices of the mask whose normal meets the surface of the mask again within `reach`: insides of cavities.

    Moeller and Trumbore, "Fast, minimum storage ray/triangle intersection", 1997, for all pairs.
    """
    corners = vertices[graph.faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, graph.faces[:, k], area)
    ids = np.flatnonzero(mask)
    direction = normals[ids] / np.maximum(np.linalg.norm(normals[ids], axis=1, keepdims=True), 1e-30)
    a, b, c = corners[mask[graph.faces].any(1)].transpose(1, 0, 2)
    one, two = b - a, c - a
    p = np.cross(direction[:, None], two[None])
    determinant = (p * one).sum(-1)
    inverse = 1 / np.where(np.abs(determinant) < 1e-20, np.inf, determinant)
    s = (vertices[ids] + 0.02 * reach * direction)[:, None] - a
    q = np.cross(s, one[None])
    u, v = (s * p).sum(-1) * inverse, (direction[:, None] * q).sum(-1) * inverse
    distance = (two * q).sum(-1) * inverse
    hit = (inverse != 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0) & (distance < reach)
    out = np.zeros(len(mask), dtype=bool)
    out[ids] = hit.any(1)
    return out


def _official(masks: dict[str, ndarray], count: int) -> dict[str, Mask]:
    out = {}
    for name in OFFICIAL:
        if name not in masks:
            continue
        ids = np.asarray(masks[name]).ravel()
        if ids.dtype == bool or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"FLAME masks: {name} holds no vertex numbers. Give the FLAME_masks.pkl of FLAME's site.")
        if ids.size and (ids.min() < 0 or ids.max() >= count):
            raise InputError(
                f"FLAME masks: {name} names vertices that a head of {count} vertices lacks. "
                "Leave the masks out, or give those of this head."
            )
        out[name] = np.zeros(count, dtype=bool)
        out[name][ids] = True
    return out


def _of_eyes(vertices: ndarray, eyes: dict[str, Eye], known: dict[str, Mask]) -> dict[str, Mask]:
    nothing = np.zeros(len(vertices), dtype=bool)
    out: dict[str, Mask] = {"eye_sockets": nothing.copy()}
    for name in ("left", "right"):
        iris, lid = nothing, nothing
        if name in eyes:
            eye, ball = eyes[name], known[f"{name}_eyeball"]
            axis = vertices - eye.center
            iris = ball & (axis[:, 2] > np.cos(np.radians(IRIS_ANGLE)) * np.linalg.norm(axis, axis=1))
            ring = eye.socket_ring
            corner = vertices[ring == LID_CORNER_RING, 0]
            if len(corner):
                # Rings widen into the temple and the nose at the corners; lids end with the opening.
                lid = (ring >= LID_RINGS[0]) & (ring <= LID_RINGS[1])
                lid &= (vertices[:, 0] >= corner.min()) & (vertices[:, 0] <= corner.max())
            out["eye_sockets"] |= ring <= SOCKET_RINGS
        out[f"{name}_iris"], out[f"{name}_eyelid"] = iris, lid
        out[f"{name}_eye"] = known[f"{name}_eye_region"] | known[f"{name}_eyeball"]
    out["eyeballs"] = known["left_eyeball"] | known["right_eyeball"]
    out["irises"] = out["left_iris"] | out["right_iris"]
    out["eyelids"] = out["left_eyelid"] | out["right_eyelid"]
    out["sclerae"] = out["eyeballs"] & ~out["irises"]
    out["eyes"] = (known["left_eye_region"] | known["right_eye_region"]) & ~out["eye_sockets"]
    return out


def _of_mouth(ring: ndarray, rings: mouth.MouthRings | None) -> dict[str, Mask]:
    out: dict[str, Mask] = {"lip_inside_ring": ring == 0, "lip_inside": ring <= mouth.INSIDE}
    out["lips_tight"] = ring <= mouth.RED
    nothing = np.zeros(0, dtype=np.int64)
    everything = np.arange(len(ring))
    for name, halves in (
        ("lip_inside_ring", None if rings is None else rings.arcs(0)),
        ("lip_outside_ring", None if rings is None else rings.contour_pairs()),
    ):
        upper, lower = halves or (nothing, nothing)
        out[f"{name}_upper"], out[f"{name}_lower"] = np.isin(everything, upper), np.isin(everything, lower)
    # The red of the lower lip is one ring wider than that of the upper one.
    corners_and_lower = (ring == mouth.UPPER_CONTOUR) & ~out["lip_outside_ring_upper"]
    if out["lip_outside_ring_upper"].any():
        out["lips_tight"] |= corners_and_lower
    return out


def _of_neck(
    graph: MeshGraph, vertices: ndarray, rim: ndarray, ring: ndarray, known: dict[str, Mask]
) -> dict[str, Mask]:
    count = len(vertices)
    everything = np.arange(count)
    out: dict[str, Mask] = {"bottomline": np.isin(everything, rim)}
    out["neck_lower"] = known["neck"] & (ring <= NECK_MIDDLE)
    out["neck_upper"] = upper = known["neck"] & (ring >= NECK_MIDDLE)
    # The upper edge: next to something no nearer to the rim that is no neck.
    a, b = graph.edges.T
    top = np.zeros(count, dtype=bool)
    for one, other in ((a, b), (b, a)):
        top[one[upper[one] & ~upper[other] & (ring[other] >= ring[one])]] = True
    out["neck_top"] = top
    middle = np.flatnonzero(ring == NECK_MIDDLE)
    for name, sign in (("left", 1), ("right", -1)):
        point = middle[np.argmax(sign * vertices[middle, 0])] if len(middle) else -1
        out[f"neck_{name}_point"] = everything == point
    for name, sign in (("front", 1), ("back", -1)):
        point = -1
        if len(rim):
            half = rim[sign * (vertices[rim, 2] - vertices[rim, 2].mean()) > 0]
            point = half[np.argmin(np.abs(vertices[half, 0]))]
        out[f"{name}_middle_bottom_point_boundary"] = everything == point
    return out


def _of_face(vertices: ndarray, eyes: dict[str, Eye], known: dict[str, Mask]) -> dict[str, Mask]:
    """Cheeks and chin: parts of the face beside the nose and below the lips."""
    nothing = np.zeros(len(vertices), dtype=bool)
    if len(eyes) < 2 or not known["lips"].any():
        return {"left_cheek": nothing, "right_cheek": nothing, "chin": nothing}
    between = 0.5 * (eyes["left"].center + eyes["right"].center)
    iod = float(np.linalg.norm(eyes["left"].center - eyes["right"].center))
    x, y, _ = (vertices - between).T
    lips = y[known["lips"]]
    plain = known["face"] & ~(known["lips"] | known["nose"] | known["eye_region"] | known["forehead"])
    cheek = plain & (y > lips.min() - 0.2 * iod) & (y < -0.25 * iod) & (np.abs(x) > 0.44 * iod)
    chin = plain & (y < lips.min()) & (np.abs(x) < 0.55 * iod)
    return {"left_cheek": cheek & (x > 0), "right_cheek": cheek & (x < 0), "chin": chin}


def _halves(graph: MeshGraph, vertices: ndarray, eyes: dict[str, Eye]) -> tuple[Mask, Mask]:
    """x >= 0 and x <= 0; both have the midline, also where a template is not quite symmetric."""
    x = vertices[:, 0] - (0.5 * (eyes["left"].center + eyes["right"].center)[0] if len(eyes) == 2 else 0.0)
    a, b = graph.edges.T
    reach = np.zeros(len(vertices))
    width = np.abs(x[a] - x[b])
    np.maximum.at(reach, a, width)
    np.maximum.at(reach, b, width)
    midline = np.abs(x) < 0.3 * reach
    return (x >= 0) | midline, (x <= 0) | midline
