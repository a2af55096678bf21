"""The inverse of the sRGB transfer function (IEC 61966-2-1), for checks."""

import numpy as np


def linear_from_srgb(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
