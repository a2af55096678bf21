"""Colour corrections that readers must apply, and pictures before them."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.mesh import srgb_from_linear
from flame_fitting.capture.color_correction import srgb_to_linear

STEPS = 6
"""Each brings the products' part ten times nearer."""
Picture = Float[ndarray, "H W 3"]
GAIN = 1.2
"""Corrections brighten, so that what they are applied to lies within 0..1."""
TERMS = 7
"""Of the polynomial in NeRSemble v2's colour calibration."""


def draw_affine(rng: np.random.Generator) -> Float[ndarray, "3 4"]:
    """NeRSemble v1: rgb' = rgb A[:, :3] + A[:, 3] for rows rgb of sRGB values."""
    mix = 0.04 * rng.uniform(-1, 1, (3, 3))
    gains = GAIN * rng.uniform(0.97, 1.06, 3)
    return np.concatenate([np.diag(gains) + mix - np.diag(np.diag(mix)), -0.05 * rng.uniform(0.8, 1.2, (3, 1))], axis=1)


def before_affine(picture: Picture, matrix: Float[ndarray, "3 4"]) -> Picture:
    """What `matrix` makes this sRGB picture of."""
    return (picture - matrix[:, 3]) @ np.linalg.inv(matrix[:, :3])


def draw_polynomial(rng: np.random.Generator) -> Float[ndarray, "3 7"]:
    """NeRSemble v2: linear rgb' = M (r, g, b, rg, rb, gb, 1), the polynomial of Cheung et al. (2004), 7 terms."""
    matrix = np.zeros((3, TERMS))
    matrix[:, :3] = np.diag(1.15 * GAIN * rng.uniform(0.97, 1.06, 3)) + 0.06 * rng.uniform(-1, 1, (3, 3))
    matrix[:, 3:6] = 0.04 * rng.uniform(-1, 1, (3, 3))
    matrix[:, 6] = -0.004 * rng.uniform(0.5, 1, 3)
    return matrix


def before_polynomial(picture: Picture, matrix: Float[ndarray, "3 7"]) -> Picture:
    """What `matrix` makes this sRGB picture of, by fixed-point steps on linear values; matrix as in `draw_polynomial`.

    Exact for colours of skin, hair and walls; what is all but one primary colour was never within the camera's range.
    """
    wanted = srgb_to_linear(picture).reshape(-1, 3).astype(np.float32) - matrix[:, 6].astype(np.float32)
    inverse, products = np.linalg.inv(matrix[:, :3]).T.astype(np.float32), matrix[:, 3:6].T.astype(np.float32)
    found = wanted @ inverse
    for _ in range(STEPS):
        red, green, blue = found.T
        found = (wanted - np.stack([red * green, red * blue, green * blue], axis=1) @ products) @ inverse
    return srgb_from_linear(found.reshape(picture.shape))


def draw_plate(width: int, height: int, rng: np.random.Generator) -> Picture:
    """A wall out of focus: a gradient and a few soft shapes."""
    from scipy.ndimage import gaussian_filter

    rows, columns = np.mgrid[0:height, 0:width] / height
    slope = 0.12 * (rows - 0.5) * rng.uniform(-1, 1) + 0.12 * (columns - 0.3) * rng.uniform(-1, 1)
    soft = [gaussian_filter(rng.standard_normal((height, width)), 0.09 * height) for _ in range(4)]
    soft = [values / values.std() for values in soft]
    blobs = 0.05 * soft[0][..., None] + 0.012 * np.stack(soft[1:], axis=-1)
    return np.clip(np.array([0.60, 0.63, 0.66]) + slope[..., None] + blobs, 0.2, 0.9)
