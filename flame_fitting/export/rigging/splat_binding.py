"""Splats bound to a fitted head, and posed with it.

Skin goes where the head's surface takes it, the more so the nearer it is and the better its match is trusted; hair,
shoulders, eyeballs and what is in the mouth turn with joints. Weights are those of a mesh's rig: taken from the head
where matches are trusted, inpainted elsewhere.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.avatar.bound_splats import bound_splats
from flame_fitting.avatar.splat_moving import moved
from flame_fitting.avatar.splat_splitting import split
from flame_fitting.avatar.splats import Splats, joined
from flame_fitting.errors import InputError
from flame_fitting.export.head_rig import JOINTS, NECK, ROOT
from flame_fitting.export.rigging.correspondence import Correspondence
from flame_fitting.export.rigging.deformation_transfer import carried, deformation_gradients
from flame_fitting.export.rigging.fitted_head import FittedHead
from flame_fitting.export.rigging.parts import JOINT_OF, Role
from flame_fitting.export.rigging.splat_correspondence import Eye, SplatMatches, correspond_splats, neck_end
from flame_fitting.export.rigging.weights import inpainted

_FAR = 0.025
"""Metres from the head beyond which no surface takes a splat along: it turns with the skull, or below with the root."""
_BELOW = 0.03
"""Metres from the head beyond which what lies below the neck's end stays with the root."""
_GRID = 0.006
"""Metres between the splats whose weights are inpainted; others take those of their neighbours."""
_LEAST, _MOST = 0.3, 4.0
"""Stretch, along any direction, within which splats follow a surface."""
_ABOUT, _SMALL = 0.015, 0.001
"""Metres from lids and lips within which splats are split into smaller ones than so many metres."""
_RIM, _SUNK = 0.12, 0.88
"""Radians from the rim of a lid within which eyeballs sink below it, and to which part of their radius."""
_ON_FACE = 0.01
"""Share of splats whose matches are trusted, at least, where a fit and an avatar are of one another."""


@dataclass(frozen=True, eq=False)
class Binding:
    """N splats on the head that they were fitted with."""

    splats: Splats
    """Head space, metres."""
    match: Correspondence
    role: Int[ndarray, " N"]
    weights: Float[ndarray, "N 5"]
    """Of joints."""
    on_surface: Float[ndarray, " N"]
    """How far each is taken along by the surface, 0..1; for the rest by joints."""
    bound_face: Int[ndarray, " N"]
    """Of the head model, whose triangle alone would do: that of the match, or one that moves as the splat does."""
    finer: "Binding | None" = None
    """What is posed in their stead: about lids and lips with many small splats for one that is large."""

    def posed(self, rest: FittedHead, target: FittedHead) -> Splats:
        """The splats as the head goes from `rest`, which they are bound to, to `target`; head space."""
        if self.finer is not None:
            return self.finer.posed(rest, target)
        points, corners = self.splats.means, rest.faces[self.match.face]
        gradients = deformation_gradients(rest.vertices, target.vertices, rest.faces)
        there, maps = carried(corners, self.match.barycentric, rest.vertices, target.vertices, gradients, points)
        joints = joint_motion(rest, target)
        skin = np.einsum("nj,jab->nab", self.weights, joints)
        by_joints = np.einsum("nab,nb->na", skin[:, :3, :3], points) + skin[:, :3, 3]
        share = self.on_surface[:, None]
        maps = share[..., None] * maps + (1 - share[..., None]) * skin[:, :3, :3]
        places = self._behind_lids(share * there + (1 - share) * by_joints, rest, target)
        return moved(self.splats, places, _bounded(maps))

    def taken(self, rows: Int[ndarray, " M"]) -> "Binding":
        """Only some of them."""
        match = replace(
            self.match,
            **{name: getattr(self.match, name)[rows] for name in ("face", "barycentric", "distance", "trusted")},
            side={name: side[rows] for name, side in self.match.side.items()},
        )
        own = {name: getattr(self, name)[rows] for name in ("role", "weights", "on_surface", "bound_face")}
        return replace(self, splats=self.splats.taken(rows), match=match, **own)

    def _behind_lids(
        self, places: Float[ndarray, "N 3"], rest: FittedHead, target: FittedHead
    ) -> Float[ndarray, "N 3"]:
        """Eyeballs sink where lids go over them: nothing else tells a cornea from a lid where both are thin."""
        out = places.copy()
        for kind in (Role.LEFT_EYE, Role.RIGHT_EYE):
            rows = np.flatnonzero(self.role == kind)
            if len(rows):
                before, eye = Eye(rest, JOINT_OF[kind]), Eye(target, JOINT_OF[kind])
                covered = _covered(eye.within(places[rows])) - _covered(before.within(self.splats.means[rows]))
                off = places[rows] - eye.center
                height = np.linalg.norm(off, axis=1) / eye.radius
                lower = height + np.maximum(covered, 0) * np.minimum(_SUNK - height, 0)
                out[rows] = places[rows] + off * (lower / np.maximum(height, 1e-9) - 1)[:, None]
        return out


