"""Two blendshapes that shut the lids of a head model whose expressions do not: the subject's left and right ones.

The convention is that of metrical-tracker (Zielonka et al., "Towards metrical reconstruction of human faces", ECCV
2022) and SMIRK (Retsinas et al., "3D facial expressions through analysis-by-neural-synthesis", CVPR 2024): two
coefficients, left and right, 0 as the template has its lids and 1 shut. The shapes are made here, of the head's own
geometry: lids turn about the axis through the eyeball's centre from side to side, the upper one most of the way, until
their rims meet, and what is above and below follows the less the farther away it is. A blendshape is straight where a
lid goes around a ball, so lids end so far in front of it that the way there does not cut it. Joints stay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.spatial import cKDTree

from flame_fitting.errors import InputError
from flame_fitting.head.apertures import (
    LID_COLUMNS,
    Apertures,
    closing_amounts,
    closing_expression,
    find_apertures,
    lid_rims,
)
from flame_fitting.head.model import HeadModel
from flame_fitting.head.regions import fit_sphere

EYES = (("left", 3), ("right", 4))
"""The subject's, in the order of the coefficients, and their joints."""
_COLUMNS = 24
"""Along each rim, between the corners of the eye."""
_LOWER = 0.25
"""Share of the opening that the lower lid closes."""
_FOLLOWS = {"upper": 0.010, "lower": 0.009}
"""Metres from the rim from which on skin stands still: less than to the brow, and to the cheek."""
_CORNERS = {"inner": 0.005, "outer": 0.0035}
"""Metres from where the eyeball is seen no more to where the lids meet."""
_RIGID = 0.0015
"""Metres from the rim that move as it does."""
_GAP = 0.0003
"""Metres between lids and eyeball, at least: triangles cut across what their corners keep clear of."""
_SUNK = 0.0015
"""Metres that lids of the template may lie in the eyeball; what is deeper lines the socket and is not seen."""
_MOST = 0.003
"""Metres that a lid is pushed away from the eyeball, at most."""
_WAY = (0.5, 0.75, 1.0)
"""Coefficients at which lids are kept clear of the eyeball. Nearer to rest they stand where the template has them."""
_SPREAD = 0.003
"""Metres over which a push is shared."""
_BUMP = np.radians(6.0)
"""Directions of the eyeball's own vertices that tell its radius in a direction."""
_ROUNDS = 5
POORLY = (0.1, 0.5, 4.0)
"""Where an expression shuts eyes poorly: gaps of this share of their opening are left, the rest of the face moves by
this share of what lids do, or a coefficient is as large as this."""


@dataclass(frozen=True)
class ClosingByExpression:
    """How well a head model's expression alone shuts its eyes, from the template."""

    left_open: float
    """Mean distance of the rims over that on the template."""
    rest_moves: float
    """95th percentile of how far vertices of the face beside the eyes move, over that of the lids; infinite where these
    do not move."""
    largest: float
    """Largest coefficient, sigma."""

    @property
    def _measured(self) -> tuple[float, float, float]:
        return self.left_open, self.rest_moves, self.largest

    @property
    def poor(self) -> bool:
        """Whether the head needs the blendshapes."""
        return any(value > most for value, most in zip(self._measured, POORLY, strict=True))

    def __str__(self) -> str:
        if not self.largest:
            return "there are none"
        return (
            f"{100 * self.left_open:.0f} % of their opening is left at coefficients up to {self.largest:.1f}, the rest "
            f"of the face moves by {100 * self.rest_moves:.0f} % of what lids do"
        )


def closing_by_expression(head: HeadModel, apertures: Apertures | None = None) -> ClosingByExpression:
    """Measures `closing_expression` on the template. Raises InputError where the head has no lids or lips to see."""
    apertures = find_apertures(head) if apertures is None else apertures
    template, faces = head.v_template.double().cpu(), head.faces.cpu()
    lids = slice(0, 2 * LID_COLUMNS)
    before = apertures.gaps(template[None], faces)[0, lids].abs().mean()
    coefficients = closing_expression(head, apertures, template.numpy()) if head.n_expr else np.zeros(0)
    moved = head.exprdirs.double().cpu() @ torch.as_tensor(coefficients)
    after = apertures.gaps((template + moved)[None], faces)[0, lids].abs().mean()
    far = moved.norm(dim=-1).numpy()
    lid, eye = (head.region_mask(*names).cpu().numpy() for names in (("eyelids",), ("eye_region", "eyes", "eyeballs")))
    face = head.region_mask("face").cpu().numpy() & ~eye & ~lid
    of_lids, of_rest = (float(np.percentile(far[mask], 95)) if mask.any() else 0.0 for mask in (lid, face))
    largest = float(np.abs(coefficients).max(initial=0.0))
    return ClosingByExpression(float(after / before), of_rest / of_lids if of_lids else np.inf, largest)


