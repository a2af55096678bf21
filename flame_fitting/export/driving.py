"""A fitted person at parameters that others give: of a file, or of joints and ARKit's actions."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy import ndarray
from scipy.spatial.transform import Rotation

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.parameters import FlameParams, about_root_joint, root_joint
from flame_fitting.export.dialects.registry import read_parameters
from flame_fitting.export.flame_files import has_vertices
from flame_fitting.export.rigging.expressions import EYES
from flame_fitting.export.rigging.fitted_head import FittedHead, fitted_head
from flame_fitting.fit.parameters import POSES
from flame_fitting.fit.result import FitResult
from flame_fitting.head.actions import BLINK, actions_of
from flame_fitting.head.apertures import closing_expression
from flame_fitting.head.eyelids import closing_eyelids
from flame_fitting.head.model import HeadModel

_JOINT = {"neck": ("neck_pose", 0), "jaw": ("jaw_pose", 0), "left_eye": ("eyes_pose", 0), "right_eye": ("eyes_pose", 3)}

_ROUNDS = 3
"""Each leaves a part of the gap between lids: coefficients are held small."""


def at_parameters(fit: FitResult, model: HeadModel, path: Path) -> tuple[FitResult, list[str]]:
    """The person of a fit (shape, offsets) with expression and pose from a file or folder that `convert` reads, at each
    of its timesteps; and what to warn of. Raises InputError where they are another head model's."""
    try:
        given, _ = read_parameters(path)
    except InputError as error:
        hint = " (That option is convert's, whose output is known here.)" if "--from" in str(error) else ""
        raise InputError(f"{error}{hint}") from error
    warnings = []
    if given.head_model is None:
        offsets = given.offsets()
        count = None if offsets is None else offsets.shape[1]
        if count is not None and not has_vertices(model, count):
            raise InputError(
                f"{path}: has offsets of {count} vertices, and the head model {model.name} {model.n_vertices}: these "
                "are parameters of another one. Give parameters of the same model."
            )
        warnings.append(
            f"{path}: does not say which head model its parameters are of; they are taken for those of {model.name}, "
            "and mean other expressions if they are not."
        )
    elif given.head_model[1] != model.file_hash:
        raise InputError(
            f"{path}: holds parameters of the head model {given.head_model[0]}, and the fit has another, {model.name}: "
            "they mean other expressions. Give parameters of the same model."
        )
    if np.abs(given.world_rotation).max(initial=0) > 0:
        given = about_root_joint(given, root_joint(given, model))
    expr = given.expr
    if np.abs(expr[:, model.n_expr :]).max(initial=0) > 0:
        raise InputError(
            f"{path}: has {expr.shape[1]} expression components, and the head model {model.name} {model.n_expr}: they "
            "are another model's. Give parameters of the same model."
        )
    still = fit.of_rows([0])
    own = {name: value for name, value in still.parameters.items() if name not in ("dynamic_offset", "eyelids")}
    own |= {"expr": expr[:, : model.n_expr]} | {name: getattr(given, name) for name in POSES}
    if model.n_eyelids:
        own["eyelids"] = np.zeros((given.count, 2)) if given.eyelids is None else given.eyelids
    own = {name: np.asarray(value, dtype=np.float32) for name, value in own.items()}
    return replace(still, parameters=own, timestep_id=_ids(given), landmarks3d={}), warnings


def shown_at(
    head: FittedHead, turns: Mapping[str, tuple[float, float, float]], weights: Mapping[str, float]
) -> FittedHead:
    """A fitted head with joints turned further, about their own axes (axis-angle, radians, by name), and facial actions
    added by ARKit's names; lids meet at a weight of 1. Others are not shown."""
    own = head.fit.parameters
    out = {name: np.array(own[name], dtype=np.float64) for name in (*POSES, "expr")}
    for joint, turn in turns.items():
        key, first = _JOINT[joint]
        now = Rotation.from_rotvec(out[key][:, first : first + 3])
        out[key][:, first : first + 3] = (now * Rotation.from_rotvec(turn)).as_rotvec()
    expr = np.zeros((1, head.model.n_expr))
    expr[:, : out["expr"].shape[1]] = out["expr"]
    if (actions := actions_of(head.model)) is not None:
        shown = {name: weight for name, weight in weights.items() if name in actions.names and not _blinks(name)}
        added = actions.expression(shown)
        expr[:, : len(added)] += added
    for name, weight in weights.items():
        if _blinks(name) and head.apertures is not None:
            _shut(head, EYES[name.removeprefix(BLINK)], weight, expr, out)
    out["expr"] = expr
    changed = {name: value.astype(np.float32) for name, value in out.items()}
    return fitted_head(replace(head.fit, parameters=own | changed), head.model)


def _blinks(name: str) -> bool:
    return name.startswith(BLINK)


def _shut(head: FittedHead, eye: int, weight: float, expr: ndarray, out: dict[str, ndarray]) -> None:
    """Adds what shuts an eye (0 the right one) from where the fit has it."""
    assert head.apertures is not None
    still = {name: np.zeros_like(head.fit.parameters[name]) for name in POSES}
    if head.model.n_eyelids:
        now = out.setdefault("eyelids", np.array(head.fit.parameters.get("eyelids", np.zeros((1, 2))), dtype=float))
        now[0, 1 - eye] += weight * closing_eyelids(head.model, head.apertures, head.posed(**still))[1 - eye]
    elif head.model.n_expr:
        own = head.fit.parameters["expr"]
        added = np.zeros((1, head.model.n_expr))
        added[:, : own.shape[1]] = own
        for _ in range(_ROUNDS):
            rest = head.posed(**still, expr=added.astype(np.float32))
            found = closing_expression(head.model, head.apertures, rest, (eye,))
            added[:, : len(found)] += found
        added[:, : own.shape[1]] -= own
        expr += weight * added


def _ids(given: FlameParams) -> list[str]:
    return given.timestep_id or [str(number) for number in range(given.count)]
