"""Which pictures train, validate and test."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from flame_fitting.capture.camera_names import camera_called

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
VAL_EVERY = 8
"""Of a static avatar's fit views, this one validates."""
TRAIN_RATIO = 0.7
"""Part of the timesteps that are not for testing, where there are several (VHAP's)."""
VAL_CAMERA = 8
"""Index of the camera that validates over time, if it is there (VHAP's)."""


def split_cameras(fit_cameras: list[int], heldout_cameras: list[int]) -> dict[int, Split]:
    """Split by camera of a static avatar: every 8th fit view (the last one, where there are fewer) validates."""
    split: dict[int, Split] = dict.fromkeys(heldout_cameras, "test")
    validation = fit_cameras[VAL_EVERY - 1 :: VAL_EVERY] or fit_cameras[1:][-1:]
    return split | {camera: "val" if camera in validation else "train" for camera in fit_cameras}


def split_timesteps(
    timesteps: list[int], cameras: list[int], train_ratio: float = TRAIN_RATIO, validating: Sequence[int] | None = None
) -> Callable[[int, int], Split]:
    """Split over time: the last timesteps test, and of the first ones the cameras `validating` validate.

    The first ceil(train_ratio * T) train. `validating` is VHAP's choice where None: camera 8, else the last one, none
    of a single camera.
    """
    # ten digits: 0.7 * 10 must not become 8
    trained = set(timesteps[: math.ceil(round(train_ratio * len(timesteps), 10))])
    held = set(default_val_cameras(cameras) if validating is None else validating)

    def split(timestep: int, camera: int) -> Split:
        return "test" if timestep not in trained else "val" if camera in held else "train"

    return split


def default_val_cameras(cameras: list[int]) -> list[int]:
    """The camera that validates in VHAP: 8, else the last one; none of a single camera."""
    return [] if len(cameras) < 2 else [VAL_CAMERA] if VAL_CAMERA in cameras else cameras[-1:]


def named_camera(name: str, ids: dict[int, str]) -> list[int]:
    """The camera (index to name in `ids`) that --val-camera names, by its name or else its index; none: no camera."""
    if name.lower() == "none":
        return []
    return [camera_called(name, ids, "--val-camera", "none or ")]
