"""metrical-tracker: one .frame file (torch.save) for a timestep, in the folder `checkpoint`.

`flame`: exp (1, 100), shape (1, 300), eyes (1, 12), eyelids (1, 2), jaw (1, 6), tex, sh; joints are six numbers, the
first two rows of the matrix (PyTorch3D's order), eyes left then right. `opencv`: R (1, 3, 3), t (1, 3), K (1, 3, 3),
the camera of the timestep: x_camera = R @ x + t, OpenCV axes. There is no neck, no global rotation and no translation:
the mesh stands still and the camera moves. FLAME 2020 with two eyelid blendshapes of its own.

By default the mesh's own space is kept (rotation and translation zero), and the camera goes to `world_to_camera`. With
`head_in_camera` the world is the camera: x right, y up, z back, the camera in the origin.

These conventions come from public readers that other projects wrote and from excerpts found by searching; they were
not checked against the tool itself or a file of its making. No global rotation and `opencv` as the pose: converters to
SplattingAvatar and FaceViewer's; PyTorch3D's rotation_6d: github.com/zjumsj/FaceViewer, issue 1.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

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
from flame_fitting.export.dialects.rotations import axis_angle_from_matrix, matrix_from_axis_angle

_FLIP = np.diag([1.0, -1.0, -1.0])
"""Between OpenCV's camera axes and those of OpenGL."""

_KNOWN = frozenset({"exp", "shape", "eyes", "eyelids", "jaw", "neck", "tex", "sh"})


def read(path: Path) -> FlameParams:
    """See the module; the mesh's own space."""
    content, flame = read_frame(path)
    extras = {f"flame.{name}": np.asarray(flame[name]) for name in ("tex", "sh") if name in flame}
    camera = content.get("opencv")
    if isinstance(camera, dict) and {"R", "t"} <= camera.keys():
        pose = np.eye(4)[None]
        pose[:, :3, :3] = np.asarray(camera["R"], dtype=np.float64).reshape(1, 3, 3)
        pose[:, :3, 3] = np.asarray(camera["t"], dtype=np.float64).reshape(1, 3)
        extras["world_to_camera"] = pose
    if isinstance(camera, dict) and "K" in camera:
        extras["K"] = np.asarray(camera["K"])
    return make_params(
        str(path),
        shape=flame["shape"],
        expr=flame["exp"],
        poses={
            "jaw_pose": joint_axis_angle(path, flame, "jaw"),
            "eyes_pose": joint_axis_angle(path, flame, "eyes", joints=2),
            "neck_pose": joint_axis_angle(path, flame, "neck"),
        },
        eyelids=eyelids_of(path, flame),
        timestep_id=[path.stem],
        extras=extras,
        notes=foreign_note("metrical-tracker", flame, _KNOWN),
    )


def head_in_camera(params: FlameParams) -> FlameParams:
    """The same head with its camera as the world (OpenGL axes)."""
    pose = params.extras["world_to_camera"]
    extras = {name: value for name, value in params.extras.items() if name != "world_to_camera"}
    return replace(
        params,
        world_rotation=axis_angle_from_matrix(_FLIP @ pose[:, :3, :3]),
        translation=pose[:, :3, 3] @ _FLIP,
        extras=extras,
    )


def write(params: FlameParams, path: Path) -> None:
    """One timestep; the head's rotation and translation become the camera's."""
    pose = params.extras.get("world_to_camera")
    if pose is None:
        R = _FLIP @ matrix_from_axis_angle(params.world_rotation)
        t = params.translation @ _FLIP
    else:
        # the camera of the source, seen from the head
        R = pose[:, :3, :3] @ matrix_from_axis_angle(params.world_rotation)
        t = np.einsum("tab,tb->ta", pose[:, :3, :3], params.translation) + pose[:, :3, 3]
    opencv = {"R": R, "t": t}
    if "K" in params.extras:
        opencv["K"] = np.asarray(params.extras["K"])
    flame = {
        "exp": params.expr,
        "shape": params.shape[None],
        "eyes": six_d(params.eyes_pose),
        "eyelids": np.zeros((1, 2)) if params.eyelids is None else params.eyelids,
        "jaw": six_d(params.jaw_pose),
    }
    flame |= {name[6:]: value for name, value in params.extras.items() if name.startswith("flame.")}
    write_frame({"flame": flame, "opencv": opencv, "frame_id": path.stem}, path)


DIALECT = Dialect(
    name="metrical-tracker",
    read=read,
    write=write,
    holds=frozenset({"world_rotation", "translation", "eyelids"}),
    needs=(frozenset({"exp", "shape", "eyes", "jaw", "opencv"}),),
    excludes=frozenset({"R", "t"}),
    suffix=".frame",
    n_shape=300,
    n_expr=100,
    flame="flame2020",
    frame_per_file=True,
)
