"""Pixel3DMM: one .frame file (torch.save) for a timestep, after metrical-tracker's.

`flame`: exp (1, 100), shape (1, 300), eyes (1, 12), eyelids (1, 2), jaw, neck (1, 6), R (1, 6), R_rotation_matrix
(1, 3, 3), t (1, 3). `camera`: R_base_*, t_base_*, fl, pp. FLAME is posed without global rotation; then
x_world = R @ x + t, with R about the origin. Joints as in metrical_tracker.py. FLAME 2020 with two eyelid blendshapes.

These conventions come from public readers that other projects wrote and from excerpts found by searching; they were
not checked against the tool itself or a file of its making. For each file R_rotation_matrix must agree with R's six
numbers. What axes the cameras have is not known, so cameras are not converted.
"""

from pathlib import Path

import numpy as np

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.dialect import Dialect
from flame_fitting.export.dialects.frame_files import (
    eyelids_of,
    foreign_note,
    joint_axis_angle,
    read_frame,
    six_d,
    write_frame,
)
from flame_fitting.export.dialects.parameters import FlameParams, make_params
from flame_fitting.export.dialects.rotations import matrix_from_axis_angle

_KNOWN = frozenset({"exp", "shape", "eyes", "eyelids", "jaw", "neck", "R", "R_rotation_matrix", "t"})


def read(path: Path) -> FlameParams:
    """See the module."""
    content, flame = read_frame(path)
    if "R" not in flame or "t" not in flame:
        raise InputError(f"{path}: has no R and t. Is it metrical-tracker's? Then give --from metrical-tracker.")
    turn = joint_axis_angle(path, flame, "R")
    assert turn is not None
    if "R_rotation_matrix" in flame:
        matrix = np.asarray(flame["R_rotation_matrix"], dtype=np.float64).reshape(-1, 3, 3)
        if len(matrix) != len(turn) or np.abs(matrix - matrix_from_axis_angle(turn)).max() > 1e-3:
            raise InputError(f"{path}: R and R_rotation_matrix are different rotations. The file is damaged or newer.")
    camera = content.get("camera")
    extras = {f"camera.{name}": value for name, value in camera.items()} if isinstance(camera, dict) else {}
    return make_params(
        str(path),
        shape=flame["shape"],
        expr=flame["exp"],
        poses={
            "world_rotation": turn,
            "translation": flame["t"],
            "neck_pose": joint_axis_angle(path, flame, "neck"),
            "jaw_pose": joint_axis_angle(path, flame, "jaw"),
            "eyes_pose": joint_axis_angle(path, flame, "eyes", joints=2),
        },
        eyelids=eyelids_of(path, flame),
        timestep_id=[path.stem],
        extras=extras,
        notes=foreign_note("pixel3dmm", flame, _KNOWN),
    )


def write(params: FlameParams, path: Path) -> None:
    """One timestep."""
    flame = {
        "exp": params.expr,
        "shape": params.shape[None],
        "eyes": six_d(params.eyes_pose),
        "eyelids": np.zeros((1, 2)) if params.eyelids is None else params.eyelids,
        "jaw": six_d(params.jaw_pose),
        "neck": six_d(params.neck_pose),
        "R": six_d(params.world_rotation),
        "R_rotation_matrix": matrix_from_axis_angle(params.world_rotation),
        "t": params.translation,
    }
    camera = {name[7:]: value for name, value in params.extras.items() if name.startswith("camera.")}
    write_frame({"flame": flame, "camera": camera, "frame_id": path.stem}, path)


DIALECT = Dialect(
    name="pixel3dmm",
    read=read,
    write=write,
    holds=frozenset({"world_rotation", "translation", "neck_pose", "eyelids"}),
    needs=(frozenset({"exp", "shape", "eyes", "jaw", "neck", "R", "t"}),),
    suffix=".frame",
    n_shape=300,
    n_expr=100,
    flame="flame2020",
    frame_per_file=True,
)
