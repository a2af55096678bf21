"""Lids of an avatar over its own eyeballs: they meet when they shut, and no expression takes them into the eyeballs.

Its lids and eyeballs are not quite where those of the fitted head are, and half a millimetre shows there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.export.rigging.fitted_head import FittedHead
from flame_fitting.export.rigging.parts import Pieces, Role
from flame_fitting.export.rigging.stitching import Surface
from flame_fitting.head.apertures import lid_rims
from flame_fitting.head.regions import fit_sphere

_COLUMNS = 21
_OVER = 0.0003
"""Metres that lids pass each other when they shut."""
_LIFT = 0.0004
"""Metres that the rim of the upper lid stands before the lower one then."""
_CLEAR = 0.0002
"""Metres that lids stay off an eyeball, and what their triangles need where they span it."""
_FINE = 4
"""Parts that each edge of an eyeball's triangle is cut into."""
_COVERED = 0.15
"""Between unit vectors: how far from a point of an eyeball a direction still meets it."""
_TOUCHES = 0.0025
"""Metres from an eyeball within which the edges of its lids lie."""
_BURIED = 0.0002
"""Metres into an eyeball beyond which a lid goes on unseen."""
_THICK = 0.0015
"""Metres that the edge of a lid is high."""
_STANDS_OUT = 0.0012
"""Metres by which the edge of a lid goes up or down from column to column, at most."""
_FRONT = 1.2
"""Radians above and below the middle that lids end within."""
_FALLS = 0.45
"""Of the width of an eye: how far from its rim a lid follows it."""


class Eyeball:
    """How far a ball reaches from its centre in every direction in which it has a surface."""

    def __init__(self, corners: Float[ndarray, "F 3 3"], center: Float[ndarray, " 3"]) -> None:
        from scipy.spatial import cKDTree

        self.center = center
        steps = [(i, j, _FINE - i - j) for i in range(_FINE + 1) for j in range(_FINE + 1 - i)]
        points = np.einsum("sk,fkc->sfc", np.array(steps) / _FINE, corners).reshape(-1, 3)
        self._radius = np.linalg.norm(points - center, axis=1)
        self._tree = cKDTree(self.directions(points))

    def directions(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """From the centre, unit length."""
        out = points - self.center
        return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9))

    def off(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, " N"]:
        """Metres outside of it; infinite where it has no surface, as behind half a ball."""
        apart, near = self._tree.query(self.directions(points), k=4)
        beyond = np.linalg.norm(points - self.center, axis=1) - self._radius[near].max(axis=1)
        return np.where(apart[:, 0] < _COVERED, beyond, np.inf)


