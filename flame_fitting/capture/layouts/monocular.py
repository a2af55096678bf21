"""VHAP's folder of one video: `images/<6 digits>.jpg`, `images_<n>/`, `alpha_maps/`, `landmark2d/STAR.npz`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.camera import centred_intrinsics, look_at
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.layouts.folder import ALPHA_MAPS, IMAGES, picture_size, pictures_in
from flame_fitting.capture.making import PictureMaking
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError

CAMERA_ID = "0"
FOCAL = 1.5
"""Focal length of an unknown camera over the longer side of its picture, as VHAP begins with."""
_AGAIN = "Make the folder anew: flame-fitting preprocess --input VIDEO"


def guessed_intrinsics(width: int, height: int) -> NDArray[np.float64]:
    """K (3, 3) px of a camera that nothing is known of: square pixels, centred, `FOCAL`."""
    return centred_intrinsics(FOCAL * max(width, height), width, height)


def resting_camera() -> NDArray[np.float64]:
    """world_to_camera (4, 4) of VHAP's camera of a video: at (0, 0, 1), looking along -z, +y up."""
    return look_at([0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])


def read_monocular(root: Path, options: ReadOptions) -> Capture:
    """All frames of a video's folder, at full size. One camera, at rest, whose focal length is a guess.

    Where `images` is missing, the pictures of `images_<n>` that the options name are all there is.
    """
    folder, n = IMAGES, 1
    names = pictures_in(root / folder)
    if not names and options.n_downsample_rgb is not None:
        n = options.n_downsample_rgb
        folder = f"{IMAGES}_{n}"
        names = pictures_in(root / folder)
    if not names:
        raise InputError(f"{root / IMAGES}: has no pictures. {_AGAIN}")
    width, height = picture_size(root / folder / next(iter(names.values())), _AGAIN)
    full = (width * n, height * n)
    K, world_to_camera = guessed_intrinsics(*full), resting_camera()
    masks = pictures_in(root / ALPHA_MAPS)
    making = PictureMaking(stored=(width, height), full=full)
    views = [
        View(
            timestep=number,
            camera=0,
            role="fit",
            K=K,
            world_to_camera=world_to_camera,
            width=full[0],
            height=full[1],
            file_path=f"{folder}/{name}",
            mask_path=f"{ALPHA_MAPS}/{masks[stem]}" if stem in masks else None,
            timestep_id=stem,
            camera_id=CAMERA_ID,
            making=making,
        )
        for number, (stem, name) in enumerate(names.items())
    ]
    lacking = sum(view.mask_path is None for view in views)
    notes = [f"{root / ALPHA_MAPS}: {lacking} of {len(views)} pictures have no alpha map"] if masks and lacking else []
    return Capture(root=root, views=views, kind="monocular", composited=False, calibrated=False, notes=tuple(notes))
