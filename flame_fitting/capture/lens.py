"""Lens distortion, undone by OpenCV: which models there are, which picture is left, the pictures themselves."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MOST_ZOOM = 4.0
_STEPS = 64
_COUNT = {"brown": 8, "fisheye": 4}


class LensError(ValueError):
    """A distortion that leaves no usable picture; says why."""


@dataclass(frozen=True)
class Lens:
    """A distorted camera in parts of its picture's size, and the pinhole camera that takes its place.

    Coefficients are OpenCV's: `brown` k1 k2 p1 p2 k3 k4 k5 k6 (Brown-Conrady, rational), `fisheye` k1 k2 k3 k4
    (Kannala-Brandt).
    """

    model: Literal["brown", "fisheye"]
    coefficients: tuple[float, ...]
    focal: tuple[float, float]
    """fx over the picture's width, fy over its height, of the distorted camera."""
    center: tuple[float, float]
    """Principal point from the picture's top left corner, over width and height; the same for both cameras."""
    zoom: float = 1.0
    """Focal length of the pinhole camera over that of the distorted one."""

    def K(self, width: int, height: int) -> Array:
        """(3, 3) of the pinhole camera, px."""
        return _matrix(self, width, height, self.zoom)


def make_lens(
    model: Literal["brown", "fisheye"], coefficients: tuple[float, ...], K: Array, width: int, height: int
) -> Lens | None:
    """The lens of a camera with the intrinsics `K` (px) of a distorted picture; None where nothing is distorted.

    The pinhole camera keeps the principal point and, where all its pixels were seen, the focal length; else it looks
    as much closer as is needed. Raises LensError where that is more than fourfold, or pixels would be seen twice.
    """
    if not np.isfinite(coefficients).all():
        raise LensError("its coefficients are no finite numbers")
    if model == "brown" and not any(abs(value) > 1e-12 for value in coefficients):
        return None  # a fisheye without any is still one
    coefficients = (*coefficients, *(0.0,) * (_COUNT[model] - len(coefficients)))
    lens = Lens(
        model,
        tuple(float(value) for value in coefficients),
        (float(K[0, 0] / width), float(K[1, 1] / height)),
        (float(K[0, 2] / width), float(K[1, 2] / height)),
    )
    border = _border()
    if _seen(lens, border):
        zoom = 1.0
    else:
        low, zoom = 1.0, _MOST_ZOOM
        if not _seen(replace(lens, zoom=zoom), border):
            raise LensError("most of its picture would lie outside of what was seen")
        for _ in range(30):
            middle = 0.5 * (low + zoom)
            low, zoom = (low, middle) if _seen(replace(lens, zoom=middle), border) else (middle, zoom)
    lens = replace(lens, zoom=zoom)
    if not _unfolded(lens, border):
        raise LensError("it folds over inside of the picture")
    return lens


def distort(points: Array, lens: Lens) -> Array:
    """Where the lens sends points (N, 2) of a pinhole camera's plane z = 1; in that plane."""
    import cv2

    points = np.ascontiguousarray(points, dtype=np.float64)
    if lens.model == "fisheye":
        coefficients = np.array(lens.coefficients)
        return np.asarray(cv2.fisheye.distortPoints(points[:, None], np.eye(3), coefficients)[:, 0], dtype=np.float64)
    ahead = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    found, _ = cv2.projectPoints(ahead, np.zeros(3), np.zeros(3), np.eye(3), np.array(lens.coefficients))
    return np.asarray(found[:, 0], dtype=np.float64)


def undistorted(picture: NDArray[Any], lens: Lens) -> NDArray[Any]:
    """The picture (H, W) or (H, W, C) of the pinhole camera, from the distorted one of the same size."""
    import cv2

    height, width = picture.shape[:2]
    # OpenCV counts from pixel centres
    shift = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
    before, after = shift @ _matrix(lens, width, height), shift @ lens.K(width, height)
    make = cv2.fisheye.initUndistortRectifyMap if lens.model == "fisheye" else cv2.initUndistortRectifyMap
    x, y = make(before, np.array(lens.coefficients), np.eye(3), after, (width, height), cv2.CV_32FC1)
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _matrix(lens: Lens, width: int, height: int, zoom: float = 1.0) -> Array:
    K = np.diag([zoom * lens.focal[0] * width, zoom * lens.focal[1] * height, 1.0])
    K[0, 2], K[1, 2] = lens.center[0] * width, lens.center[1] * height
    return K


def _border() -> Array:
    """Points (N, 2) around a picture's edge, over its size."""
    along = np.linspace(0.0, 1.0, _STEPS + 1)
    zero, one = np.zeros_like(along), np.ones_like(along)
    sides = [(along, zero), (along, one), (zero, along), (one, along)]
    return np.concatenate([np.stack(side, axis=1) for side in sides])


def _plane(lens: Lens, points: Array) -> Array:
    """Where points over the size of the pinhole camera's picture lie in its plane z = 1."""
    return (points - lens.center) / (lens.zoom * np.array(lens.focal))


def _seen(lens: Lens, points: Array) -> bool:
    """Whether the distorted picture holds what the pinhole camera sees at points (N, 2) over the picture's size."""
    found = distort(_plane(lens, points), lens) * lens.focal + lens.center
    slack = 1e-6
    return bool(np.isfinite(found).all() and (found >= -slack).all() and (found <= 1 + slack).all())


def _unfolded(lens: Lens, border: Array) -> bool:
    """Whether what lies farther out in the pinhole camera's picture does so in the distorted one, too."""
    ends = _plane(lens, border)
    share = np.linspace(0.0, 1.0, _STEPS + 1)[1:]
    points = (share[:, None, None] * ends[None]).reshape(-1, 2)
    radius = np.linalg.norm(distort(points, lens), axis=1).reshape(_STEPS, len(border))
    return bool((np.diff(radius, axis=0) > 0).all())
