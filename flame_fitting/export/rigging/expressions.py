"""The expressions that a rig offers, as the fitted head shows them from where it was fitted."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.export.head_rig import CORRECTIVE, CORRECTIVE_ANGLE, JAW_JOINT
from flame_fitting.export.rigging.fitted_head import FittedHead
from flame_fitting.head.actions import BLINK, actions_of
from flame_fitting.head.apertures import closing_expression
from flame_fitting.head.eyelids import closing_eyelids

EYES = {"Right": 0, "Left": 1}
"""Number of an eye's rims by the end of its blink's name."""
_LIDS, _BESIDE = 0.015, 0.035
"""Metres from the rims of an eye within which components that shut it count whole, and from where not at all."""


def expressions_of(head: FittedHead, n_expr: int | None = None) -> dict[str, Float[ndarray, "V 3"]]:
    """Displacements of the fitted head, metres, by name, at a weight of 1.

    ARKit's names where the head model has its actions, else its first components; lids that shut meet at 1, from where
    the fit has them. `jaw_corrective` is what the head model adds to the turn of the jaw, at `CORRECTIVE_ANGLE`.
    """
    expr = head.fit.parameters["expr"].astype(np.float64)
    actions = actions_of(head.model)
    out = {}
    if actions is not None:
        for name, coefficients in zip(actions.names, actions.coefficients, strict=True):
            if name.startswith(BLINK):
                continue
            out[name] = head.posed(expr=_added(expr, coefficients)) - head.vertices
    else:
        for k in range(min(expr.shape[1] if n_expr is None else n_expr, expr.shape[1])):
            out[f"expr_{k:03d}"] = head.posed(expr=_added(expr, np.eye(expr.shape[1])[k])) - head.vertices
    out |= _blinks(head, expr)
    if (corrective := _jaw_corrective(head)) is not None:
        out[CORRECTIVE] = corrective
    return out


def _added(expr: ndarray, coefficients: ndarray) -> ndarray:
    out = np.zeros((1, max(expr.shape[1], len(coefficients))))
    out[:, : expr.shape[1]] = expr
    out[:, : len(coefficients)] += coefficients
    return out.astype(np.float32)


def _blinks(head: FittedHead, expr: ndarray) -> dict[str, ndarray]:
    if head.apertures is None:
        return {}
    still = {key: np.zeros_like(head.fit.parameters[key]) for key in ("rotation", "translation")}
    still |= {key: np.zeros_like(head.fit.parameters[key]) for key in ("neck_pose", "jaw_pose", "eyes_pose")}
    unposed = head.posed(**still)
    out = {}
    if head.model.n_eyelids:
        now = head.fit.parameters.get("eyelids", np.zeros((1, 2), np.float32))
        more = closing_eyelids(head.model, head.apertures, unposed)
        for number, side in enumerate(("Left", "Right")):
            lids = now + np.eye(2, dtype=np.float32)[number] * more[number]
            out[BLINK + side] = head.posed(eyelids=lids.astype(np.float32)) - head.vertices
    elif head.model.n_expr:
        for side, eye in EYES.items():
            shut = closing_expression(head.model, head.apertures, unposed, (eye,))
            moved = head.posed(expr=_added(expr, shut)) - head.vertices
            out[BLINK + side] = _near_eye(head, f"{side.lower()}_eye")[:, None] * moved
    return out


def _near_eye(head: FittedHead, name: str) -> Float[ndarray, " V"]:
    """1 at the lids, 0 at the lips and at the other eye, which components that shut lids move as well."""
    rims = head.openings[name].rims.reshape(-1, 3)
    off = np.linalg.norm(head.vertices[:, None] - rims[None], axis=2).min(axis=1)
    share = np.clip((_BESIDE - off) / (_BESIDE - _LIDS), 0, 1)
    return np.asarray(share * share * (3 - 2 * share))


def _jaw_corrective(head: FittedHead) -> ndarray | None:
    """What pose correctives add in the bind pose when the jaw is open, linear in the jaw's angle to first order."""
    if not float(head.model.posedirs.abs().max()):
        return None
    opened = head.fit.parameters["jaw_pose"] + np.array([[CORRECTIVE_ANGLE, 0.0, 0.0]], dtype=np.float32)
    with_it = head.posed(jaw_pose=opened)
    bare = replace(head, model=_without_correctives(head))
    # turned back by the blended matrix of each vertex, as skinning comes after morphs
    difference = with_it - bare.posed(jaw_pose=opened)
    before = head.vertices - bare.posed()
    turn = np.einsum("vj,jab->vab", head.weights, _turns(head, opened))
    return np.einsum("vba,vb->va", turn, difference) - before


def _turns(head: FittedHead, jaw_pose: ndarray) -> Float[ndarray, "5 3 3"]:
    """How each joint turns when the jaw goes from the fitted pose to another, in head space."""
    import torch

    from flame_fitting.head.rotations import rotation_matrix

    out = np.tile(np.eye(3), (5, 1, 1))
    now = rotation_matrix(torch.as_tensor(jaw_pose, dtype=torch.float64))[0].numpy()
    out[JAW_JOINT] = head.skull @ now @ (head.skull @ head.rotations[JAW_JOINT]).T
    return out


def _without_correctives(head: FittedHead):
    import copy

    bare = copy.copy(head.model)
    bare._buffers = dict(head.model._buffers)
    bare.posedirs = head.model.posedirs * 0
    return bare
