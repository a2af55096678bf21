"""What the connected pieces of an avatar are, by where they lie in and on the fitted head."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.export.head_rig import JAW_JOINT, LEFT_EYE, NECK, RIGHT_EYE
from flame_fitting.export.rigging.fitted_head import FittedHead
from flame_fitting.export.rigging.stitching import Surface
from flame_fitting.head.regions import fit_sphere
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.maths.normals import face_normals

_ON_SKIN, _NEAR_SKIN = 0.005, 0.015
"""Metres that most and nearly all of a brow, a beard or lashes are from the head's skin, at most."""
_SMALL = 0.3
"""Of the face's area: what is larger lies on no face, it is one."""
_FACE = 0.25
"""Of the face's area: what has as much of it is skin, whatever else hangs together with it."""
_ROUND = 0.1
"""How far an eyeball is from a sphere, over its radius: 90 % of its points, at most. Corneas bulge."""
_ROWS_APART = 0.006
"""Metres between the middles of upper and lower teeth, at least."""
_UPPER = 75
"""Percentile of heights that lies above the neck's end where a part is worn on the head, as long hair is."""
_AROUND, _BINS = 0.75, 36
"""Share of the directions from the neck's middle in which clothes about it lie, at least, of so many."""
_HIDDEN = 0.7
"""Share of the points of teeth that lie behind the skin, at least."""


class Role(IntEnum):
    """What a piece follows."""

    SKIN = 0
    """The skin, what is worn on the neck, and all that goes below it: weights and expressions by correspondence."""
    ON_SKIN = 1
    """Brows, lashes, beards: the skin that they lie on."""
    HEAD = 2
    """Hair, glasses, hats, upper teeth: the skull, rigidly."""
    JAW = 3
    """Lower teeth and the tongue: the jaw, rigidly."""
    LEFT_EYE = 4
    RIGHT_EYE = 5


JOINT_OF = {Role.HEAD: NECK, Role.JAW: JAW_JOINT, Role.LEFT_EYE: LEFT_EYE, Role.RIGHT_EYE: RIGHT_EYE}
"""The joint that each rigid piece follows; the skull turns with the neck."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Roles of a surface's components."""

    role: Int[ndarray, " K"]
    """By number of the component."""
    eye_centers: dict[int, Float[ndarray, " 3"]]
    """Of the avatar's own eyeballs, by joint."""
    in_mouth: Int[ndarray, " n"]
    """Components that are teeth, gums or tongue."""


def pieces_of(surface: Surface, head: FittedHead, names: Sequence[str]) -> Pieces:
    """The role of each component of a surface in head space (metres). `names` (K,) are those of the file's parts."""
    component, vertices = surface.component, surface.vertices
    count = int(component.max()) + 1
    tree, outside, face = _outside(head)
    closest = tree.closest(vertices)
    ahead = ((vertices - closest.point) * outside[closest.face]).sum(axis=1)
    on_face = face[closest.face]
    areas, owner = face_normals(vertices, surface.faces)[1], component[surface.faces[:, 0]]
    area = np.bincount(owner, areas, count)
    as_face = ((closest.distance < _ON_SKIN) & on_face)[surface.faces].all(axis=1)
    face_like = np.bincount(owner, areas * as_face, count)
    face_area = float(face_normals(head.vertices, head.faces)[1][head.mask("face")[head.faces].all(axis=1)].sum())
    role = np.full(count, Role.SKIN, dtype=np.int64)
    eyes, mouths, others = dict[int, list[tuple[float, ndarray]]](), list[int](), dict[str, list[int]]()
    rows_of = np.split(np.argsort(component, kind="stable"), np.cumsum(np.bincount(component, minlength=count))[:-1])
    for number, mine in enumerate(rows_of):
        points = vertices[mine]
        if (eye := _eye_of(points, head)) is not None:
            role[number] = Role.LEFT_EYE if eye[0] == LEFT_EYE else Role.RIGHT_EYE
            eyes.setdefault(eye[0], []).append((eye[2], eye[1]))
        elif _in_mouth(points, ahead[mine], head):
            mouths.append(number)
        elif area[number] < _SMALL * face_area and _lies_on(closest.distance[mine], on_face[mine]):
            role[number] = Role.ON_SKIN
        elif face_like[number] < _FACE * face_area:
            others.setdefault(names[number], []).append(number)
    neck = head.vertices[head.mask("boundary")]
    neck_ends = float(neck[:, 1].max()) if len(neck) else float(head.joints[NECK, 1])
    for group in others.values():
        # strands of hair hang below the neck, and go with those of the same part that do not
        points = vertices[np.concatenate([rows_of[number] for number in group])]
        worn = np.percentile(points[:, 1], _UPPER) > neck_ends and not _round_the_neck(points, head)
        role[group] = Role.HEAD if worn else Role.SKIN
    role[mouths] = _rows_of_teeth([vertices[rows_of[number]] for number in mouths], [names[n] for n in mouths], head)
    # a cornea around an eyeball turns about the ball's centre: the larger of the two
    centers = {joint: max(found, key=lambda entry: entry[0])[1] for joint, found in eyes.items()}
    return Pieces(role, centers, np.array(mouths, dtype=np.int64))