@dataclass(frozen=True, eq=False)
class Lids:
    """One eye of an avatar, in head space."""

    vertices: Float[ndarray, "W 3"]
    skin: Bool[ndarray, " W"]
    """What is kept out of the eyeball: skin about it."""
    upper: Bool[ndarray, " W"]
    """Of it, what belongs to the upper lid."""
    rims: tuple["Rim", "Rim"]
    """The upper and the lower one."""
    axes: Float[ndarray, "3 3"]
    """Unit vectors, as rows: across the eye, up, to the front."""
    radius: float
    """Metres, of the eyeball."""
    ball: "Eyeball"
    neighbours: Any
    """Sparse (W, W): the mean of the vertices that edges of the lids lead to."""
    clear: Float[ndarray, " W"]
    """Metres off the eyeball that each vertex stays, where it is skin."""

    def shut(self, moved: Float[ndarray, "W 3"]) -> Float[ndarray, "W 3"]:
        """Displacements of a blink, with the edge of the upper lid turned about the eye onto that of the lower one.

        What the fitted head does ends short of it in some places and beyond it in others.
        """
        places = self.vertices + moved
        (at, upper), lower = self.edge(0, places), self.edge(1, places)
        amount = _smooth(np.interp(at, *lower) - upper) - _OVER / self.radius
        step = (at[-1] - at[0]) / (len(at) - 1)
        ends = np.array([at[0] - step, *at, at[-1] + step])
        mine = np.flatnonzero(self.upper)
        along = self.polar(places[mine])[0]
        beside = self.rims[0].beside(self.vertices[mine] @ self.axes[0], self.axes[0])
        near = np.clip(1 - np.linalg.norm(self.vertices[mine] - beside, axis=1) / (_FALLS * np.ptp(ends)), 0, 1)
        near = near * near * (3 - 2 * near)
        turn = near * np.interp(along, ends, [0.0, *amount, 0.0])
        out = moved.copy()
        out[mine] += self._turned(places[mine], turn) - places[mine]
        # over the lower lid, not through it
        reach = np.clip((along - ends[0]) / step, 0, 1) * np.clip((ends[-1] - along) / step, 0, 1)
        out[mine] += (_LIFT * near * reach)[:, None] * self.ball.directions(self.vertices[mine] + out[mine])
        return out

    def outside(self, moved: Float[ndarray, "W 3"]) -> Float[ndarray, "W 3"]:
        """Displacements that leave the skin as far off the eyeball as it was, or a little off."""
        mine = np.flatnonzero(self.skin & (np.abs(moved).max(axis=1) > 0))
        if not len(mine):
            return moved
        out = moved.copy()
        for _ in range(3):
            places = self.vertices[mine] + out[mine]
            push = np.zeros(len(moved))
            push[mine] = np.maximum(self.clear[mine] - self.ball.off(places), 0.0)
            # neighbours come along, so that no single vertex stands out
            push = np.maximum(push, 0.5 * (self.neighbours @ push))[mine]
            out[mine] += push[:, None] * self.ball.directions(places)
        return out

    def edge(self, number: int, places: Float[ndarray, "W 3"]) -> tuple[Float[ndarray, " C"], Float[ndarray, " C"]]:
        """Where a lid ends in every column: along the eye (rising), and how high."""
        rim, sign = self.rims[number], (1, -1)[number]
        along, height = self.polar(rim.points(places))
        last = np.full(rim.column.max() + 1, np.inf)
        np.minimum.at(last, rim.column, sign * height)
        at = np.bincount(rim.column, along) / np.bincount(rim.column)
        return np.maximum.accumulate(at), sign * last

    def polar(self, points: Float[ndarray, "N 3"]) -> tuple[Float[ndarray, " N"], Float[ndarray, " N"]]:
        """Metres along the eye, and radians above its middle as seen from its centre."""
        return points @ self.axes[0], _height(points, self.ball.center, self.axes)

    def _turned(self, points: Float[ndarray, "N 3"], angle: Float[ndarray, " N"]) -> Float[ndarray, "N 3"]:
        """Points turned upwards about the axis across the eye."""
        own = points - self.ball.center
        x, y, z = self.axes @ own.T
        there = np.stack([x, y * np.cos(angle) + z * np.sin(angle), z * np.cos(angle) - y * np.sin(angle)], axis=1)
        return there @ self.axes + self.ball.center


@dataclass(frozen=True, eq=False)
class Rim:
    """Points of the edge of a lid, by columns of the eye from corner to corner; several in each, as edges are thick."""

    rest: Float[ndarray, "N 3"]
    corners: Int[ndarray, "N 3"]
    barycentric: Float[ndarray, "N 3"]
    column: Int[ndarray, " N"]

    def points(self, places: Float[ndarray, "W 3"]) -> Float[ndarray, "N 3"]:
        """Where they are."""
        return np.einsum("nk,nkd->nd", self.barycentric, places[self.corners])

    def beside(self, along: Float[ndarray, " M"], across: Float[ndarray, " 3"]) -> Float[ndarray, "M 3"]:
        """Points of it at rest so far along the eye."""
        number = np.bincount(self.column)
        mean = _smooth(np.stack([np.bincount(self.column, self.rest[:, k]) / number for k in range(3)], axis=1))
        return np.stack([np.interp(along, mean @ across, mean[:, k]) for k in range(3)], axis=1)


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
        out[word] = _lids(surface, side[name], near, rims, surface.faces[ball], center, radius, head.skull[:, 1])
    return out


def _lids(
    surface: Surface,
    side: ndarray,
    near: ndarray,
    rims: list[tuple[tuple[int, ndarray], tuple[int, ndarray]]],
    ball: ndarray,
    center: ndarray,
    radius: float,
    up: ndarray,
) -> Lids:
    hits = [[(surface.faces[pair[k][0]], pair[k][1]) for pair in rims] for k in (0, 1)]
    points = np.array([[weights @ surface.vertices[corners] for corners, weights in row] for row in hits])
    across = points[:, -1].mean(axis=0) - points[:, 0].mean(axis=0)
    across /= np.linalg.norm(across)
    columns = points.mean(axis=0) @ across
    up = up - (up @ across) * across
    front = np.cross(across, up)
    front *= np.sign((points.mean(axis=(0, 1)) - center) @ front)
    axes = np.stack([across, up / np.linalg.norm(up), front / np.linalg.norm(front)])
    eyeball = Eyeball(surface.vertices[ball], center)
    ends = []
    for row, sign in zip(hits, (1, -1), strict=True):
        mine = near & (side == sign) & (np.abs(eyeball.off(surface.vertices)) < _TOUCHES)
        ends.append(_rim(row, columns, _Samples(surface, mine, eyeball, axes), sign, surface.vertices, radius))
    edges = surface.graph.edges
    edges = edges[(near & (side != 0))[edges].all(axis=1)]
    lids = Lids(
        surface.vertices,
        near & (side != 0),
        near & (side > 0),
        (ends[0], ends[1]),
        axes,
        radius,
        eyeball,
        _means(edges, len(near)),
        np.zeros(len(near)),
    )
    length = np.linalg.norm(surface.vertices[edges[:, 0]] - surface.vertices[edges[:, 1]], axis=1)
    spans = np.zeros(len(near))
    np.maximum.at(spans, edges.ravel(), np.repeat(length, 2))
    own = np.flatnonzero(lids.skin)
    # the middle of a chord lies deeper than its ends
    wanted = _CLEAR + np.minimum(spans[own] ** 2 / (8 * radius), 0.0006)
    lids.clear[own] = np.minimum(lids.ball.off(surface.vertices[own]), wanted)
    return lids


