"""FLAME tracking of the NeRSemble benchmark: one .npz for a sequence.

Keys: shape (1, 300), expression (T, 100), rotation, translation, jaw, neck (T, 3), eyes (T, 6), rotation_matrices
(T, 3, 3), scale (1, 1), frames (T,). FLAME is posed without global rotation, then x_world = scale * R @ x +
translation, with R about the origin. `rotation` are Euler angles in radians, R = R_x R_y R_z (intrinsic XYZ), NOT
axis-angle. FLAME 2023.

Confirmed by the benchmark's toolkit (github.com/tobias-kirschstein/nersemble-benchmark, Apache-2.0: README and
FlameProvider, with `dreifus`, whose Pose.from_euler calls SciPy's Rotation.from_euler("XYZ")). Not confirmed on a real
file: whether rotation_matrices is always the same rotation; where it is not, `rotation` is taken, as the toolkit does.
"""

from pathlib import Path

import numpy as np

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.dialect import npz_dialect
from flame_fitting.export.dialects.npz import Arrays, write_npz
from flame_fitting.export.dialects.parameters import FlameParams, make_params
from flame_fitting.export.dialects.rotations import (
    axis_angle_from_matrix,
    euler_xyz_from_axis_angle,
    matrix_from_axis_angle,
    matrix_from_euler_xyz,
)


def read(arrays: Arrays) -> FlameParams:
    """See the module."""
    scale = arrays.get("scale")
    factor = 1.0 if scale is None else float(np.asarray(scale, dtype=np.float64).reshape(-1)[0])
    if not np.isfinite(factor) or factor <= 0:
        raise InputError(f"{arrays.path}: its scale is {factor}, a positive number is expected.")
    angles = np.atleast_2d(np.asarray(arrays["rotation"], dtype=np.float64))
    if angles.shape[1:] != (3,):
        raise InputError(f"{arrays.path}: rotation has shape {angles.shape}, (T, 3) Euler angles are expected.")
    turn = matrix_from_euler_xyz(angles)
    notes, matrices = [], arrays.get("rotation_matrices")
    if matrices is not None and (matrices.shape != turn.shape or np.abs(matrices - turn).max() > 1e-3):
        notes.append("rotation_matrices differs from the Euler angles in rotation; the angles are taken")
    params = make_params(
        str(arrays.path),
        shape=arrays["shape"],
        expr=arrays["expression"],
        poses={
            "world_rotation": axis_angle_from_matrix(turn),
            "translation": np.asarray(arrays["translation"]) / factor,
            "neck_pose": arrays.get("neck"),
            "jaw_pose": arrays.get("jaw"),
            "eyes_pose": arrays.get("eyes"),
        },
        scale=factor,
        notes=notes,
    )
    frames = arrays.get("frames")
    if frames is not None and len(np.atleast_1d(frames)) == params.count:
        params.timestep_id = [str(frame) for frame in np.atleast_1d(frames)]
    return params


def write(params: FlameParams, path: Path) -> None:
    """See the module."""
    ids = params.timestep_id
    numbered = len(ids) == params.count and all(name.isdecimal() for name in ids)
    write_npz(
        path,
        {
            "shape": params.shape[None],
            "expression": params.expr,
            "rotation": euler_xyz_from_axis_angle(params.world_rotation),
            "rotation_matrices": matrix_from_axis_angle(params.world_rotation),
            "translation": params.scale * params.translation,
            "jaw": params.jaw_pose,
            "frames": np.array([int(name) for name in ids]) if numbered else np.arange(params.count),
            "scale": np.array([[params.scale]]),
            "neck": params.neck_pose,
            "eyes": params.eyes_pose,
        },
    )


DIALECT = npz_dialect(
    "nersemble",
    read,
    write,
    {"world_rotation", "translation", "neck_pose", "scale"},
    [{"shape", "expression", "rotation", "translation", "jaw", "neck", "eyes", "scale"}],
    n_shape=300,
    n_expr=100,
    flame="flame2023",
)
