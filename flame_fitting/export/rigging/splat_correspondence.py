"""For every splat of an avatar the place on its fitted head that it belongs to, and what it follows.

As for vertices (`correspondence.py`), but there is no surface that tells sides and pieces: places and normals do, and
where between its lids and lips the fitted head is open.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.avatar.splat_occlusion import outside_of
from flame_fitting.avatar.splats import Splats
from flame_fitting.export.head_rig import JAW_JOINT, LEFT_EYE, NECK, RIGHT_EYE
from flame_fitting.export.rigging.correspondence import FAR, FAR_INSIDE, Correspondence
from flame_fitting.export.rigging.fitted_head import FittedHead, Opening
from flame_fitting.export.rigging.parts import JOINT_OF, Role
from flame_fitting.maths.closest import TriangleTree, closest_on
from flame_fitting.maths.normals import face_normals

_TURN = 0.002
"""Metres that normals at a right angle count as much as, half of those against each other."""
_CANDIDATES = 8
_AWAY = 0.0
"""Cosine between normals below which a match is trusted only nearer than `_CLOSE`."""
_CLOSE = 0.0015
_BALL = {"above": 0.0025, "beside": 0.0002, "below": 0.004}
"""Metres from an eyeball's surface that its splats lie: above it between the lids (corneas bulge), above it behind
lids, and below it."""
_EDGE, _THICK = np.radians(5.0), 0.0009
"""Near the rims of the lids what stands out of the eyeball by so much (metres) is a lid's edge or a lash."""
_MOUTH = (1.3, 0.022, 0.07)
"""Of the mouth's half width to both sides, metres up and down, metres behind the lips: where teeth and tongue are."""
_DEPTH = 0.003
"""Metres below the skin at which a mouth's inside begins."""
_DEEP = 0.015
"""Metres below the skin of what is no skin any more: it follows the skull."""

OPENING_OF = {LEFT_EYE: "left_eye", RIGHT_EYE: "right_eye"}


@dataclass(frozen=True, eq=False)
class SplatMatches:
    """N splats on their head."""

    match: Correspondence
    role: Int[ndarray, " N"]
    """`Role` of each; all that lies on no face, in no mouth and on no eyeball is skin."""


def correspond_splats(splats: Splats, head: FittedHead) -> SplatMatches:
    """Matches of splats in head space (metres)."""
    points = splats.means
    sides = outside_of(splats).normals
    flat = _flatness(splats)
    skin = np.flatnonzero(head.skin)
    face, barycentric, distance, facing = _nearest(points, sides, flat, head, skin)
    depth = -_above(head, face, barycentric, points, distance)
    role = np.full(len(points), Role.SKIN, dtype=np.int64)
    role[(depth > _DEEP) & (points[:, 1] > neck_end(head))] = Role.HEAD
    inner = _in_mouth(points, head) & (_below_skin(points, head) > _DEPTH)
    inner &= ~(head.mask("lip_inside")[head.faces[face]].any(axis=1) & (distance < FAR_INSIDE))
    role[inner] = np.where(_lower(points[inner], head), Role.JAW, Role.HEAD)
    for kind in (Role.LEFT_EYE, Role.RIGHT_EYE):
        if OPENING_OF[JOINT_OF[kind]] in head.openings:
            role[Eye(head, JOINT_OF[kind]).holds(points)] = kind
    for kind, faces in _faces_of(head).items():
        rows = np.flatnonzero(role == kind)
        if len(rows) and len(faces):
            found = TriangleTree(head.vertices, head.faces[faces]).closest(points[rows])
            face[rows], barycentric[rows], distance[rows] = faces[found.face], found.barycentric, found.distance
    inside = head.mask("lip_inside", "eye_sockets")[head.faces[face]].all(axis=1)
    near = distance < np.where(inside, FAR_INSIDE, FAR)
    trusted = near & ((facing > _AWAY) | (distance < _CLOSE)) & (role == Role.SKIN)
    signed = _above(head, face, barycentric, points, distance)
    side = {name: _side(opening, head, face) for name, opening in head.openings.items()}
    return SplatMatches(Correspondence(face, barycentric, signed, trusted, side, ()), role)


def neck_end(head: FittedHead) -> float:
    """Height at which the head model's neck ends, head space."""
    rim = head.vertices[head.mask("boundary")]
    return float(rim[:, 1].mean()) if len(rim) else -np.inf


def _flatness(splats: Splats) -> Float[ndarray, " N"]:
    """How far the normal of each is one: 1 for a disc, 0 where two axes are equally short."""
    short, middle, _ = np.sort(splats.scales.astype(np.float64), axis=1).T
    return 1.0 - short / np.maximum(middle, 1e-12)