def _smooth(values: Float[ndarray, "C ..."]) -> Float[ndarray, "C ..."]:
    """Means with neighbouring columns; the first and the last stay."""
    out = values.copy()
    out[1:-1] = 0.25 * values[:-2] + 0.5 * values[1:-1] + 0.25 * values[2:]
    return out


class _Samples:
    """Points along the edges of a lid, seen from the eyeball's centre."""

    def __init__(self, surface: Surface, mine: ndarray, ball: Eyeball, axes: ndarray, parts: int = 6) -> None:
        edges = surface.graph.edges[mine[surface.graph.edges].all(axis=1)]
        share = np.linspace(0, 1, parts)
        self.edges, self.share = np.repeat(edges, parts, axis=0), np.tile(share, len(edges))
        ends = surface.vertices[self.edges]
        points = ends[:, 0] * (1 - self.share[:, None]) + ends[:, 1] * self.share[:, None]
        self.along = points @ axes[0]
        self.center, self.axes = ball.center, axes
        self.height = _height(points, ball.center, axes)
        self.seen = ball.off(points) > -_BURIED

    def at(self, k: int) -> tuple[ndarray, ndarray]:
        """One of them, as three corners and their shares."""
        a, b = self.edges[k]
        return np.array([a, b, b]), np.array([1 - self.share[k], self.share[k], 0.0])


def _rim(
    row: list[tuple[ndarray, ndarray]],
    columns: ndarray,
    samples: _Samples,
    sign: int,
    vertices: ndarray,
    radius: float,
) -> Rim:
    """The edge of a lid itself, which a fold may hang over: its last points toward the other lid, else the hits."""
    half = 0.5 * np.abs(np.diff(columns)).mean()
    front = samples.seen & (np.abs(samples.height) < _FRONT)
    found = list[list[tuple[ndarray, ndarray]]]()
    last = np.empty(len(columns))
    for number, (column, hit) in enumerate(zip(columns, row, strict=True)):
        there = np.flatnonzero(front & (np.abs(samples.along - column) < half))
        if not len(there):
            found.append([hit])
            last[number] = sign * _height((hit[1] @ vertices[hit[0]])[None], samples.center, samples.axes)[0]
            continue
        height = sign * samples.height[there]
        last[number] = height.min()
        found.append([samples.at(k) for k in there[height < last[number] + _THICK / radius].tolist()])
    # a column in which the edge is not there but something behind it stands out from its neighbours
    beside = [np.median(last[max(k - 2, 0) : k + 3]) for k in range(len(last))]
    kept = [each for each, off in zip(found, np.abs(last - beside), strict=True) if off < _STANDS_OUT / radius]
    corners, barycentric = (np.array([hit[k] for each in kept for hit in each]) for k in range(2))
    column = np.repeat(np.arange(len(kept)), [len(each) for each in kept])
    return Rim(np.einsum("nk,nkd->nd", barycentric, vertices[corners]), corners, barycentric, column)


def _height(points: Float[ndarray, "N 3"], center: ndarray, axes: ndarray) -> Float[ndarray, " N"]:
    """Radians above the middle of an eye, seen from its centre."""
    return np.asarray(np.arctan2(*(axes[1:] @ (points - center).T)))


def _means(edges: ndarray, count: int) -> Any:
    from scipy.sparse import coo_matrix, diags

    both = np.concatenate([edges, edges[:, ::-1]])
    linked = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count)).tocsr()
    return diags(1 / np.maximum(np.asarray(linked.sum(axis=1))[:, 0], 1)) @ linked
