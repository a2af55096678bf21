"""Where lips meet lips and lids meet eyeballs, and how far they have passed through each other."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.head.apertures import LID_COLUMNS, Apertures, apertures_of
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.maths.normals import vertex_normals

_JAW = 2
_REACH = 0.006
"""Metres up to which a part may have passed through another one."""
_ALONG = 0.7
"""Share of the way to the other part's surface along its normal, at least: what lies beside a lip is not in it."""


@dataclass(frozen=True, eq=False)
class Meeting:
    """Two parts of a head that may touch, and not pass through each other."""

    own: Int[ndarray, " N"]
    """Vertices that stay outside of the other part."""
    other: Int[ndarray, "F 3"]
    """Triangles of it."""


@dataclass(frozen=True, eq=False)
class Touching:
    """Vertices, each with the nearest point of the part that it may not enter."""

    own: Int[ndarray, " N"]
    other: Int[ndarray, "N 3"]
    """Corners of the triangle."""
    shares: Float[ndarray, "N 3"]
    normal: Float[ndarray, "N 3"]
    """Outward at that point."""
    gap: Float[ndarray, " N"]
    """Along the normal, below 0 where it is inside; the vertices' unit."""

    @staticmethod
    def together(parts: "list[Touching]") -> "Touching":
        """Several as one."""
        none = Touching(
            np.zeros(0, np.int64), np.zeros((0, 3), np.int64), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)
        )
        every = [none, *parts]
        return Touching(**{name: np.concatenate([getattr(one, name) for one in every]) for name in none.__dict__})


def lower_lip(head: HeadModel, apertures: Apertures) -> Bool[ndarray, " F"]:
    """Triangles that are carried by the jaw more than the middle between the lips' rims is."""
    weight, faces = head.weights.cpu().numpy()[:, _JAW], head.faces.cpu().numpy()
    rims = (weight[faces[apertures.face_index]] * apertures.barycentric).sum(-1)[:, 2 * LID_COLUMNS :]
    return np.asarray(weight[faces].mean(1) > rims.mean())


def meetings(head: HeadModel) -> list[Meeting]:
    """Lips against each other, lids and the eyeballs behind them; what a head model lacks is left out."""
    return [Meeting(np.unique(own), other) for own, other in _pairs(head) if len(own) and len(other)]


def _pairs(head: HeadModel) -> Iterator[tuple[ndarray, ndarray]]:
    faces = head.faces.cpu().numpy()
    lips = head.face_mask("lips", "lips_tight").cpu().numpy()
    if (apertures := apertures_of(head)) is not None:
        is_lower = lower_lip(head, apertures)
        upper, lower = faces[lips & ~is_lower], faces[lips & is_lower]
        yield upper, lower
        yield lower, upper
    for side in ("right", "left"):
        lids, ball = (head.face_mask(f"{side}_{part}").cpu().numpy() for part in ("eyelid", "eyeball"))
        yield faces[lids & ~ball], faces[ball]


def touching(vertices: Float[ndarray, "V 3"], parts: list[Meeting], clearance: float) -> Touching:
    """The vertices that are nearer to the other part than `clearance`, or in it."""
    out = []
    for part in parts:
        own = np.setdiff1d(part.own, part.other)
        found = TriangleTree(vertices, part.other).closest(vertices[own])
        corners = part.other[found.face]
        normals = vertex_normals(vertices, part.other)
        normal = np.einsum("nk,nkc->nc", found.barycentric, normals[corners])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        gap = ((vertices[own] - found.point) * normal).sum(1)
        near = (found.distance < _REACH) & (gap < clearance) & (np.abs(gap) > _ALONG * found.distance)
        out.append(Touching(own[near], corners[near], found.barycentric[near], normal[near], gap[near]))
    return Touching.together(out)
