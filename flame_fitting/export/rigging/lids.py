"""Lids of an avatar over its own eyeballs: they meet when they shut, and no expression takes them into the eyeballs.

Its lids and eyeballs are not quite where those of the fitted head are, and half a millimetre shows there.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.export.rigging.fitted_head import FittedHead
from flame_fitting.export.rigging.parts import Pieces, Role
from flame_fitting.export.rigging.stitching import Surface
from flame_fitting.head.apertures import lid_rims
from flame_fitting.head.regions import fit_sphere
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.maths.normals import face_normals

_COLUMNS = 11
_OVER = 0.0003
"""Metres that lids pass each other when they shut."""
_CLEAR = 0.0002
"""Metres that lids stay off an eyeball, and what their triangles need where they span it."""
_FALLS = 0.45
"""Of the width of an eye: how far from its rim a lid follows it."""


@dataclass(frozen=True, eq=False)
class Lids:
    """One eye of an avatar, in head space."""

    vertices: Float[ndarray, "W 3"]
    skin: Bool[ndarray, " W"]
    """What is kept out of the eyeball: skin about it."""
    upper: Bool[ndarray, " W"]
    """Of it, what belongs to the upper lid."""
    faces: Int[ndarray, "2 C 3"]
    """Corners of the triangles that the upper and the lower rim lie on, from corner to corner of the eye."""
    barycentric: Float[ndarray, "2 C 3"]
    across: Float[ndarray, " 3"]
    """Unit vector along the eye."""
    center: Float[ndarray, " 3"]
    ball: TriangleTree
    ball_normals: Float[ndarray, "B 3"]
    clear: Float[ndarray, " W"]
    """Metres off the eyeball that each vertex stays, where it is skin."""

    def shut(self, moved: Float[ndarray, "W 3"]) -> Float[ndarray, "W 3"]:
        """Displacements of a blink, with the upper lid brought onto the lower one."""
        places = self.vertices + moved
        upper, lower = np.einsum("rck,rckd->rcd", self.barycentric, places[self.faces])
        rest = np.einsum("ck,ckd->cd", self.barycentric[0], self.vertices[self.faces[0]])
        down = self._down(upper, lower)
        apart = np.maximum(((lower - upper) * down).sum(axis=1) + _OVER, 0.0)
        along = rest @ self.across
        step = (along[-1] - along[0]) / (len(along) - 1)
        ends = np.array([along[0] - step, *along, along[-1] + step])
        mine = np.flatnonzero(self.upper)
        at = self.vertices[mine] @ self.across
        amount = np.interp(at, ends, [0.0, *apart, 0.0])
        toward = np.stack([np.interp(at, along, down[:, k]) for k in range(3)], axis=1)
        beside = np.stack([np.interp(at, along, rest[:, k]) for k in range(3)], axis=1)
        near = np.clip(1 - np.linalg.norm(self.vertices[mine] - beside, axis=1) / (_FALLS * np.ptp(ends)), 0, 1)
        out = moved.copy()
        out[mine] += (amount * near * near * (3 - 2 * near))[:, None] * toward
        return out

    def outside(self, moved: Float[ndarray, "W 3"]) -> Float[ndarray, "W 3"]:
        """Displacements that leave the skin as far off the eyeball as it was, or a little off."""
        mine = np.flatnonzero(self.skin & (np.abs(moved).max(axis=1) > 0))
        if not len(mine):
            return moved
        out = moved.copy()
        for _ in range(4):
            places = self.vertices[mine] + out[mine]
            radial = places - self.center
            radial /= np.linalg.norm(radial, axis=1, keepdims=True)
            lacks = np.maximum(self.clear[mine] - self._off(places), 0.0)
            out[mine] += lacks[:, None] * radial
        return out

    def _off(self, points: ndarray) -> Float[ndarray, " N"]:
        found = self.ball.closest(points)
        outward = ((points - found.point) * self.ball_normals[found.face]).sum(axis=1) >= 0
        return np.where(outward, found.distance, -found.distance)

    @staticmethod
    def _down(upper: ndarray, lower: ndarray) -> Float[ndarray, "C 3"]:
        """From the upper to the lower rim; where they all but meet as their neighbours."""
        mean = (lower - upper).mean(axis=0)
        apart = lower - upper
        far = np.linalg.norm(apart, axis=1) > 2 * _OVER
        apart = np.where((far & ((apart @ mean) > 0))[:, None], apart, mean)
        return np.asarray(apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-12))


def lids_of(surface: Surface, pieces: Pieces, side: dict[str, ndarray], head: FittedHead) -> dict[str, Lids]:
    """The eyes of an avatar that have an eyeball and lids that part, by Left and Right. `side` as of a match."""
    role = pieces.role[surface.component]
    out = {}
    for word, kind, name in (("Left", Role.LEFT_EYE, "left_eye"), ("Right", Role.RIGHT_EYE, "right_eye")):
        ball = (role == kind)[surface.faces].all(axis=1)
        if not ball.any() or name not in side:
            continue
        center, radius = fit_sphere(surface.vertices[np.unique(surface.faces[ball])])
        near = (np.linalg.norm(surface.vertices - center, axis=1) < 2.5 * radius) & (role == Role.SKIN)
        turned = surface.vertices @ head.skull
        seen = ball | near[surface.faces].all(axis=1)
        try:
            rims = lid_rims(turned, surface.faces, ball, ~seen, kind == Role.LEFT_EYE, _COLUMNS)
        except InputError:
            continue
        if any(not near[surface.faces[hit[0]]].all() for pair in rims for hit in pair):
            continue
        out[word] = _lids(surface, side[name], near, rims, surface.faces[ball], center, radius)
    return out


def _lids(
    surface: Surface,
    side: ndarray,
    near: ndarray,
    rims: list[tuple[tuple[int, ndarray], tuple[int, ndarray]]],
    ball: ndarray,
    center: ndarray,
    radius: float,
) -> Lids:
    corners = np.array([[surface.faces[pair[k][0]] for pair in rims] for k in (0, 1)])
    barycentric = np.array([[pair[k][1] for pair in rims] for k in (0, 1)])
    points = np.einsum("rck,rckd->rcd", barycentric, surface.vertices[corners])
    across = points[:, -1].mean(axis=0) - points[:, 0].mean(axis=0)
    normals = face_normals(surface.vertices, ball)[0]
    middles = surface.vertices[ball].mean(axis=1) - center
    if (normals * middles).sum() < 0:
        normals = -normals
    lids = Lids(
        surface.vertices, near & (side != 0), near & (side > 0), corners, barycentric,
        across / np.linalg.norm(across), center, TriangleTree(surface.vertices, ball), normals, np.zeros(len(near)),
    )  # fmt: skip
    edges = surface.graph.edges[lids.skin[surface.graph.edges].all(axis=1)]
    length = np.linalg.norm(surface.vertices[edges[:, 0]] - surface.vertices[edges[:, 1]], axis=1)
    spans = np.zeros(len(near))
    np.maximum.at(spans, edges.ravel(), np.repeat(length, 2))
    own = np.flatnonzero(lids.skin)
    # the middle of a chord lies deeper than its ends
    wanted = _CLEAR + np.minimum(spans[own] ** 2 / (8 * radius), 0.0006)
    lids.clear[own] = np.minimum(lids._off(surface.vertices[own]), wanted)
    return lids