def bind(splats: Splats, head: FittedHead) -> Binding:
    """Binds splats in head space (metres). Raises InputError where none lie on the head's face."""
    large = _large(splats, head)
    small = split(splats.taken(large), _SMALL)
    every = joined(splats, small)
    whole = _bound(every, head)
    count = len(splats)
    kept = np.concatenate([np.setdiff1d(np.arange(count), large), np.arange(count, len(every))])
    return replace(whole.taken(np.arange(count)), finer=whole.taken(kept) if len(large) else None)


def _bound(splats: Splats, head: FittedHead) -> Binding:
    found = correspond_splats(splats, head)
    match = found.match
    if match.trusted.mean() < _ON_FACE:
        raise InputError(
            "No splats of the avatar lie on the fitted face. Look at the fit's report.html, and fit it again."
        )
    below = _below(splats.means, match, head)
    count = len(JOINTS)
    # of each joint: with the surface, and without it
    own = np.zeros((len(splats), 2 * count))
    own[:, :count] = np.einsum("nk,nkj->nj", match.barycentric, head.weights[head.faces[match.face]])
    own[:, :count] /= own[:, :count].sum(axis=1, keepdims=True)
    skin = found.role == Role.SKIN
    away = (np.abs(match.distance) > _FAR) & ~below & skin
    for rows, joint in ((below, ROOT), (away, NECK), *((found.role == kind, j) for kind, j in JOINT_OF.items())):
        own[rows] = np.eye(2 * count)[count + joint]
    own[skin] = _spread(splats.means[skin], (match.trusted | below | away)[skin], own[skin])
    share = own[:, :count].sum(axis=1)
    weights = own[:, :count] + own[:, count:]
    return Binding(splats, match, found.role, weights, share, _single_faces(splats, found, below, head))


def _large(splats: Splats, head: FittedHead) -> Int[ndarray, " M"]:
    """Splats about lids and lips that are larger than what moves there."""
    from scipy.spatial import cKDTree

    rims = [opening.rims.reshape(-1, 3) for opening in head.openings.values()]
    if not rims:
        return np.zeros(0, dtype=np.int64)
    near = cKDTree(np.concatenate(rims)).query(splats.means)[0] < _ABOUT
    return np.flatnonzero(near & (np.partition(splats.scales, 1, axis=1)[:, 1:].max(axis=1) > _SMALL))


def joint_motion(rest: FittedHead, target: FittedHead) -> Float[ndarray, "5 4 4"]:
    """What takes each joint's surroundings from one pose to another."""
    out = np.tile(np.eye(4), (len(JOINTS), 1, 1))
    for joint in range(len(JOINTS)):
        turn = target.axes[joint] @ rest.axes[joint].T
        out[joint, :3, :3] = turn
        out[joint, :3, 3] = target.joints[joint] - turn @ rest.joints[joint]
    return out


