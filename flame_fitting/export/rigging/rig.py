"""The rig of an avatar: weights and morph targets for every vertex of its file, joints in its own coordinates."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.mesh import MeshPart, vertices_of
from flame_fitting.capture.camera import transform_points
from flame_fitting.errors import InputError
from flame_fitting.export.head_rig import CORRECTIVE, CORRECTIVE_ANGLE, JAW_JOINT, JOINTS, OPEN, ROOT
from flame_fitting.export.rigging.correspondence import Correspondence, correspond
from flame_fitting.export.rigging.deformation_transfer import DeformationTransfer, carried, deformation_gradients
from flame_fitting.export.rigging.expressions import expressions_of
from flame_fitting.export.rigging.fitted_head import FittedHead
from flame_fitting.export.rigging.lids import lids_of
from flame_fitting.export.rigging.parts import JOINT_OF, Pieces, Role, pieces_of
from flame_fitting.export.rigging.stitching import Surface, stitched
from flame_fitting.export.rigging.weights import inpainted
from flame_fitting.head.actions import BLINK, JAW
from flame_fitting.maths.normals import vertex_normals

_BELOW = 0.03
"""Metres from the head beyond which what lies below the neck's end stays with the root."""
_STILL = 0.05
"""Metres from the head beyond which no expression reaches."""
LEAST = 2e-5
"""Metres: displacements below this are none."""
WHOLE = {
    "mouth": (
        "the avatar's lips are one closed surface: opening the jaw stretches them and parts nothing. Cut the mesh "
        "along the line of the lips, and give it a mouth's inside, for a mouth that opens."
    ),
    "right_eye": "the avatar's right lids are one closed surface: they stay as they are.",
    "left_eye": "the avatar's left lids are one closed surface: they stay as they are.",
}
"""What is said of openings that an avatar does not have."""
NO_EYEBALLS = "the avatar has no eyeballs of its own that could be told: the eyes' joints move nothing, or one eye."
NO_TEETH = "the avatar has no teeth or tongue of its own: an open mouth shows what lies behind its lips."


@dataclass(eq=False)
class Rig:
    """For V vertices of the file's parts, one after the other, and the W points of their surface."""

    surface: Surface
    """Head space, metres."""
    pieces: Pieces
    match: Correspondence
    weights: Float[ndarray, "V 5"]
    displacements: dict[str, Float[ndarray, "W 3"]]
    """Head space, metres, at a weight of 1, from the avatar as it is."""
    joints: Float[ndarray, "5 4 4"]
    """Bind pose in the avatar's coordinates, axes of the head model turned as it was fitted; without scale."""
    parents: tuple[int, ...]
    world_from_head: Float[ndarray, "4 4"]
    warnings: list[str]

    @property
    def metres_per_unit(self) -> float:
        """Of the avatar's unit."""
        return float(1 / np.cbrt(np.linalg.det(self.world_from_head[:3, :3])))

    def moved(self, name: str) -> Float[ndarray, "V 3"]:
        """Displacements of a morph target, the avatar's coordinates and unit."""
        return np.asarray((self.displacements[name] @ self.world_from_head[:3, :3].T)[self.surface.of_vertex])

    @cached_property
    def normals(self) -> Float[ndarray, "V 3"]:
        """Unit normals at rest, the avatar's coordinates."""
        return np.asarray((self.surface.normals @ self._turn.T)[self.surface.of_vertex])

    def turned(self, name: str) -> Float[ndarray, "V 3"]:
        """How a morph target changes the normals."""
        surface = self.surface
        after = vertex_normals(surface.vertices + self.displacements[name], surface.faces)
        return np.asarray(((after - surface.normals) @ self._turn.T)[surface.of_vertex])

    @property
    def _turn(self) -> Float[ndarray, "3 3"]:
        return self.world_from_head[:3, :3] * self.metres_per_unit


def rig_of(
    parts: list[MeshPart], head: FittedHead, head_from_world: Float[ndarray, "4 4"], n_expr: int | None = None
) -> Rig:
    """Rigs the parts of an avatar as they stand in its file, by its fitted head."""
    surface = stitched(parts, transform_points(head_from_world, vertices_of(parts)))
    pieces = pieces_of(surface, head, _names(parts, surface))
    if not (pieces.role == Role.SKIN).any():
        raise InputError(
            "No surface of the avatar lies on the fitted face. Look at the fit's report.html, and fit it again."
        )
    match = correspond(surface, pieces, head)
    weights = _weights(surface, pieces, match, head)
    displacements = _displacements(surface, pieces, match, head, expressions_of(head, n_expr))
    displacements[JAW] = _jaw_open(surface, weights, head, displacements)
    world_from_head = np.linalg.inv(head_from_world)
    return Rig(
        surface,
        pieces,
        match,
        weights[surface.of_vertex],
        displacements,
        _joints(head, pieces, world_from_head),
        tuple(int(parent) for parent in head.model.parents),
        world_from_head,
        [*(WHOLE[name] for name in match.closed), *_missing(pieces)],
    )


def _missing(pieces: Pieces) -> list[str]:
    out = []
    if len(pieces.eye_centers) < 2:
        out.append(NO_EYEBALLS)
    if not len(pieces.in_mouth):
        out.append(NO_TEETH)
    return out


