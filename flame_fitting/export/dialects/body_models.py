"""The FLAME of PyPI's `body-models`: an .npz with the arguments of `FLAME.forward_vertices` (axis-angle).

Keys: shape (S,) or (T, S), expression (T, E), head_pose (T, 4, 3) in the order neck, jaw, left eye, right eye,
head_rotation (T, 3) about the root joint, global_rotation (T, 3) about the origin after posing, global_translation
(T, 3) added last. The package prescribes no file. Written is shape as (T, S).

Confirmed by the package itself (Apache-2.0): a test compares vertices with it.
"""

from pathlib import Path

import numpy as np

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.dialect import npz_dialect
from flame_fitting.export.dialects.npz import Arrays, write_npz
from flame_fitting.export.dialects.parameters import FlameParams, make_params


def read(arrays: Arrays) -> FlameParams:
    """See the module."""
    pose = arrays["head_pose"]
    if pose.shape[-2:] != (4, 3):
        raise InputError(
            f"{arrays.path}: head_pose has shape {pose.shape}, (T, 4, 3) axis-angles are expected; other kinds of "
            "rotation of body-models are not read."
        )
    pose = pose.reshape(-1, 4, 3)
    expression, shape = arrays.get("expression"), arrays.get("shape")
    return make_params(
        str(arrays.path),
        shape=np.zeros((1, 1)) if shape is None else shape,
        expr=np.zeros((1, 1)) if expression is None else expression,
        poses={
            "rotation": arrays.get("head_rotation"),
            "world_rotation": arrays.get("global_rotation"),
            "translation": arrays.get("global_translation"),
            "neck_pose": pose[:, 0],
            "jaw_pose": pose[:, 1],
            "eyes_pose": pose[:, 2:].reshape(-1, 6),
        },
    )


def write(params: FlameParams, path: Path) -> None:
    """See the module."""
    arrays = {
        "shape": np.tile(params.shape, (params.count, 1)),
        "expression": params.expr,
        "head_pose": np.stack(
            [params.neck_pose, params.jaw_pose, params.eyes_pose[:, :3], params.eyes_pose[:, 3:]], axis=1
        ),
        "head_rotation": params.rotation,
        "global_translation": params.translation,
    }
    if np.any(params.world_rotation):
        arrays["global_rotation"] = params.world_rotation
    write_npz(path, arrays)


DIALECT = npz_dialect(
    "body-models",
    read,
    write,
    {"rotation", "world_rotation", "translation", "neck_pose"},
    [{"shape", "expression", "head_pose", "head_rotation", "global_translation"}],
)
