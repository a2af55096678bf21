"""flame-head-tracker (github.com/PeizhiYan/flame-head-tracker, MIT): one .npz for a timestep.

Keys: shape (1, 300), exp (1, 100), head_pose, jaw_pose, neck_pose (1, 3), eye_pose (1, 6), axis-angle; and tex, light,
cam, fov, K, pictures, landmarks. Versions before 4 have pose (1, 6), head then jaw, and 100 and 50 coefficients. There
is no translation: the camera (`cam`: yaw, pitch, roll, x, y, z) moves, and head_pose is zero ("not used"). FLAME 2020.

Keys and shapes are confirmed by the project's README (version 4.1). Not confirmed, because its FLAME layer was not
read: that head_pose is about the root joint as in FLAME (its files have zeros there), and that eye_pose is left, right.
The camera is not converted: vertices are those of the tracker's mesh, which stands still.
"""

from pathlib import Path

import numpy as np

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.dialect import npz_dialect
from flame_fitting.export.dialects.npz import Arrays, write_npz
from flame_fitting.export.dialects.parameters import FlameParams, make_params

_EXTRAS = ("tex", "light", "cam", "fov", "K")


def read(arrays: Arrays) -> FlameParams:
    """See the module."""
    head: np.ndarray | None
    if "pose" in arrays and "jaw_pose" not in arrays:
        pose = np.atleast_2d(arrays["pose"])
        if pose.shape[1:] != (6,):
            raise InputError(f"{arrays.path}: pose has shape {pose.shape}, (1, 6), head then jaw, is expected.")
        head, jaw = pose[:, :3], pose[:, 3:6]
    else:
        head, jaw = arrays.get("head_pose"), arrays["jaw_pose"]
    return make_params(
        str(arrays.path),
        shape=arrays["shape"],
        expr=arrays["exp"],
        poses={
            "rotation": head,
            "neck_pose": arrays.get("neck_pose"),
            "jaw_pose": jaw,
            "eyes_pose": arrays.get("eye_pose"),
        },
        extras={name: arrays[name] for name in _EXTRAS if name in arrays},
    )


def write(params: FlameParams, path: Path) -> None:
    """One timestep."""
    write_npz(
        path,
        {
            "shape": params.shape[None],
            "exp": params.expr,
            "head_pose": params.rotation,
            "jaw_pose": params.jaw_pose,
            "neck_pose": params.neck_pose,
            "eye_pose": params.eyes_pose,
            **params.extras,
        },
    )


DIALECT = npz_dialect(
    "flame-head-tracker",
    read,
    write,
    {"rotation", "neck_pose"},
    [{"shape", "exp", "head_pose", "jaw_pose", "neck_pose", "eye_pose"}, {"shape", "exp", "pose"}],
    knows=("img*", "lmks*", "parsing*", "matting*", "blendshape*", "ear_lmks*"),  # pictures and what was found in them
    n_shape=300,
    n_expr=100,
    flame="flame2020",
    frame_per_file=True,
)
