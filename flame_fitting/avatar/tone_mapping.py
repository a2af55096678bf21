"""Colours that a browser shows as they are meant: viser's page puts three.js's filmic tone mapping over all meshes.

That is Stephen Hill's fit of the ACES reference rendering transform (three.js: ACESFilmicToneMapping), exposure 1: an
input matrix, a rational function of each channel, an output matrix. It is undone here.
"""

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.capture.color_correction import linear_to_srgb, srgb_to_linear

_SCALE = 0.6
"""Of the scene's white, by which the fit divides."""
_INPUT = np.array([[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]])
_OUTPUT = np.array([[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]])
_RATIONAL = (0.0245786, 0.000090537, 0.983729, 0.4329510, 0.238081)
"""a, b, c, d, e of v (v + a) - b over v (c v + d) + e."""
_BRIGHTEST = 0.9
"""Linear; what is brighter would take a scene far brighter, and pictures of 8 bits few steps for all else."""


def mapped(linear: Float[ndarray, "*n 3"]) -> Float[ndarray, "*n 3"]:
    """What the browser makes of linear colours, 0..1."""
    a, b, c, d, e = _RATIONAL
    v = linear @ _INPUT.T / _SCALE
    return np.clip((v * (v + a) - b) / (v * (c * v + d) + e) @ _OUTPUT.T, 0, 1)


def before_mapping(linear: Float[ndarray, "*n 3"]) -> Float[ndarray, "*n 3"]:
    """Linear colours of which `mapped` makes these, 0 or more; those that it can not make come out near."""
    a, b, c, d, e = _RATIONAL
    y = np.clip(linear @ np.linalg.inv(_OUTPUT).T, 0, _BRIGHTEST)
    square, line, rest = 1 - c * y, a - d * y, -b - e * y
    v = (np.sqrt(line * line - 4 * square * rest) - line) / (2 * square)
    return np.clip(_SCALE * v @ np.linalg.inv(_INPUT).T, 0, None)


_FACTOR = float(before_mapping(np.ones(3)).max())
SHOWN_WHITE = (*(float(linear_to_srgb(np.array(_FACTOR))),) * 3, 1.0)
"""Base colour (sRGB, above 1) that belongs to a `shown_picture`."""


def shown_colors(colors: Float[ndarray, "*n 3"]) -> Float[ndarray, "*n 3"]:
    """sRGB 0..1 that is to be seen, as the sRGB (0 or more, above 1 where it is bright) that an unlit mesh needs."""
    return linear_to_srgb(before_mapping(srgb_to_linear(np.asarray(colors, dtype=np.float64))))


def shown_picture(
    picture: UInt8[ndarray, "H W C"], tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> UInt8[ndarray, "H W C"]:
    """A texture (times a colour, sRGB) as an unlit mesh of the base colour `SHOWN_WHITE` needs it; alpha stays."""
    out, tinted = picture.copy(), srgb_to_linear(np.array(tint))
    of_byte = srgb_to_linear(np.arange(256) / 255)
    for start in range(0, len(picture), 256):
        rows = slice(start, start + 256)
        wanted = before_mapping(of_byte[picture[rows, :, :3]] * tinted) / _FACTOR
        out[rows, :, :3] = np.clip(linear_to_srgb(wanted) * 255, 0, 255).round()
    return out
