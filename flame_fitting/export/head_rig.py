"""A fitted head in terms of what glTF has: a mesh in rest, joints at fixed places, and morph targets with weights.

The rest is the fitted person's neutral head, all joints at zero. What a fit does to it is exact, up to `_LEFT`: the
expression components that are written are morph targets; expressions move joints a little in the model and not in
glTF, so that joints are shifted; what remains of the pose correctives, of further components and of dynamic offsets
becomes morph targets of the fit's own, as few as tell it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.fit.result import FitResult
from flame_fitting.head.actions import JAW, actions_of
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.maths.svd import leading_components

JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
ROOT, NECK, JAW_JOINT, LEFT_EYE, RIGHT_EYE = range(len(JOINTS))
EYE_JOINTS = (LEFT_EYE, RIGHT_EYE)
CORRECTIVE, CORRECTIVE_ANGLE = "jaw_corrective", 0.25
"""The jaw's pose corrective as a morph target, and the opening (rad) at which its weight is 1."""
OPEN = 0.35
"""Opening of the jaw (rad) that ARKit's jawOpen is at full strength, as a morph target."""
BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")
"""Morph targets that shut lids, where a head has them."""
_EYELIDS = ("eyelid_left", "eyelid_right")
_LEFT, _MOST = 2e-5, 32
"""Metres that morph targets of the fit's own may leave, and how many there are at most."""


@dataclass(eq=False)
class HeadRig:
    """A fitted head at T timesteps; head space, metres."""

    vertices: Float[ndarray, "V 3"]
    """At rest."""
    names: list[str]
    """Of the morph targets."""
    morphs: Float[Tensor, "M V 3"]
    """Displacements at a weight of 1."""
    weights: Float[ndarray, "T M"]
    joints: Float[ndarray, "J 3"]
    """Places at rest, where no joint is turned."""
    rotations: Float[ndarray, "T J 4"]
    """Quaternions (x y z w) against the parent, without jumps of sign."""
    translations: Float[ndarray, "T J 3"]
    """In the parent's frame."""
    shifts: Float[ndarray, "T J 3"]
    """From where the model has a joint, at rest, to where it stands here."""
    left: float
    """Metres that the targets of the fit's own leave of it at most."""

    def local(self, row: int) -> Float[ndarray, "J 4 4"]:
        """Joints in their parents' frames at a timestep."""
        out = np.tile(np.eye(4), (len(self.joints), 1, 1))
        out[:, :3, :3] = Rotation.from_quat(self.rotations[row]).as_matrix()
        out[:, :3, 3] = self.translations[row]
        return out


def rig_of(fit: FitResult, head: HeadModel, n_expr: int | None = None) -> HeadRig:
    """The head of a fit with its first `n_expr` expression components, None for all that it has."""
    given = {key: torch.as_tensor(value).to(head.v_template) for key, value in fit.parameters.items()}
    offsets = given["static_offset"] + given.pop("dynamic_offset", 0.0)
    offset = (
        given["static_offset"].quantile(0.5, dim=0) if len(given["static_offset"]) > 1 else given["static_offset"][0]
    )
    own = {"shape": given["shape"], "static_offset": offset[None]}
    rest, at_rest = (part[0] for part in head(**own))
    names, morphs = _targets(head, own, head.n_expr if n_expr is None else min(n_expr, head.n_expr))

    expr = given["expr"]
    rotations = rotation_matrix(_poses(given))
    weights = torch.zeros(len(expr), len(names)).to(expr)
    for number, name in enumerate(names):
        if name.startswith("expr_") and number < expr.shape[1]:
            weights[:, number] = expr[:, number]
        elif name in _EYELIDS and "eyelids" in given:
            weights[:, number] = given["eyelids"][:, _EYELIDS.index(name)]
        elif name == CORRECTIVE:
            weights[:, number] = corrective_weight(rotations[:, JAW_JOINT])

    written = sum(name.startswith("expr_") for name in names)
    further = torch.einsum("vce,te->tvc", head.exprdirs[..., written : expr.shape[1]], expr[:, written:])
    remainder = further + _corrective(head, rotations) + (offsets - offset)
    if CORRECTIVE in names:
        number = names.index(CORRECTIVE)
        remainder = remainder - weights[:, number, None, None] * morphs[number]
    extra, amounts, left = leading_components(remainder.flatten(1), _LEFT, _MOST, 3)
    names += ["fit_corrective"] if len(extra) == 1 else [f"fit_corrective_{k:02d}" for k in range(len(extra))]

    moved = head(**given | {"static_offset": offsets})
    joints = torch.einsum("jv,tvc->tjc", head.J_regressor, _rest(head, given, offsets))
    shifts = at_rest - joints
    turns, places = _locals(head.parents, rotations, moved.joints, shifts)
    return HeadRig(
        vertices=_numpy(rest),
        names=names,
        morphs=torch.cat([morphs, extra.unflatten(1, (-1, 3))]),
        weights=_numpy(torch.cat([weights, amounts], dim=1)),
        joints=_numpy(at_rest),
        rotations=turns,
        translations=places,
        shifts=_numpy(shifts),
        left=left,
    )