def _jaw_open(surface: Surface, weights: ndarray, head: FittedHead, displacements: dict[str, ndarray]) -> ndarray:
    """ARKit's jawOpen for those who drive no joints: what the jaw's joint does at `OPEN`."""
    axis = head.axes[JAW_JOINT][:, 0]
    turn = Rotation.from_rotvec(OPEN * axis).as_matrix() - np.eye(3)
    corrective = displacements.get(CORRECTIVE, 0.0) * np.sin(OPEN) / np.sin(CORRECTIVE_ANGLE)
    shaped = surface.vertices + corrective
    return np.asarray(corrective + weights[:, [JAW_JOINT]] * ((shaped - head.joints[JAW_JOINT]) @ turn.T))


def _names(parts: list[MeshPart], surface: Surface) -> list[str]:
    """Of each component, the name of a part that it is in."""
    owner = np.repeat(np.arange(len(parts)), [len(part.vertices) for part in parts])
    component = surface.component[surface.of_vertex]
    first = np.unique(component, return_index=True)[1]
    return [parts[owner[vertex]].name for vertex in first]


def _weights(surface: Surface, pieces: Pieces, match: Correspondence, head: FittedHead) -> Float[ndarray, "W 5"]:
    role = pieces.role[surface.component]
    corners = head.faces[match.face]
    own = np.einsum("nk,nkj->nj", match.barycentric, head.weights[corners])
    own = own / own.sum(axis=1, keepdims=True)
    known = match.trusted.copy()
    below = _below(surface, match, head)
    known |= below
    own[below] = np.eye(len(JOINTS))[ROOT]
    skin = role == Role.SKIN
    index, faces = _of(surface, skin)
    out = own.copy()
    out[index] = inpainted(surface.vertices[index], faces, known[index], own[index])
    for kind, joint in JOINT_OF.items():
        out[role == kind] = np.eye(len(JOINTS))[joint]
    return out


def _of(surface: Surface, mask: ndarray) -> tuple[ndarray, ndarray]:
    """Points of a part of the surface, and its triangles in terms of these."""
    faces = surface.faces[mask[surface.faces].all(axis=1)]
    index = np.unique(faces)
    return index, np.searchsorted(index, faces)


def _below(surface: Surface, match: Correspondence, head: FittedHead) -> ndarray:
    rim = head.vertices[head.mask("boundary")]
    end = rim[:, 1].mean() if len(rim) else -np.inf
    return np.asarray((surface.vertices[:, 1] < end) & (np.abs(match.distance) > _BELOW))


def _displacements(
    surface: Surface, pieces: Pieces, match: Correspondence, head: FittedHead, wanted: dict[str, ndarray]
) -> dict[str, ndarray]:
    role = pieces.role[surface.component]
    corners = head.faces[match.face]
    index, faces = _of(surface, role == Role.SKIN)
    still = (np.abs(match.distance) > _STILL) & ~match.trusted
    transfer = DeformationTransfer(
        surface.vertices[index],
        faces,
        match.trusted[index],
        still[index],
        corners[index],
        match.barycentric[index],
        head.vertices,
    )
    on_skin = np.flatnonzero(role == Role.ON_SKIN)
    teeth = role == Role.JAW
    chin = _chin(head)
    lids = lids_of(surface, pieces, {k: v for k, v in match.side.items() if k not in match.closed}, head)
    out = {}
    for name, moved in wanted.items():
        deformed = head.vertices + moved
        own = np.zeros_like(surface.vertices)
        maps = deformation_gradients(head.vertices, deformed, head.faces)
        own[index] = transfer.displacements(deformed, maps)
        if name.startswith("eye"):
            for side, eye in lids.items():
                if name.endswith(side):
                    own = eye.outside(eye.shut(own) if name.startswith(BLINK) else own)
        if len(on_skin):
            there, _ = carried(
                corners[on_skin],
                match.barycentric[on_skin],
                head.vertices,
                deformed,
                maps,
                surface.vertices[on_skin],
            )
            own[on_skin] = there - surface.vertices[on_skin]
        if teeth.any() and name.startswith("jaw") and name != CORRECTIVE and len(chin):
            # lower teeth go where the bone goes, which the skin over the chin tells
            own[teeth] = moved[chin].mean(axis=0)
        own[np.linalg.norm(own, axis=1) < LEAST] = 0.0
        out[name] = own
    return out


def _chin(head: FittedHead) -> ndarray:
    return np.flatnonzero(head.mask("chin") & (head.weights[:, JAW_JOINT] > 0.9))


def _joints(head: FittedHead, pieces: Pieces, world_from_head: ndarray) -> Float[ndarray, "5 4 4"]:
    scale = np.cbrt(np.linalg.det(world_from_head[:3, :3]))
    out = np.tile(np.eye(4), (len(JOINTS), 1, 1))
    for joint, turn in enumerate(head.axes):
        place = pieces.eye_centers.get(joint, head.joints[joint])
        out[joint, :3, :3] = world_from_head[:3, :3] / scale @ turn
        out[joint, :3, 3] = world_from_head[:3, :3] @ place + world_from_head[:3, 3]
    return out
