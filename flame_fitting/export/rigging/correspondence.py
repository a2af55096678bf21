"""For every vertex of an avatar the nearest point of its fitted head that it can belong to.

Nearest alone is wrong where surfaces touch: shut lips, lids on each other. There the avatar's own surface tells the
side: along it, the upper lip is near to the skin above the mouth and far from that below.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.export.rigging.fitted_head import MARGIN, FittedHead, Opening
from flame_fitting.export.rigging.parts import Pieces, Role
from flame_fitting.export.rigging.paths import nearest_side, sure
from flame_fitting.export.rigging.stitching import Surface
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.maths.normals import face_normals

FAR, FAR_INSIDE = 0.008, 0.004
"""Metres from the head beyond which a match is not trusted; of what lies in the mouth or behind lids."""
_TURNED = np.cos(np.radians(45.0))
"""Cosine between normals below which a match is not trusted."""
_SEED_FAR = 0.004
"""Metres from the head up to which a vertex tells the side of an opening."""
_PATH = {"mouth": 0.1, "right_eye": 0.05, "left_eye": 0.05}
"""Metres along the surface that a side reaches."""
_DEEP = {"mouth": 0.008, "right_eye": 0.006, "left_eye": 0.006}
"""Metres that the way from lip to lip, or lid to lid, must be longer than over shut rims where there is an opening."""
_CLOSED_BAND = {"mouth": 0.008, "right_eye": 0.004, "left_eye": 0.004}
"""Metres around the rims in which nothing is trusted where an avatar has no opening."""


@dataclass(frozen=True, eq=False)
class Correspondence:
    """One row for each point of the avatar's surface."""

    face: Int[ndarray, " W"]
    """Triangle of the head model."""
    barycentric: Float[ndarray, "W 3"]
    distance: Float[ndarray, " W"]
    """Metres from the head's surface, above 0 outside of it."""
    trusted: Bool[ndarray, " W"]
    """Whether the vertex moves as the head does there: near, facing the same way, on the same side of every opening."""
    side: dict[str, Int[ndarray, " W"]]
    """By opening: 1 above, -1 below, 0 not at it."""
    closed: tuple[str, ...]
    """Openings that the avatar does not have: one surface from lip to lip, or lid to lid."""


def correspond(surface: Surface, pieces: Pieces, head: FittedHead) -> Correspondence:
    """Matches of an avatar's surface in head space (metres)."""
    role = pieces.role[surface.component]
    normals = _outward(surface, head, role)
    skin = np.flatnonzero(head.skin)
    first = TriangleTree(head.vertices, head.faces[skin]).closest(surface.vertices)
    face, barycentric, distance = skin[first.face], first.barycentric.copy(), first.distance.copy()
    facing = _facing(head, face, normals)
    side, closed = {}, []
    for name, opening in head.openings.items():
        seeds = _seeds(opening, head, face, distance, facing, role)
        side[name], up, down = nearest_side(surface.vertices, surface.faces, seeds, _PATH[name])
        side[name][role > Role.ON_SKIN] = 0
        if _is_closed(name, surface, opening, head, seeds, side[name], up, down):
            closed.append(name)
        side[name] = sure(side[name], up, down, MARGIN[name])
    for rows, allowed in _gates(side, closed, head, surface.vertices):
        index = np.flatnonzero(head.skin & allowed)
        found = TriangleTree(head.vertices, head.faces[index]).closest(surface.vertices[rows])
        face[rows], barycentric[rows], distance[rows] = index[found.face], found.barycentric, found.distance
    facing = _facing(head, face, normals)
    inside = head.mask("lip_inside", "eye_sockets")[head.faces[face]].all(axis=1)
    trusted = (facing > _TURNED) & (distance < np.where(inside, FAR_INSIDE, FAR)) & (role == Role.SKIN)
    for name in closed:
        rims = head.openings[name].rims
        low, high = rims.min(axis=(0, 1)) - _CLOSED_BAND[name], rims.max(axis=(0, 1)) + _CLOSED_BAND[name]
        trusted &= ~((surface.vertices > low) & (surface.vertices < high)).all(axis=1)
    point = np.einsum("nk,nkc->nc", barycentric, head.vertices[head.faces[face]])
    sign = np.sign(((surface.vertices - point) * head.normals[head.faces[face]].mean(axis=1)).sum(axis=1))
    return Correspondence(face, barycentric, sign * distance, trusted, side, tuple(closed))


