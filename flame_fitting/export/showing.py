"""A motion that shows what a rigged head can do, from the fitted pose and back to it: the jaw, the lids, the gaze."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from flame_fitting.export.head_rig import (
    BLINKS,
    CORRECTIVE,
    EYE_JOINTS,
    JAW_JOINT,
    HeadRig,
    corrective_weight,
    expression_names,
)
from flame_fitting.head.apertures import apertures_of, closing_amounts, closing_expression
from flame_fitting.head.model import HeadModel
from flame_fitting.report.animation import GAZE, JAW_OPEN

_JAW = ((0.25, 0), (0.75, 1), (1.0, 1), (1.5, 0))
_LIDS = ((1.75, 0), (1.875, 1), (1.9375, 1), (2.125, 0))
_GAZE = ((2.375, 0), (2.5, 1), (2.875, 1), (3.125, -1), (3.5, -1), (3.625, 0))
"""Seconds and amounts: whole pictures at 24 and at 48 per second. Before the first the fitted pose stands: programs
that open a file show a picture near its beginning. A gaze goes to the subject's left first."""
_END = 4.0


@dataclass(eq=False)
class Motion:
    """A rig at T times."""

    seconds: Float[ndarray, " T"]
    weights: Float[ndarray, "T M"]
    rotations: Float[ndarray, "T J 4"]
    translations: Float[ndarray, "T J 3"]


def showing(rig: HeadRig, head: HeadModel, row: int = 0) -> Motion:
    """The motion that begins and ends as the rig stands at a timestep; what the head does not have stays still.

    The jaw opens to `JAW_OPEN`, or shuts where it is open by more than half of that.
    """
    seconds = np.unique([0.0, _END, *(time for keys in (_JAW, _LIDS, _GAZE) for time, _ in keys)])
    jaw, lids, gaze = (np.interp(seconds, *np.transpose(keys)) for keys in (_JAW, _LIDS, _GAZE))
    weights, rotations, translations = (
        np.repeat(values[row : row + 1], len(seconds), axis=0)
        for values in (rig.weights, rig.rotations, rig.translations)
    )
    own = Rotation.from_quat(rig.rotations[row])
    now = own[JAW_JOINT].as_rotvec()[0]
    opening = (JAW_OPEN if now <= JAW_OPEN / 2 else 0.0) - now
    yaw = np.radians(GAZE) * gaze
    changes = {JAW_JOINT: np.outer(opening * jaw, (1, 0, 0)), **dict.fromkeys(EYE_JOINTS, np.outer(yaw, (0, 1, 0)))}
    for joint, change in changes.items():
        turned = Rotation.from_rotvec(own[joint].as_rotvec() + change)
        moved = turned.as_matrix() - own[joint].as_matrix()
        rotations[:, joint] = turned.as_quat(canonical=True)
        # none of these joints carries another
        translations[:, joint] += moved @ rig.shifts[row, joint]
        if joint == JAW_JOINT and CORRECTIVE in rig.names:
            weights[:, rig.names.index(CORRECTIVE)] = corrective_weight(turned.as_matrix())
    numbers, shut = _shutting(rig, head, row)
    weights[:, numbers] += lids[:, None] * shut
    return Motion(seconds, weights, rotations, translations)


def _shutting(rig: HeadRig, head: HeadModel, row: int) -> tuple[list[int], Float[ndarray, " n"]]:
    """Morph targets, by number, and what is added to their weights to shut the lids as they stand: those that blink,
    else all of the head's expression."""
    apertures = apertures_of(head)
    if apertures is None:
        return [], np.zeros(0)
    weights = rig.weights[row].copy()
    if CORRECTIVE in rig.names:
        weights[rig.names.index(CORRECTIVE)] = 0  # the jaw's; gaps are told without joints
    morphs = rig.morphs.double().cpu().numpy()
    standing = rig.vertices + np.tensordot(weights, morphs, axes=1)
    if set(BLINKS) <= set(rig.names):
        numbers = [rig.names.index(name) for name in BLINKS]
        return numbers, closing_amounts(apertures, head.faces.cpu(), standing, morphs[numbers]).clip(0, 1)
    expression = expression_names(head.n_expr)
    if not head.n_expr or not set(expression) <= set(rig.names):
        return [], np.zeros(0)
    return [rig.names.index(name) for name in expression], closing_expression(head, apertures, standing)