def closing_eyelids(head: HeadModel, apertures: Apertures, vertices: Float[ndarray, "V 3"]) -> Float[ndarray, "2"]:
    """The coefficients by which the gaps of each eye of an unposed head, `vertices`, are 0 by least squares."""
    shapes = np.moveaxis(head.eyelids.double().cpu().numpy(), 2, 0)
    return closing_amounts(apertures, head.faces.cpu(), vertices, shapes)


def with_eyelids(head: HeadModel) -> HeadModel:
    """The head model itself, with the blendshapes as its own. Raises InputError where it has no eyes to shut."""
    if not head.n_eyelids:
        head.set_eyelids(eyelid_shapes(head))
    return head


def with_chosen_eyelids(
    head: HeadModel, wish: Literal["auto", "yes", "no"], notify: Callable[[str], None] | None = None
) -> HeadModel:
    """The head model, with the blendshapes where they are asked for; auto: where its expressions shut eyes poorly.

    `notify` is told why. Raises InputError where they are asked for and the head has no eyes to shut.
    """
    if wish == "no":
        return head
    try:
        closing = closing_by_expression(head)
    except InputError:
        return with_eyelids(head) if wish == "yes" else head
    if wish == "auto" and not closing.poor:
        return head
    if notify is not None:
        notify(f"eyelids: two components shut the eyes (by expressions of the head model {head.name}: {closing})")
    return with_eyelids(head)


def eyelid_shapes(head: HeadModel) -> Float[ndarray, "V 3 2"]:
    """The blendshapes, left and right, metres for a coefficient of 1. Raises InputError as `with_eyelids`."""
    template = head.v_template.detach().double().cpu().numpy()
    faces, weights = head.faces.cpu().numpy(), head.weights.detach().double().cpu().numpy()
    teeth = head.face_mask("teeth").cpu().numpy()
    skin = (weights[:, 3:5] < 0.5).all(1) & ~head.region_mask("teeth").cpu().numpy()
    out = np.zeros((len(template), 3, 2))
    for number, (side, joint) in enumerate(EYES):
        ball = weights[faces].mean(1)[:, joint] > 0.5
        if not ball.any():
            raise InputError(f"the head model {head.name} has no {side} eyeball, so that its lids cannot be shut.")
        out[..., number] = _shape(template, faces, ball, teeth, skin)
    return out


def _shape(
    template: Float[ndarray, "V 3"],
    faces: Int[ndarray, "F 3"],
    ball: Bool[ndarray, " F"],
    teeth: Bool[ndarray, " F"],
    skin: Bool[ndarray, " V"],
) -> Float[ndarray, "V 3"]:
    """One eye's."""
    globe = np.unique(faces[ball])
    centre, _ = fit_sphere(template[globe])
    eye = _Eye(template, centre, faces, globe, lid_rims(template, faces, ball, teeth, False, _COLUMNS))
    near = np.flatnonzero(skin & (np.linalg.norm(eye.vertices, axis=1) < 0.05) & (eye.vertices[:, 2] > -0.005))
    out = np.zeros_like(template)
    opening = eye.opening.copy()
    for _ in range(_ROUNDS):  # rims are points of triangles, whose corners each turn by what is their own
        out[near] = eye.moved(near, opening)
        upper, lower = (eye.rim(eye.vertices + out, k) for k in (0, 1))
        opening = opening + (upper - lower)[:, 1] / np.hypot(lower[:, 1], lower[:, 2])
    return out