def checked_count(n_expr: int | None, head: HeadModel) -> int | None:
    """`--n-expr`, where the head has as many. Raises InputError."""
    if n_expr is not None and n_expr > head.n_expr:
        raise InputError(f"--n-expr {n_expr}: the head model {head.name} has {head.n_expr} expression components.")
    return n_expr


def expression_names(count: int) -> list[str]:
    """Of the morph targets that are a head model's first expression components."""
    return [f"expr_{k:03d}" for k in range(count)]


def _targets(head: HeadModel, own: dict[str, Tensor], n_expr: int) -> tuple[list[str], Float[Tensor, "M V 3"]]:
    """Names and displacements of all targets that every fit with this head has."""
    names = expression_names(n_expr)
    parts = [head.exprdirs[..., :n_expr].permute(2, 0, 1)]
    eyelids = head.eyelids.permute(2, 0, 1)
    if len(eyelids):
        names, parts = [*names, *_EYELIDS], [*parts, eyelids]
    opening = head.v_template.new_tensor([[CORRECTIVE_ANGLE, 0, 0], [OPEN, 0, 0]])
    pose = opening.new_zeros(2, len(head.parents), 3)
    pose[:, JAW_JOINT] = opening
    corrective = _corrective(head, rotation_matrix(pose))[:1]
    if corrective.abs().max() > 0:
        names, parts = [*names, CORRECTIVE], [*parts, corrective]
    if (actions := actions_of(head)) is not None:
        shown = torch.as_tensor(actions.coefficients).to(head.exprdirs)
        names += actions.names
        parts.append(torch.einsum("vce,ae->avc", head.exprdirs[..., : shown.shape[1]], shown))
    elif len(eyelids):
        names, parts = [*names, *BLINKS], [*parts, eyelids]
    names.append(JAW)
    parts.append(head(**own, jaw_pose=opening[1:]).vertices - head(**own).vertices)
    return names, torch.cat(parts)


def corrective_weight(jaw: Float[Any, "T 3 3"]) -> Float[Any, " T"]:
    """Weight of the target `CORRECTIVE` by the jaw's rotation."""
    return jaw[:, 2, 1] / np.sin(CORRECTIVE_ANGLE)


def uncorrected(head: HeadModel) -> float:
    """Metres that pose correctives which no morph target stands for move a vertex at most, any joint but the root
    turned by `CORRECTIVE_ANGLE` about an axis (the jaw's own opening has its target)."""
    turns = [
        (joint, axis) for joint in range(1, len(head.parents)) for axis in range(3) if (joint, axis) != (JAW_JOINT, 0)
    ]
    pose = head.v_template.new_zeros(len(turns), len(head.parents), 3)
    for row, (joint, axis) in enumerate(turns):
        pose[row, joint, axis] = CORRECTIVE_ANGLE
    return float(_corrective(head, rotation_matrix(pose)).norm(dim=-1).max())


def _poses(given: dict[str, Tensor]) -> Float[Tensor, "T J 3"]:
    """Axis-angle of all joints."""
    eyes = given["eyes_pose"]
    return torch.stack([given["rotation"], given["neck_pose"], given["jaw_pose"], eyes[:, :3], eyes[:, 3:]], dim=1)


def _corrective(head: HeadModel, rotations: Float[Tensor, "T J 3 3"]) -> Float[Tensor, "T V 3"]:
    """Pose correctives: what the model adds to a head at rest before it is skinned."""
    feature = rotations[:, 1:] - torch.eye(3).to(rotations)
    return (feature.flatten(1) @ head.posedirs).unflatten(1, (-1, 3))


def _rest(head: HeadModel, given: dict[str, Tensor], offsets: Float[Tensor, "T1 V 3"]) -> Float[Tensor, "T V 3"]:
    """What the model takes its joints from."""
    shape, expr = given["shape"], given["expr"]
    shaped = head.v_template + head.shapedirs[..., : len(shape)] @ shape
    return shaped + torch.einsum("vce,te->tvc", head.exprdirs[..., : expr.shape[1]], expr) + offsets


def _locals(
    parents: list[int],
    rotations: Float[Tensor, "T J 3 3"],
    posed: Float[Tensor, "T J 3"],
    shift: Float[Tensor, "T J 3"],
) -> tuple[Float[ndarray, "T J 4"], Float[ndarray, "T J 3"]]:
    """Rotations and translations of joints against their parents, such that what is bound at `joint + shift` goes where
    the model takes it around `joint`."""
    turned: list[Tensor] = []
    for joint, parent in enumerate(parents):
        own = rotations[:, joint]
        turned.append(own if parent < 0 else turned[parent] @ own)
    places = posed + (torch.stack(turned, dim=1) @ shift[..., None])[..., 0]
    translations = places.clone()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            apart = places[:, joint] - places[:, parent]
            translations[:, joint] = (turned[parent].transpose(1, 2) @ apart[..., None])[..., 0]
    steps, count = rotations.shape[:2]
    turns = Rotation.from_matrix(_numpy(rotations.flatten(0, 1))).as_quat().reshape(steps, count, 4)
    sign = np.where((turns[1:] * turns[:-1]).sum(-1) < 0, -1.0, 1.0)
    turns[1:] *= np.cumprod(sign, axis=0)[..., None]
    return turns, _numpy(translations)


def _numpy(values: Tensor) -> ndarray:
    return values.detach().double().cpu().numpy()
