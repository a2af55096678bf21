"""What rigging asks of a fitted head: its mesh and joints as they were fitted, and the sides of its mouth and eyes."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.export.head_rig import JOINTS, LEFT_EYE, NECK, RIGHT_EYE, ROOT
from flame_fitting.export.rigging.paths import nearest_side, sure
from flame_fitting.fit.result import FitResult
from flame_fitting.head.apertures import LID_COLUMNS, Apertures, apertures_of
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.maths.normals import vertex_normals

OPENINGS = ("mouth", "right_eye", "left_eye")
"""What has an upper and a lower side."""
MARGIN = {"mouth": 0.01, "right_eye": 0.005, "left_eye": 0.005}
"""Metres along the surface by which one side must be nearer than the other."""
_LIPS_REACH = 0.016
"""Metres from the rims of the lips up to which skin tells above from below the mouth."""
_SOCKET = 1.4
"""Of the eyeball's radius: how far from its centre lids and the lining of the socket reach."""
_LID_EDGE = 0.003
"""Metres from the rim beyond which lids tell upper from lower."""


@dataclass(frozen=True, eq=False)
class Opening:
    """The mouth or an eye of the head model."""

    side: Int[ndarray, " V"]
    """1 for vertices above, -1 for those below, 0 for all that do not lie at it."""
    seeds: Int[ndarray, " V"]
    """The same where the outside alone tells: skin so far from the rim that no point near it can be taken for the other
    side; 0 elsewhere."""
    rims: Float[ndarray, "2 C 3"]
    """Points of the upper and the lower rim between its corners, fitted."""
    middle: float
    """Head space, metres."""
    half_width: float


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head model at one timestep of a fit, in head space, metres."""

    model: HeadModel
    fit: FitResult
    """Of that timestep."""
    vertices: Float[ndarray, "V 3"]
    joints: Float[ndarray, "5 3"]
    rotations: Float[ndarray, "5 3 3"]
    """Of each joint against its parent, as fitted."""
    apertures: Apertures | None
    openings: dict[str, Opening] = field(default_factory=dict)
    """By name; without those that the model does not have."""

    @property
    def faces(self) -> Int[ndarray, "F 3"]:
        """Triangles."""
        return np.asarray(self.model.faces.cpu().numpy())

    @property
    def weights(self) -> Float[ndarray, "V 5"]:
        """Skinning weights."""
        return np.asarray(self.model.weights.double().cpu().numpy())

    @cached_property
    def normals(self) -> Float[ndarray, "V 3"]:
        """Unit normals."""
        return vertex_normals(self.vertices, self.faces)

    def mask(self, *names: str) -> Bool[ndarray, " V"]:
        """Vertices in any of these regions."""
        return np.asarray(self.model.region_mask(*names).cpu().numpy())

    @cached_property
    def skin(self) -> Bool[ndarray, " F"]:
        """Triangles that are skin: neither eyeballs nor teeth."""
        hard = (self.weights[:, [LEFT_EYE, RIGHT_EYE]] > 0.5).any(axis=1) | self.mask("teeth", "eyeballs")
        return np.asarray(~hard[self.faces].any(axis=1))

    @cached_property
    def axes(self) -> Float[ndarray, "5 3 3"]:
        """Of each joint, as columns."""
        out: list[ndarray] = []
        for own, parent in zip(self.rotations, self.model.parents, strict=True):
            out.append(own if parent < 0 else out[int(parent)] @ own)
        return np.stack(out)

    @cached_property
    def skull(self) -> Float[ndarray, "3 3"]:
        """Rotation of the skull, which turns with the neck: columns are its own axes, y up and z to the front."""
        return self.rotations[ROOT] @ self.rotations[NECK]

    def posed(self, **changed: ndarray) -> Float[ndarray, "V 3"]:
        """Vertices with some parameters of the fit replaced."""
        return replace(self.fit, parameters=self.fit.parameters | changed).vertices_head(self.model)[0]


def fitted_head(fit: FitResult, model: HeadModel, row: int = 0) -> FittedHead:
    """The fit at a timestep. Raises InputError for a model whose joints are not root, neck, jaw and two eyes."""
    if len(model.parents) != len(JOINTS):
        raise InputError(
            f"the head model {model.name} has {len(model.parents)} joints; an avatar is rigged with "
            f"{len(JOINTS)} ({', '.join(JOINTS)}). Fit it with FLAME or the open head."
        )
    of_row = fit.of_rows([row])
    vertices, joints = (part[0].double().cpu().numpy() for part in of_row.posed(model))
    poses = np.concatenate(
        [of_row.parameters[key].reshape(-1, 3) for key in ("rotation", "neck_pose", "jaw_pose", "eyes_pose")]
    )
    rotations = rotation_matrix(torch.as_tensor(poses, dtype=torch.float64)).numpy()
    apertures = apertures_of(model)
    head = FittedHead(model, of_row, vertices, joints, rotations, apertures)
    if apertures is not None:
        head.openings.update(_openings(head, apertures))
    return head


def _openings(head: FittedHead, apertures: Apertures) -> dict[str, Opening]:
    """Told on the template, where eyes are open and lips do not lie over each other."""
    model = head.model
    template = model.v_template.double().cpu().numpy()
    rims, fitted = (
        apertures.points(torch.as_tensor(each)[None], model.faces.cpu())[0].numpy()
        for each in (template, head.vertices)
    )
    out = {}
    lips = slice(2 * LID_COLUMNS, None)
    out["mouth"] = _mouth(head, template, rims[:, lips], fitted[:, lips])
    for number, name in enumerate(("right_eye", "left_eye")):
        lids = slice(number * LID_COLUMNS, (number + 1) * LID_COLUMNS)
        ball = head.weights[:, LEFT_EYE if name == "left_eye" else RIGHT_EYE] > 0.5
        out[name] = _eye(head, template, ball, rims[:, lids], fitted[:, lids])
    return out


def _above(points: ndarray, rims: ndarray) -> Float[ndarray, " V"]:
    """How far points lie above the middle between two rims, along y."""
    middle = 0.5 * (rims[0] + rims[1])
    order = np.argsort(middle[:, 0])
    return points[:, 1] - np.interp(points[:, 0], middle[order, 0], middle[order, 1])


def _mouth(head: FittedHead, template: ndarray, rims: ndarray, fitted: ndarray) -> Opening:
    lips = head.mask("lips", "lips_tight", "lip_inside")
    red = template[head.mask("lips")] if head.mask("lips").any() else template[lips]
    low, high = red[:, 0].min(), red[:, 0].max()
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    line = _line(rims, middle - half, middle + half)
    from_line = np.linalg.norm(template[:, None] - line[None], axis=2).min(axis=1)
    above = _above(template, rims)
    skin = head.mask("face") & ~lips & (np.abs(template[:, 0] - middle) < 0.8 * half)
    seeds = np.where(skin & (from_line < _LIPS_REACH) & (np.abs(above) > 0.4 * from_line), np.sign(above), 0).astype(
        int
    )
    side = sure(*nearest_side(template, head.faces[head.skin], seeds, 0.12), MARGIN["mouth"])
    side = np.where(lips | (from_line < _LIPS_REACH), side, 0)
    return Opening(side, seeds, fitted, float(middle), float(half))


def _line(rims: ndarray, low: float, high: float) -> Float[ndarray, "N 3"]:
    """The line between two rims, as points from corner to corner."""
    middle = 0.5 * (rims[0] + rims[1])
    order = np.argsort(middle[:, 0])
    x = np.linspace(low, high, 41)
    return np.stack([x, *(np.interp(x, middle[order, 0], middle[order, k]) for k in (1, 2))], axis=1)


def _eye(head: FittedHead, template: ndarray, ball: ndarray, rims: ndarray, fitted: ndarray) -> Opening:
    from flame_fitting.head.regions import fit_sphere

    center, radius = fit_sphere(template[ball])
    middle = float(0.5 * (rims[..., 0].min() + rims[..., 0].max()))
    # columns are spread evenly, with one step left to each corner
    half = 0.5 * float(np.ptp(rims[..., 0])) * (LID_COLUMNS + 1) / (LID_COLUMNS - 1)
    above = _above(template, rims)
    columns = np.abs(template[:, 0] - middle) < half
    near = (np.linalg.norm(template - center, axis=1) < _SOCKET * radius) & ~ball
    side = np.where(near & columns, np.sign(above), 0).astype(int)
    from_rim = np.linalg.norm(template[:, None] - rims.reshape(1, -1, 3), axis=2).min(axis=1)
    outside = head.mask("face", "eye_region", "eyelids") & (template[:, 2] > rims[..., 2].min() - 0.25 * radius)
    narrow = np.abs(template[:, 0] - middle) < 0.8 * half
    reach = (from_rim > _LID_EDGE) & (from_rim < 2.5 * _LID_EDGE)
    seeds = np.where(outside & narrow & reach & ~ball, np.sign(above), 0).astype(int)
    return Opening(side, seeds, fitted, middle, half)
