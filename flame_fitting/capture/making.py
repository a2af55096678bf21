"""How the picture of a view is made from its file: colours, lens, size, background, in this order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.color_correction import ColorCorrection
from flame_fitting.capture.lens import Lens, undistorted
from flame_fitting.capture.pictures import replace_background

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Backdrop:
    """A background put behind a picture by its alpha."""

    color: tuple[float, float, float]
    """sRGB, 0..1."""
    mask_path: str
    """Alpha map, relative to the capture's folder; the picture's own file where its alpha channel is meant."""
    replaces: tuple[float, float, float] | None = None
    """What the file's picture was composited on; None: its real background is in it."""


@dataclass(frozen=True, eq=False)
class PictureMaking:
    """What is done to a file to get the picture of its view."""

    stored: tuple[int, int]
    """Width and height of the file."""
    full: tuple[int, int]
    """Width and height that the folder's pictures have when it is opened without options: files of landmarks count
    these pixels."""
    lens: Lens | None = None
    """Distortion that is undone."""
    color: ColorCorrection | None = None
    """Correction of the camera's colours."""
    backdrop: Backdrop | None = None
    """Background that takes the place of the file's."""


def made_picture(picture: NDArray[np.uint8], making: PictureMaking, width: int, height: int) -> Array:
    """(H, W, 3) float32 sRGB 0..1 from the file's (h, w, 3) bytes, without another background."""
    out: Array = picture.astype(np.float32) / 255.0
    if making.color is not None:
        out = making.color(out).astype(np.float32)
    if making.lens is not None:
        out = undistorted(out, making.lens)
    return resized(out, width, height)


def made_mask(mask: NDArray[np.uint8], making: PictureMaking, width: int, height: int) -> Array:
    """(H, W) float32 0..1 from the bytes (h, w) of an alpha map, which may have another size than its picture."""
    out: Array = mask.astype(np.float32) / 255.0
    if making.lens is not None:
        out = undistorted(out, making.lens)
    return resized(out, width, height)


def over_backdrop(picture: Array, alpha: Array, backdrop: Backdrop) -> Array:
    """The picture (H, W, 3) with its avatar, given by alpha (H, W), over another background."""
    if backdrop.replaces is not None:
        moved = picture.transpose(2, 0, 1)
        return replace_background(moved, alpha, backdrop.replaces, backdrop.color)[0].transpose(1, 2, 0)
    return picture * alpha[..., None] + (1.0 - alpha[..., None]) * np.array(backdrop.color, dtype=np.float32)


def resized(picture: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """The picture (h, w) or (h, w, C) at another size: the mean of what a pixel covers, linear where it is grown.

    Both have the same borders, so a point at x px comes to lie at x * width / w exactly.
    """
    if picture.shape[:2] == (height, width):
        return picture
    import cv2

    shrinks = width <= picture.shape[1] and height <= picture.shape[0]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