def _round_the_neck(points: ndarray, head: FittedHead) -> bool:
    """Whether these are worn on the neck, as collars and necklaces are: all about it, and below the mouth."""
    neck = head.mask("neck") | head.mask("boundary")
    if not neck.any():
        return False
    lips = head.openings["mouth"].rims if "mouth" in head.openings else head.vertices[head.mask("lips")]
    if np.percentile(points[:, 1], 95) > lips[..., 1].mean():
        return False
    flat = (points - head.vertices[neck].mean(axis=0))[:, [2, 0]]
    there = np.histogram(np.arctan2(*flat.T), _BINS, (-np.pi, np.pi))[0] > 0
    return bool(there.mean() > _AROUND)


def _outside(head: FittedHead) -> tuple[TriangleTree, ndarray, ndarray]:
    """The head's skin that is seen from outside, its normals, and which of it is the face."""
    inside = head.mask("lip_inside", "eye_sockets", "nostrils")[head.faces].any(axis=1)
    normals = face_normals(head.vertices, head.faces)[0]
    # lips go on into the mouth, where they face the teeth
    inside |= head.mask("lips", "lips_tight")[head.faces].any(axis=1) & (normals @ head.skull[:, 2] < 0.1)
    kept = head.skin & ~inside
    on_face = head.mask("face", "eyelids", "eye_region", "lips", "lips_tight")[head.faces].any(axis=1)
    return TriangleTree(head.vertices, head.faces[kept]), normals[kept], on_face[kept]


def _eye_of(points: ndarray, head: FittedHead) -> tuple[int, ndarray, float] | None:
    """Joint, centre and radius where these points are an eyeball: round, in its place, and seen between the lids."""
    if len(points) < 12:
        return None
    for joint in (LEFT_EYE, RIGHT_EYE):
        ball = head.weights[:, joint] > 0.5
        if not ball.any():
            continue
        own, size = fit_sphere(head.vertices[ball])
        near = np.linalg.norm(points - own, axis=1)
        if np.median(near) > 1.6 * size:
            continue
        center, radius = fit_sphere(points)
        off = np.abs(np.linalg.norm(points - center, axis=1) - radius)
        if not 0.6 * size < radius < 1.5 * size or np.linalg.norm(center - own) > 0.7 * size:
            continue
        forward = head.vertices[ball] - own
        gaze = forward[np.argmax(forward[:, 2])] / size
        pole = ((points - center) @ gaze).max() > 0.85 * radius and (
            np.linalg.norm(np.cross((points - center) / radius, gaze), axis=1).min() < 0.4
        )
        if np.percentile(off, 90) < _ROUND * radius and pole:
            return joint, center, radius
    return None


def _in_mouth(points: ndarray, ahead: ndarray, head: FittedHead) -> bool:
    mouth = head.openings.get("mouth")
    if mouth is None:
        return False
    own = (points - mouth.rims.mean(axis=(0, 1))) @ head.skull
    off = np.median(own, axis=0)
    beside = np.percentile(np.abs(own[:, 0]), 90) < 1.6 * mouth.half_width
    return bool(beside and abs(off[1]) < 0.035 and -0.09 < off[2] < 0.0 and (ahead < 0.0005).mean() > _HIDDEN)


def _rows_of_teeth(pieces: list[ndarray], names: list[str], head: FittedHead) -> list[int]:
    """Which of the pieces in a mouth the jaw carries: the lower ones of several, else what lies below the lips."""
    if not pieces:
        return []
    lips = head.openings["mouth"].rims.mean(axis=(0, 1))
    height = np.array([np.median((points - lips) @ head.skull[:, 1]) for points in pieces])
    middle = 0.5 * (height.min() + height.max()) if np.ptp(height) > _ROWS_APART else 0.0
    lower = [y < middle or "tongue" in name.lower() for y, name in zip(height, names, strict=True)]
    return [Role.JAW if each else Role.HEAD for each in lower]


def _lies_on(distance: ndarray, on_face: ndarray) -> bool:
    return bool(on_face.mean() > 0.8 and np.median(distance) < _ON_SKIN and np.percentile(distance, 95) < _NEAR_SKIN)
