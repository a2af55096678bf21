"""metrical-tracker: one .frame file (torch.save) for a timestep, in the folder `checkpoint`.

`flame`: exp (1, 100), shape (1, 300), eyes (1, 12), eyelids (1, 2), jaw (1, 6), tex, sh; joints are six numbers, the
first two rows of the matrix (PyTorch3D's order), eyes left then right. `opencv`: R (1, 3, 3), t (1, 3), K (1, 3, 3),
the camera of the timestep: x_camera = R @ x + t, OpenCV axes. There is no neck, no global rotation and no translation:
the mesh stands still and the camera moves. FLAME 2020 with two eyelid blendshapes of its own.

By default the mesh's own space is kept (rotation and translation zero), and the camera goes to `world_to_camera`. With
`head_in_camera` the world is the camera: x right, y up, z back, the camera in the origin.

Beside them `camera` (the same camera in PyTorch3D's terms: R (1, 6), t, fl, pp), `img_size` (height, width),
`frame_id` and `global_step`. Names and shapes as metrical-tracker's `save_checkpoint` writes and INSTA's
`scripts/transforms.py` reads them; no file of the tool's own making was at hand.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy import ndarray

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

_N_TEX = 140
"""Components of its texture space."""
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
    if "img_size" in content:
        extras["img_size"] = np.asarray(content["img_size"])
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
    flame |= {"tex": np.zeros((1, _N_TEX)), "sh": np.zeros((1, 9, 3))}  # metrical-tracker's reader asks for them
    flame |= {name[6:]: value for name, value in params.extras.items() if name.startswith("flame.")}
    content = {"flame": flame, "opencv": opencv, "frame_id": path.stem, "global_step": 0}
    if "K" in opencv and "img_size" in params.extras:
        size = np.asarray(params.extras["img_size"])
        content |= {"img_size": size, "camera": _pytorch3d_camera(R, t, opencv["K"], size)}
    write_frame(content, path)


def _pytorch3d_camera(R: ndarray, t: ndarray, K: ndarray, size: ndarray) -> dict[str, ndarray]:
    """The same camera as PyTorch3D's `PerspectiveCameras` has it: x left, y up; lengths over half the shorter side.

    `R` (1, 3, 3) as six numbers, for points as row vectors, `t` (1, 3), `fl` (1, 1), `pp` (1, 2); `size` height, width.
    It has one focal length, fx: where pixels are not square, only `opencv` is exact.
    """
    half = size.min() / 2
    turned = (np.diag([-1.0, -1.0, 1.0]) @ R).transpose(0, 2, 1)
    centre = size[::-1] / 2 - K[:, :2, 2]
    return {
        "R": turned[:, :2].reshape(1, 6),
        "t": t * (-1.0, -1.0, 1.0),
        "fl": K[:, :1, 0] / half,
        "pp": centre / half,
    }


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