def _nearest(
    points: ndarray, normals: ndarray, flat: ndarray, head: FittedHead, skin: ndarray
) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Triangles near to each point that face as it does, as far as it faces anywhere: with places on them, distances
    and cosines between the normals (1 where there is none)."""
    from scipy.spatial import cKDTree

    of_face = face_normals(head.vertices, head.faces)[0]
    corners = head.vertices[head.faces[skin]]
    share = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4], [1, 4, 4], [4, 1, 4], [4, 4, 1]], dtype=float)
    share /= share.sum(axis=1, keepdims=True)
    samples = np.einsum("sk,fkc->fsc", share, corners).reshape(-1, 3)
    facing = np.repeat(of_face[skin], len(share), axis=0)
    tree = cKDTree(np.concatenate([samples, _TURN * facing], axis=1))
    own = np.concatenate([points, _TURN * flat[:, None] * normals], axis=1)
    among = skin[tree.query(own, k=_CANDIDATES)[1] // len(share)]
    best = np.full(len(points), np.inf)
    face, barycentric, distance = among[:, 0].copy(), np.empty((len(points), 3)), np.empty(len(points))
    for candidate in among.T:
        triangle = head.vertices[head.faces[candidate]]
        weights = closest_on(points, triangle)
        apart = np.linalg.norm(np.einsum("nk,nkc->nc", weights, triangle) - points, axis=1)
        turn = np.linalg.norm(of_face[candidate] - flat[:, None] * normals, axis=1)
        cost = apart**2 + (_TURN * turn) ** 2
        better = cost < best
        best = np.where(better, cost, best)
        face[better], barycentric[better], distance[better] = candidate[better], weights[better], apart[better]
    cosine = (of_face[face] * normals).sum(axis=1)
    return face, barycentric, distance, np.where(flat > 0.3, cosine, 1.0)


def _above(head: FittedHead, face: ndarray, barycentric: ndarray, points: ndarray, distance: ndarray) -> ndarray:
    """Distance, below 0 under the surface."""
    corners = head.faces[face]
    off = points - np.einsum("nk,nkc->nc", barycentric, head.vertices[corners])
    return np.asarray(np.where((off * head.normals[corners].mean(axis=1)).sum(axis=1) < 0, -distance, distance))


def _side(opening: Opening, head: FittedHead, face: ndarray) -> Int[ndarray, " N"]:
    return np.sign(opening.side[head.faces[face]].sum(axis=1)).astype(int)


def _below_skin(points: ndarray, head: FittedHead) -> Float[ndarray, " N"]:
    """How far points lie below the skin that is seen from outside, metres; below 0 above it."""
    inside = head.mask("lip_inside", "eye_sockets", "nostrils")[head.faces].any(axis=1)
    kept = np.flatnonzero(head.skin & ~inside)
    found = TriangleTree(head.vertices, head.faces[kept]).closest(points)
    normals = face_normals(head.vertices, head.faces)[0][kept[found.face]]
    return -((points - found.point) * normals).sum(axis=1)


def _in_mouth(points: ndarray, head: FittedHead) -> Bool[ndarray, " N"]:
    if (mouth := head.openings.get("mouth")) is None:
        return np.zeros(len(points), dtype=bool)
    beside, above, front = ((points - mouth.rims.mean(axis=(0, 1))) @ head.skull).T
    wide, tall, long = _MOUTH
    return (np.abs(beside) < wide * mouth.half_width) & (np.abs(above) < tall) & (front < 0) & (front > -long)


def _lower(points: ndarray, head: FittedHead) -> Bool[ndarray, " N"]:
    """Below the line between the lips, where rows of teeth meet."""
    rims = head.openings["mouth"].rims
    return np.asarray((points - rims.mean(axis=(0, 1))) @ head.skull[:, 1] < 0.0)


class Eye:
    """An eyeball of a head and the lids before it, by directions from its centre."""

    def __init__(self, head: FittedHead, joint: int) -> None:
        from flame_fitting.head.regions import fit_sphere

        self._head = head
        self.center, self.radius = fit_sphere(head.vertices[head.weights[:, joint] > 0.5])
        rims = head.openings[OPENING_OF[joint]].rims
        around, up, _ = (each.reshape(2, -1) for each in _angles((rims - self.center).reshape(-1, 3), head))
        order = np.argsort(around.mean(axis=0))
        at, rim = around.mean(axis=0)[order], up[:, order]
        step = np.diff(at).mean()  # one more to each corner, where the lids meet
        self._at = np.array([at[0] - step, *at, at[-1] + step])
        ends = rim[:, [0, -1]].mean(axis=0)
        self._rims = np.array([[ends[0], *each, ends[1]] for each in rim])

    def within(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, " N"]:
        """Radians by which a direction lies between the lids; below 0 behind them."""
        around, up, _ = _angles(points - self.center, self._head)
        high, low = (np.interp(around, self._at, rim) for rim in self._rims)
        beside = np.minimum(around - self._at[0], self._at[-1] - around)
        return np.minimum(np.minimum(high - up, up - low), beside)

    def holds(self, points: Float[ndarray, "N 3"]) -> Bool[ndarray, " N"]:
        """Between the lids what lies on the eyeball or is its cornea; behind them what is no lid."""
        height = np.linalg.norm(points - self.center, axis=1) - self.radius
        within = self.within(points)
        most = np.where(within > _EDGE, _BALL["above"], np.where(within > 0, _THICK, _BALL["beside"]))
        return np.asarray((height > -_BALL["below"]) & (height < most))


def _angles(directions: ndarray, head: FittedHead) -> tuple[ndarray, ndarray, ndarray]:
    """Around the skull's vertical axis, up from its horizon, and the length."""
    beside, above, front = (directions @ head.skull).T
    length = np.linalg.norm(directions, axis=1)
    return np.arctan2(beside, front), np.arcsin(np.clip(above / np.maximum(length, 1e-12), -1, 1)), length


def _faces_of(head: FittedHead) -> dict[Role, Int[ndarray, " n"]]:
    """Triangles of the head that what is no skin is bound to."""
    weights = head.weights[head.faces].mean(axis=1)
    teeth = head.mask("teeth")[head.faces].all(axis=1)
    lining = head.mask("lip_inside")[head.faces].all(axis=1)
    jaw = (teeth if teeth.any() else lining) & (weights[:, JAW_JOINT] > 0.9)
    skull = weights[:, NECK] > 0.95
    return {
        Role.LEFT_EYE: np.flatnonzero(weights[:, LEFT_EYE] > 0.9),
        Role.RIGHT_EYE: np.flatnonzero(weights[:, RIGHT_EYE] > 0.9),
        Role.JAW: np.flatnonzero(jaw),
        Role.HEAD: np.flatnonzero(skull & ((teeth if teeth.any() else lining) | head.skin)),
    }
