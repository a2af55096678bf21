"""What a dataset has a picture of: which timestep and camera it is, in which split, and what its file says of it."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.camera import move_camera, opengl_camera_to_world, scaled_intrinsics
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.files import intrinsics_as_dict
from flame_fitting.capture.subset import select
from flame_fitting.errors import InputError
from flame_fitting.export.splits import Split, named_camera, split_cameras, split_timesteps
from flame_fitting.files import SMALLEST_PICTURE


@dataclass(frozen=True)
class Frame:
    """One picture of a dataset."""

    view: View
    timestep_index: int
    """Counted from 0 in the dataset."""
    camera_index: int
    row: int
    """Of the fit's parameters."""
    split: Split

    @property
    def name(self) -> str:
        """Of its picture."""
        return f"{self.timestep_index:05d}_{self.camera_index:02d}.png"


def plan_frames(
    capture: Capture,
    subset: str | None = None,
    landmark_views: bool = False,
    train_ratio: float | None = None,
    val_camera: str | None = None,
) -> list[Frame]:
    """The pictures of a dataset, by timestep and camera; row k of the fit is the capture's k-th timestep.

    A static avatar's cameras are numbered by their role, and the role decides the split. Over time cameras keep their
    indices; `train_ratio` and `val_camera` (name, index or none) stand in for VHAP's split.
    """
    roles: list[Any] = ["fit", "heldout"] + (["landmark"] if landmark_views else [])
    views = capture.views_of(*roles)
    if not views:
        raise InputError(f"{capture.root}: has no fit views to export. Render the avatar again.")
    rank = {"fit": 0, "heldout": 1, "landmark": 2}
    role_of = {view.camera: view.role for view in reversed(views)}
    cameras = sorted(role_of, key=lambda camera: (rank[role_of[camera]], camera))
    timesteps, chosen = select(subset, list(capture.timesteps), cameras)
    is_sequence = len(capture.timesteps) > 1 and capture.ordered
    numbers = {camera: camera if is_sequence else index for index, camera in enumerate(cameras)}
    if is_sequence:
        ids = {view.camera: view.camera_id for view in views if view.camera in chosen}
        validating = None if val_camera is None else named_camera(val_camera, ids)
        ratio = {} if train_ratio is None else {"train_ratio": train_ratio}
        split_of = split_timesteps(timesteps, sorted(chosen), validating=validating, **ratio)
    else:
        of_role = {role: [c for c in cameras if role_of[c] == role] for role in rank}
        by_camera = split_cameras(of_role["fit"], of_role["heldout"]) | dict.fromkeys(of_role["landmark"], "train")

        def split_of(timestep: int, camera: int) -> Split:
            return by_camera[camera]

    indices = {timestep: index for index, timestep in enumerate(timesteps)}
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    return [
        Frame(
            view=view,
            timestep_index=indices[view.timestep],
            camera_index=numbers[view.camera],
            row=rows[view.timestep],
            split=split_of(view.timestep, view.camera),
        )
        for view in sorted(views, key=lambda view: (view.timestep, numbers[view.camera]))
        if view.timestep in indices and view.camera in chosen
    ]


def in_dataset(view: View, dataset_from_world: NDArray[np.float64]) -> View:
    """The view with its camera in the dataset's world; `dataset_from_world` (4, 4) is a similarity."""
    return replace(view, world_to_camera=move_camera(view.world_to_camera, dataset_from_world))


def scaled_size(view: View, factor: float | None) -> View:
    """The view with its picture scaled by `factor`; its intrinsics follow the true ratio of the sizes.

    InputError where next to nothing is left.
    """
    if factor is None or factor == 1:
        return view
    width, height = round(view.width * factor), round(view.height * factor)
    if min(width, height) < SMALLEST_PICTURE:
        raise InputError(
            f"--scale-factor {factor}: next to nothing is left of {view.width} x {view.height} px (less than "
            f"{SMALLEST_PICTURE}). Give a larger one."
        )
    K = scaled_intrinsics(view.K, (view.height, view.width), (height, width))
    return replace(view, K=K, width=width, height=height)


def entry_of(frame: Frame, view: View, is_mesh: bool) -> dict[str, Any]:
    """What transforms.json says of a frame; `view` has its camera and size as they are in the dataset."""
    stem = f"{frame.timestep_index:05d}"
    entry: dict[str, Any] = {
        "timestep_index": frame.timestep_index,
        "timestep_index_original": frame.view.timestep,
        "timestep_id": frame.view.timestep_id,
        "camera_index": frame.camera_index,
        "camera_id": frame.view.camera_id,
        **_intrinsics(view),
        "transform_matrix": opengl_camera_to_world(view.world_to_camera).tolist(),
        "file_path": f"images/{frame.name}",
        "fg_mask_path": f"fg_masks/{frame.name}",
    }
    if is_mesh:
        entry["mesh_path"], entry["exp_path"] = f"meshes/{stem}.obj", f"flame/exp/{stem}.txt"
    else:
        entry["flame_param_path"] = f"flame_param/{stem}.npz"
    return entry


def _intrinsics(view: View) -> dict[str, float]:
    values = intrinsics_as_dict(view.K, view.width, view.height)
    values["camera_angle_x"] = 2 * math.atan(0.5 * view.width / values["fl_x"])
    values["camera_angle_y"] = 2 * math.atan(0.5 * view.height / values["fl_y"])
    return values
