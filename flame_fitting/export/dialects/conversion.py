"""Bringing parameters into what a dialect can say, and saying what is lost."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.dialect import Dialect
from flame_fitting.export.dialects.parameters import (
    FlameParams,
    about_origin,
    about_root_joint,
    offset_as_template,
    root_joint,
    template_as_offset,
)
from flame_fitting.head.model import HeadModel

HeadOf = Callable[[str], HeadModel]
"""The head model of the parameters, float64; asked only where it is needed, with the reason."""


class HeadNotFoundError(InputError):
    """The parameters do not say which head model is theirs, or its file is not here."""


def adapted(params: FlameParams, source: Dialect, target: Dialect, head_of: HeadOf) -> tuple[FlameParams, list[str]]:
    """The parameters as `target` can hold them, and one sentence for each loss."""
    pivots = f"{source.name} and {target.name} turn the head about different points, which only the head model knows"

    def joint_of(params: FlameParams) -> Float[ndarray, "T 3"]:
        return root_joint(params, head_of(pivots))

    warnings = list(params.notes)
    if params.head_model is not None and params.head_model[0] == "open" and target.name != "vhap":
        warnings.append(
            f"the parameters are the open head's, not FLAME's: {target.name} will make another face of them"
        )
    elif source.flame and target.flame and source.flame != target.flame and params.head_model is None:
        text = "the same numbers are another face there, unless both use one FLAME file"
        warnings.append(f"{source.name} is made with {source.flame}, {target.name} with {target.flame}: {text}")
    if source.name != target.name and params.extras:
        warnings.append(f"{target.name} has no place for {', '.join(params.extras)}: left out")
        params = replace(params, extras={})
    if params.template is not None and "template" not in target.holds:
        params = template_as_offset(params, head_of(f"{source.name}'s v_template is the head model's with the offsets"))
    params = _with_offset_in_template(params, target, head_of, warnings)
    if np.any(params.rotation) and "rotation" not in target.holds:
        params = about_origin(params, joint_of(params))  # the joint of the head with its offsets
    params, lost = _without_what_is_not_held(params, target)
    if np.any(params.world_rotation) and "world_rotation" not in target.holds:
        params = about_root_joint(params, joint_of(params))
    if np.any(params.translation) and "translation" not in target.holds:
        lost.append(f"translation (up to {_millimetres(params.translation)})")
        params = replace(params, translation=np.zeros_like(params.translation))
    if lost:
        warnings.append(f"{target.name} has no place for {', '.join(lost)}: left out, the vertices differ by that")
    if params.scale != 1 and target.name == "vhap":
        text = "other programs ignore it and show the head in FLAME's own metres"
        warnings.append(f"scale {params.scale:.6g} is written beside VHAP's keys; {text}")
    if params.eyelids is not None and np.any(params.eyelids) and source.name != target.name:
        where = "beside VHAP's keys; other programs ignore them" if target.name == "vhap" else "as they are"
        warnings.append(
            f"eyelids are written {where}: two blendshapes that are no part of FLAME, and each program has its own"
        )
    return _resized(params, target, warnings)


def _with_offset_in_template(params: FlameParams, target: Dialect, head_of: HeadOf, warnings: list[str]) -> FlameParams:
    """Static offsets moved into the template, where that is the place that the dialect has for them."""
    offset, holds = params.static_offset, target.holds
    if offset is None or not np.any(offset) or "static_offset" in holds or "template" not in holds:
        return params
    if params.head_model is not None and params.head_model[0] == "open":  # its template is no FLAME's
        return params
    place = f"{target.name} takes static_offset as v_template, the head model's template with the offsets"
    try:
        return offset_as_template(params, head_of(place))
    except HeadNotFoundError:
        warnings.append(f"{place}: give the FLAME file of the parameters with --head PATH to have it written")
        return params


def _without_what_is_not_held(params: FlameParams, target: Dialect) -> tuple[FlameParams, list[str]]:
    lost: list[str] = []
    changed: dict[str, Any] = {}
    for name in ("static_offset", "dynamic_offset"):
        value = getattr(params, name)
        if value is not None and name not in target.holds:
            changed[name] = None
            if np.any(value):
                lost.append(f"{name} (up to {_millimetres(value)})")
    if params.eyelids is not None and "eyelids" not in target.holds:
        changed["eyelids"] = None
        if np.any(params.eyelids):
            lost.append("eyelids (two blendshapes that are no part of FLAME)")
    if "neck_pose" not in target.holds and np.any(params.neck_pose):
        changed["neck_pose"] = np.zeros_like(params.neck_pose)
        lost.append("neck_pose")
    if "scale" not in target.holds and params.scale != 1:
        changed["scale"] = 1.0
        lost.append(f"scale {params.scale:.6g}")
    return replace(params, **changed), lost


def _resized(params: FlameParams, target: Dialect, warnings: list[str]) -> tuple[FlameParams, list[str]]:
    """Coefficients in the dialect's number: zeros are added, what stands beyond goes."""
    changed: dict[str, Any] = {}
    for name, size in (("shape", target.n_shape), ("expr", target.n_expr)):
        values = getattr(params, name)
        if size is None or values.shape[-1] == size:
            continue
        if np.any(values[..., size:]):
            warnings.append(
                f"{target.name} has {size} {name} coefficients: {values.shape[-1] - size} more are left out"
            )
        missing = max(0, size - values.shape[-1])
        changed[name] = np.pad(values[..., :size], [(0, 0)] * (values.ndim - 1) + [(0, missing)])
    return replace(params, **changed), warnings


def _millimetres(values: ndarray) -> str:
    return f"{1000 * np.linalg.norm(values, axis=-1).max():.3g} mm"
