"""Cameras by the names that COLMAP gives their models, which nerfstudio took over, and by transforms.json's keys."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.lens import Lens, LensError, make_lens
from flame_fitting.errors import InputError

Array = NDArray[np.float64]

_UNDISTORT = "Undistort the pictures first (COLMAP: image_undistorter), and give that result."
_MODELS: dict[str, tuple[str, ...]] = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "SIMPLE_RADIAL_FISHEYE": ("f", "cx", "cy", "k1"),
    "RADIAL_FISHEYE": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV_FISHEYE": ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4"),
}
"""COLMAP's models that are known here, and what their parameters are."""
_BROWN = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE = ("k1", "k2", "k3", "k4")
DISTORTION_KEYS = tuple(sorted({*_BROWN, *_FISHEYE}))
"""Keys of transforms.json that say how a lens distorts."""


def camera_of_model(
    model: str, parameters: Sequence[float], width: int, height: int, where: str
) -> tuple[Array, Lens | None]:
    """K (3, 3) px of the undistorted camera, and the lens whose distortion is to be undone, of a camera of COLMAP.

    Raises InputError, beginning with `where`, for a model that is not known and a lens that cannot be undone.
    """
    names = _MODELS.get(model)
    if names is None:
        raise InputError(f"{where}: has the model {model}; known are {', '.join(_MODELS)}. {_UNDISTORT}")
    if len(names) != len(parameters):
        raise InputError(f"{where}: has {len(parameters)} parameters, the model {model} has {len(names)}.")
    values = dict(zip(names, parameters, strict=True))
    K = np.array(
        [
            [values.get("fx", values.get("f")), 0.0, values["cx"]],
            [0.0, values.get("fy", values.get("f")), values["cy"]],
            [0.0, 0.0, 1.0],
        ]
    )
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError(f"{where}: has no usable focal length and principal point.")
    return undone(model, values, K, width, height, where)


def camera_of_keys(
    values: Mapping[str, Any], K: Array, width: int, height: int, where: str
) -> tuple[Array, Lens | None]:
    """The same from the keys of a frame of transforms.json, whose K (3, 3) px is that of its distorted picture."""
    distortion = {key: float(values.get(key) or 0.0) for key in DISTORTION_KEYS}
    model = str(values.get("camera_model") or "OPENCV").upper()
    if values.get("is_fisheye") and "FISHEYE" not in model:
        model = "OPENCV_FISHEYE"
    if model not in _MODELS:
        raise InputError(f"{where}: has the camera_model {model}; known are {', '.join(_MODELS)}. {_UNDISTORT}")
    if "FISHEYE" not in model and model != "FULL_OPENCV" and any(distortion[key] for key in ("k4", "k5", "k6")):
        # nerfstudio's k4 is a polynomial's, OpenCV's a denominator's
        raise InputError(f"{where}: has lens distortion k4 to k6, which only FULL_OPENCV defines. {_UNDISTORT}")
    if "FISHEYE" in model and (distortion["p1"] or distortion["p2"]):
        raise InputError(f"{where}: is a fisheye with p1 and p2, which its model does not have. {_UNDISTORT}")
    return undone(model, distortion, K, width, height, where)


def undone(
    model: str, values: Mapping[str, float], K: Array, width: int, height: int, where: str
) -> tuple[Array, Lens | None]:
    """K of the undistorted camera, and the lens; InputError, beginning with `where`, where there is none."""
    fisheye = "FISHEYE" in model
    coefficients = tuple(float(values.get(key, 0.0)) for key in (_FISHEYE if fisheye else _BROWN))
    try:
        lens = make_lens("fisheye" if fisheye else "brown", coefficients, K, width, height)
    except LensError as error:
        raise InputError(f"{where}: its lens distortion cannot be undone: {error}. {_UNDISTORT}") from error
    return (K, None) if lens is None else (lens.K(width, height), lens)