class _Eye:
    """One eye, around its centre; angles about the axis from side to side, 0 to the front, upward."""

    def __init__(self, template: ndarray, centre: ndarray, faces: ndarray, globe: ndarray, rims: list) -> None:
        self.vertices, self._faces = template - centre, faces
        vertices = self.vertices
        self._rims = [(np.array([r[k][0] for r in rims]), np.array([r[k][1] for r in rims])) for k in (0, 1)]
        upper, lower = (self.rim(vertices, k) for k in (0, 1))
        self._x = 0.5 * (upper[:, 0] + lower[:, 0])
        inner_first = centre[0] > 0
        self._corners = [_CORNERS[name] for name in (("inner", "outer") if inner_first else ("outer", "inner"))]
        self.opening = _angle(upper) - _angle(lower)
        self._meet = _angle(lower) + _LOWER * self.opening
        self._trees = [cKDTree(_finely(points)) for points in (upper, lower)]
        length = np.linalg.norm(vertices[globe], axis=1)
        self._directions, self._radii = cKDTree(vertices[globe] / length[:, None]), length

    def rim(self, vertices: ndarray, number: int) -> Float[ndarray, "N 3"]:
        """Points of the upper (0) or the lower (1) rim."""
        face, share = self._rims[number]
        return np.einsum("nkc,nk->nc", vertices[self._faces[face]], share)

    def radius(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, " N"]:
        """Of the eyeball, towards points: the largest thereabouts, so that a cornea may look about a little."""
        directions = points / np.linalg.norm(points, axis=1, keepdims=True)
        around = self._directions.query_ball_point(directions, 2 * np.sin(_BUMP / 2))
        nearest = self._directions.query(directions)[1]
        return np.array([self._radii[[one, *some]].max() for one, some in zip(nearest, around, strict=True)])

    def moved(self, ids: Int[ndarray, " N"], opening: Float[ndarray, " C"]) -> Float[ndarray, "N 3"]:
        """How vertices move when lids shut that stand apart by these angles."""
        points = self.vertices[ids]
        angle = _angle(points)
        above = angle > np.interp(points[:, 0], self._x, self._meet)
        distance = np.where(above, *(tree.query(points)[0] for tree in self._trees))
        reach = np.where(above, _FOLLOWS["upper"], _FOLLOWS["lower"])
        share = _falling((distance - _RIGID) / (reach - _RIGID))
        own = self._opening_at(points[:, 0], distance, opening)
        turned = _turned(points, share * own * np.where(above, _LOWER - 1, _LOWER))
        push = self._push(points, turned) * (share > 0)
        # a push at one vertex alone would be a spike
        apart = np.linalg.norm(turned[:, None] - turned[None], axis=-1)
        push = (push[None] * np.exp(-((apart / _SPREAD) ** 2))).max(1) * np.minimum(1.0, 2 * share)
        return turned + push[:, None] * turned / np.linalg.norm(turned, axis=1, keepdims=True) - points

    def _opening_at(self, x: ndarray, distance: ndarray, opening: ndarray) -> ndarray:
        """Of the lids at columns x, the smoother the farther from the rim; 0 beyond the corners."""
        step = float(np.diff(self._x).mean())
        grid = self._x[0] + step * np.arange(-2 * _COLUMNS, 3 * _COLUMNS)
        beyond = np.maximum((self._x[0] - grid) / self._corners[0], (grid - self._x[-1]) / self._corners[1])
        known = np.interp(grid, self._x, opening) * np.clip(1 - beyond, 0.0, 1.0) ** 1.5
        width = 0.0005 + 0.3 * distance
        kernel = np.exp(-0.5 * ((x[:, None] - grid) / width[:, None]) ** 2)
        return np.asarray((kernel * known).sum(1) / kernel.sum(1))

    def _push(self, points: ndarray, turned: ndarray) -> ndarray:
        """How far shut lids must stand away from where turning alone puts them, so that they stay clear of the ball."""
        outside = np.linalg.norm(points, axis=1) > self.radius(points) - _SUNK
        out = np.zeros(len(points))
        outward = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        for share in _WAY:
            there = points + share * (turned - points)
            along = there / np.linalg.norm(there, axis=1, keepdims=True)
            missing = self.radius(there) + _GAP - np.linalg.norm(there, axis=1)
            out = np.maximum(out, missing / (share * (along * outward).sum(1)))
        return np.where(outside, np.minimum(out, _MOST), 0.0)


def _angle(points: Float[ndarray, "N 3"]) -> Float[ndarray, " N"]:
    return np.arctan2(points[:, 1], points[:, 2])


def _turned(points: Float[ndarray, "N 3"], angle: Float[ndarray, " N"]) -> Float[ndarray, "N 3"]:
    """Upward about the axis from side to side."""
    x, y, z = points.T
    return np.stack([x, y * np.cos(angle) + z * np.sin(angle), z * np.cos(angle) - y * np.sin(angle)], axis=1)


def _finely(points: Float[ndarray, "N 3"], between: int = 5) -> Float[ndarray, "M 3"]:
    """A line through points, as many more of them."""
    at = np.linspace(0, len(points) - 1, between * (len(points) - 1) + 1)
    return np.stack([np.interp(at, np.arange(len(points)), column) for column in points.T], axis=1)


def _falling(x: ndarray) -> ndarray:
    """From 1 at 0 to 0 at 1, smoothly."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(1 - x**3 * (10 - 15 * x + 6 * x**2))
