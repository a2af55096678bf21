"""A texture of a fit from all pictures of its capture."""

from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from flame_fitting.capture.capture import Capture
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel

BakeKind = Literal["albedo", "shaded"]
"""Colours without the light that the capture was lit by, or as the pictures show them."""


def baked_texture(
    fit: FitResult, head: HeadModel, capture: Capture, size: int, kind: BakeKind = "albedo"
) -> UInt8[ndarray, "size size 3"]:
    """sRGB for the head's own texture coordinates, row 0 at v = 1. For a head with texture coordinates and a capture
    with pictures, both as `open_fit` gives them."""
    import cv2

    assert head.has_uv
    if fit.texture is None:
        return np.full((size, size, 3), 179, np.uint8)
    return np.ascontiguousarray(cv2.resize(fit.texture, (size, size), interpolation=cv2.INTER_CUBIC))