def binding_arrays(binding: Binding, head: FittedHead, head_from_world: Float[ndarray, "4 4"]) -> dict[str, ndarray]:
    """What binding.npz holds: see docs/conventions.md."""
    match, splats = binding.match, binding.splats
    faces = binding.match.face
    place = np.einsum("nk,nkc->nc", match.barycentric, head.vertices[head.faces[faces]])
    bound = bound_splats(splats, head.vertices, head.faces, faces, place)
    assert splats.row is not None
    return {
        "row": splats.row.astype(np.int32),
        "face": faces.astype(np.int32),
        "barycentric": match.barycentric.astype(np.float32),
        "offset": bound.means.astype(np.float32),
        "rotation": bound.quats,
        "scale": bound.scales,
        "distance": match.distance.astype(np.float32),
        "trusted": match.trusted,
        "role": binding.role.astype(np.uint8),
        "weights": binding.weights.astype(np.float32),
        "on_surface": binding.on_surface.astype(np.float32),
        "head_from_world": np.asarray(head_from_world, dtype=np.float64),
        "head_model": np.array(head.model.name),
        "head_sha256": np.array(head.model.file_hash),
    }


def _bounded(maps: Float[ndarray, "N 3 3"]) -> Float[ndarray, "N 3 3"]:
    """Maps that stretch within `_LEAST` and `_MOST`, and do not mirror."""
    u, stretch, vt = np.linalg.svd(maps)
    good = (stretch >= _LEAST).all(axis=1) & (stretch <= _MOST).all(axis=1) & (np.linalg.det(maps) > 0)
    vt[np.linalg.det(u @ vt) < 0, 2] *= -1
    return np.where(good[:, None, None], maps, (u * stretch.clip(_LEAST, _MOST)[:, None, :]) @ vt)


def _covered(within: Float[ndarray, " N"]) -> Float[ndarray, " N"]:
    """How far lids cover what lies so many radians between them: 1 at their rims and behind."""
    return np.clip(1.0 - within / _RIM, 0.0, 1.0)


def _below(points: ndarray, match: Correspondence, head: FittedHead) -> ndarray:
    return np.asarray((points[:, 1] < neck_end(head)) & (np.abs(match.distance) > _BELOW))


def _spread(points: ndarray, known: ndarray, values: Float[ndarray, "N K"]) -> Float[ndarray, "N K"]:
    """Values of all points from those of the known ones: inpainted on a few that stand for all."""
    from scipy.spatial import cKDTree

    cell = np.floor(points / _GRID).astype(np.int64)
    # known ones come first in their cells
    order = np.lexsort((~known, *cell.T))
    first = np.ones(len(points), dtype=bool)
    first[1:] = (cell[order][1:] != cell[order][:-1]).any(axis=1)
    chosen = order[first]
    if known[chosen].all() or not known.any():
        return values
    mixed = inpainted(points[chosen], None, known[chosen], values[chosen])
    free = np.flatnonzero(~known)
    apart, near = cKDTree(points[chosen]).query(points[free], k=min(4, len(chosen)))
    share = 1 / np.maximum(apart.reshape(len(free), -1), 1e-5)
    out = values.copy()
    out[free] = np.einsum("nk,nkj->nj", share / share.sum(axis=1, keepdims=True), mixed[near.reshape(len(free), -1)])
    return out


def _single_faces(splats: Splats, found: SplatMatches, below: ndarray, head: FittedHead) -> Int[ndarray, " N"]:
    """Triangles for those who know of one each and of no weights."""
    from flame_fitting.maths.closest import TriangleTree

    out = found.match.face.copy()
    weights = head.weights[head.faces].mean(axis=1)
    still = np.flatnonzero(head.skin & (weights[:, ROOT] > 0.9))
    if below.any() and len(still):
        out[below] = still[TriangleTree(head.vertices, head.faces[still]).closest(splats.means[below]).face]
    return out
