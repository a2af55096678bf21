"""Pictures as arrays: 8 bits, colours by name, another background, PNG files."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flame_fitting.errors import InputError

Color = tuple[float, float, float] | NDArray[np.floating]
"""sRGB 0..1, (3,)."""
NAMED_COLORS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


def to_uint8(values: NDArray[Any], halves: Literal["up", "even"] = "up") -> NDArray[np.uint8]:
    """8-bit values from floats 0..1 of any shape, clipped and rounded; uint8 passes through.

    Halves go up, as in all files of this program, or to the even value.
    """
    if values.dtype == np.uint8:
        return values
    scaled = np.clip(values, 0.0, 1.0) * 255.0
    return (scaled + 0.5 if halves == "up" else np.round(scaled)).astype(np.uint8)


def picture_as_uint8(image: ArrayLike, halves: Literal["up", "even"] = "up") -> NDArray[np.uint8]:
    """Pictures (..., H, W, 3) uint8 from (..., 3, H, W) float 0..1 or (..., H, W, 3) uint8, as a new array.

    `halves` as in `to_uint8`. Raises ValueError where the channels are elsewhere.
    """
    array = np.asarray(image)
    if array.dtype == np.uint8:
        if array.ndim < 3 or array.shape[-1] != 3:
            raise ValueError(f"an 8-bit picture must be (H, W, 3), not {array.shape}")
        return array.copy()
    if array.ndim < 3 or array.shape[-3] != 3:
        raise ValueError(f"a float picture must be (3, H, W), not {array.shape}")
    return np.ascontiguousarray(np.moveaxis(to_uint8(array, halves), -3, -1))


def replace_background(
    image: NDArray[np.floating],
    alpha: NDArray[np.floating],
    old: Color,
    new: Color,
    keep: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Pictures (..., 3, H, W) over another background, and their masks (..., H, W).

    Exact where they were composited on `old` in sRGB. The avatar is cut where `keep`
    (..., H, W) is 0: there the new background shows. `fit/backgrounds.recomposite` does the same on a fit's device.
    """
    behind, wanted = (np.asarray(color, dtype=image.dtype)[:, None, None] for color in (old, new))
    mask = alpha if keep is None else alpha * keep
    avatar = image - (1 - alpha)[..., None, :, :] * behind
    if keep is not None:
        avatar = avatar * keep[..., None, :, :]
    return np.clip(avatar + (1 - mask)[..., None, :, :] * wanted, 0, 1), mask


def parse_color(text: str, flag: str) -> tuple[float, float, float]:
    """sRGB 0..1 from white, black (in any case) or r,g,b in 0..255; InputError, which names the flag, for others."""
    if (named := NAMED_COLORS.get(text.lower())) is not None:
        return named
    try:
        red, green, blue = (float(part) / 255 for part in text.replace(",", " ").split())
    except ValueError:
        red = green = blue = -1.0
    if not all(0 <= value <= 1 for value in (red, green, blue)):
        raise InputError(f"{flag} {text}: must be white, black or three numbers from 0 to 255 as r,g,b.")
    return red, green, blue


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Writes (H, W, 3) RGB or (H, W) grey as an 8-bit PNG."""
    import cv2

    array = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    done, encoded = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise RuntimeError(f"{path}: the picture could not be encoded")
    path.write_bytes(encoded.tobytes())