def _outward(surface: Surface, head: FittedHead, role: ndarray) -> Float[ndarray, "W 3"]:
    """Normals of the surface, turned over in components that are wound inside out."""
    normals = surface.normals.copy()
    skin = np.flatnonzero(head.skin)
    found = TriangleTree(head.vertices, head.faces[skin]).closest(surface.vertices)
    facing = _facing(head, skin[found.face], normals)
    near = (found.distance < FAR) & (np.abs(facing) > _TURNED)
    total = np.bincount(surface.component, np.where(near, facing, 0.0))
    normals[(total < 0)[surface.component]] *= -1
    return normals


def _facing(head: FittedHead, face: ndarray, normals: ndarray) -> Float[ndarray, " W"]:
    """Cosine between normals of matched triangles and of vertices."""
    return np.asarray((face_normals(head.vertices, head.faces)[0][face] * normals).sum(axis=1))


def _seeds(
    opening: Opening, head: FittedHead, face: ndarray, distance: ndarray, facing: ndarray, role: ndarray
) -> Int[ndarray, " W"]:
    of_face = opening.seeds[head.faces]
    sign = np.where((of_face != 0).any(axis=1), np.sign(of_face.sum(axis=1)), 0)
    near = (distance < _SEED_FAR) & (facing > _TURNED) & (role == Role.SKIN)
    return np.where(near, sign[face], 0).astype(int)


def _is_closed(
    name: str,
    surface: Surface,
    opening: Opening,
    head: FittedHead,
    seeds: ndarray,
    side: ndarray,
    up: ndarray,
    down: ndarray,
) -> bool:
    """Whether the avatar's surface goes from the upper to the lower side without going in.

    The shortest way across in the middle of the opening is measured against that on the head model from the same skin
    to its rims.
    """
    if not (seeds == 1).any() or not (seeds == -1).any():
        return False
    edges = surface.graph.edges
    across = edges[side[edges[:, 0]] * side[edges[:, 1]] == -1]
    beside = (surface.vertices[across].mean(axis=1) - opening.rims.mean(axis=(0, 1))) @ head.skull[:, 0]
    between = np.abs(beside) < 0.5 * opening.half_width
    across = across[between]
    if not len(across):
        return False
    length = np.linalg.norm(surface.vertices[across[:, 0]] - surface.vertices[across[:, 1]], axis=1)
    way = (np.minimum(up, down)[across].sum(axis=1) + length).min()
    _, head_up, head_down = nearest_side(head.vertices, head.faces[head.skin], opening.seeds, _PATH[name])
    shut = 0.0
    for rim, sign, along in zip(opening.rims, (1, -1), (head_up, head_down), strict=True):
        own = np.flatnonzero(opening.side == sign)
        near = own[np.linalg.norm(head.vertices[own, None] - rim[None], axis=2).argmin(axis=0)]
        shut += float(np.median(along[near]))
    return bool(way < shut + _DEEP[name])


def _gates(
    side: dict[str, ndarray], closed: list[str], head: FittedHead, vertices: ndarray
) -> Iterator[tuple[ndarray, ndarray]]:
    """Rows of vertices of one side, and the head's triangles without those of the other side."""
    for name, opening in head.openings.items():
        if name in closed:
            continue
        low, high = (
            head.vertices[opening.side != 0].min(axis=0) - FAR,
            head.vertices[opening.side != 0].max(axis=0) + FAR,
        )
        near = ((vertices > low) & (vertices < high)).all(axis=1)
        for sign in (1, -1):
            rows = np.flatnonzero((side[name] == sign) & near)
            if len(rows):
                yield rows, (opening.side[head.faces] != -sign).all(axis=1)
