"""The FLAME of PyPI's `smplx`: an .npz with the arguments of `smplx.FLAME.forward`.

Keys: betas (T or 1, S), expression (T, E), global_orient, transl, neck_pose, jaw_pose, leye_pose, reye_pose (T, 3).
global_orient is about the root joint and transl is added after posing. smplx prescribes no file; people save its
arguments under their names. Written are betas (T, S), because smplx wants one row for each timestep.

Static offsets have a place in its constructor: v_template (V, 3), the head model's template plus the offsets, is added
where there are any, for `smplx.FLAME(..., v_template=file["v_template"])`. Its vertices are FLAME's, without teeth.

Confirmed by the package itself: a test compares vertices with `smplx.FLAME`.
"""

from pathlib import Path

import numpy as np

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.dialect import npz_dialect
from flame_fitting.export.dialects.npz import Arrays, write_npz
from flame_fitting.export.dialects.parameters import FlameParams, make_params

_NAMES = {
    "rotation": "global_orient",
    "translation": "transl",
    "neck_pose": "neck_pose",
    "jaw_pose": "jaw_pose",
}


def read(arrays: Arrays) -> FlameParams:
    """See the module."""
    eyes_pose = None
    eyes = [arrays.get("leye_pose"), arrays.get("reye_pose")]
    present = [eye for eye in eyes if eye is not None]
    if present:
        zero = np.zeros_like(present[0])
        if any(eye.shape != zero.shape for eye in present):
            raise InputError(f"{arrays.path}: leye_pose and reye_pose have different shapes.")
        eyes_pose = np.concatenate([zero if eye is None else eye for eye in eyes], axis=-1)
    expression, template = arrays.get("expression"), arrays.get("v_template")
    if template is not None and (template.ndim != 2 or template.shape[1] != 3 or not np.isfinite(template).all()):
        raise InputError(f"{arrays.path}: v_template has shape {template.shape}, finite numbers (V, 3) are expected.")
    return make_params(
        str(arrays.path),
        shape=arrays["betas"],
        expr=np.zeros((1, 1)) if expression is None else expression,
        poses={own: arrays.get(theirs) for own, theirs in _NAMES.items()} | {"eyes_pose": eyes_pose},
        template=None if template is None else template.astype(np.float64),
    )


def write(params: FlameParams, path: Path) -> None:
    """See the module."""
    arrays = {theirs: getattr(params, own) for own, theirs in _NAMES.items()}
    arrays["betas"] = np.tile(params.shape, (params.count, 1))
    arrays["expression"] = params.expr
    arrays["leye_pose"], arrays["reye_pose"] = params.eyes_pose[:, :3], params.eyes_pose[:, 3:]
    if params.template is not None:
        arrays["v_template"] = params.template
    write_npz(path, arrays)


DIALECT = npz_dialect(
    "smplx",
    read,
    write,
    {"rotation", "translation", "neck_pose", "template"},
    [{"betas", "expression", *_NAMES.values(), "leye_pose", "reye_pose"}],
    excludes=("body_pose", "left_hand_pose", "right_hand_pose"),  # SMPL-X: a body, whose betas are not FLAME's
)
