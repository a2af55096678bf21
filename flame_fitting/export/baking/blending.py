"""What each picture counts for at each texel: the one that resolves it best, feathered, corrected to what all agree on.

Weights and corrections are smooth, so they are found on a coarse texture. Low frequencies are the mean of all pictures
that see a texel, high ones come from the best few (Baumberg, "Blending images for texturing 3D models", BMVC 2002).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.export.baking import kernels

_FEATHER = 6.0
"""Coarse texels over which a picture fades in from the border of what it shows."""
_INSET = 1.0
"""Coarse texels along that border that it does not count in."""
_ONTO_FILLING = 2.0
"""Coarse texels over which all that is seen fades into what is not."""
_BEST = 6.0
"""Power of a picture's weight by which the best one stands out."""
_AGREE = 0.08
"""sRGB that pictures of one texel differ by."""
_BAND = 5.0
"""Coarse texels: standard deviation of the blur that parts low from high frequencies."""


@dataclass(frozen=True, eq=False)
class Blend:
    """What is done with each of B pictures, on coarse texels."""

    weight: Float[ndarray, "B C C"]
    shift: list[Float[ndarray, "C C 3"] | None]
    """What is added to its colours (sRGB); None where it counts for nothing."""
    mean: Float[ndarray, "C C 3"]
    """What they agree on."""
    seen: Float[ndarray, "C C"]
    """0..1, how far a texel is seen at all: fades out towards what no picture shows."""


def from_border(quality: Float[ndarray, "C C"], covered: Bool[ndarray, "C C"]) -> Float[ndarray, "C C"]:
    """Texels to the border of where a picture shows something (`quality` > 0), inset; charts have no border."""
    known = (quality > 0) | ~covered
    distance = cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, 5)
    return np.maximum(distance - _INSET, 0) * (quality > 0)


def blend(
    quality: Float[ndarray, "B n"],
    color: Float[ndarray, "B n 3"],
    covered: Bool[ndarray, "C C"],
) -> Blend:
    """`quality` (pixels a metre, 0 where a picture does not show a texel) and colours of the `covered` texels."""
    count, shape = len(quality), covered.shape
    rows, cols = np.nonzero(covered)
    best = np.maximum(quality.max(0), 1e-9)
    weight = np.zeros((count, len(rows)), dtype=np.float32)
    seen = np.zeros(len(rows), dtype=np.float32)
    for one, out in zip(quality, weight, strict=True):
        whole = np.zeros(shape, dtype=np.float32)
        whole[rows, cols] = one
        inward = from_border(whole, covered)[rows, cols]
        out[:] = np.minimum(inward / _FEATHER, 1) * (one / best)
        seen = np.maximum(seen, np.minimum(inward / _ONTO_FILLING, 1))
    mean, agrees = np.zeros((len(rows), 3), np.float32), np.zeros_like(weight)
    kernels.consensus(color, weight, _AGREE, 5, mean, agrees)
    sharp = (weight * np.sqrt(agrees)) ** _BEST
    sharp /= np.maximum(sharp.max(0), 1e-12)
    # only weights that count are kept, without a step where they begin to
    sharp = np.clip((sharp - 0.02) / 0.98, 0, 1)
    weights = np.zeros((count, *shape), dtype=np.float32)
    shifts: list[ndarray | None] = []
    inside = covered.astype(np.float32)
    for b in range(count):
        shifts.append(None)
        if not sharp[b].any():
            continue
        weights[b][rows, cols] = sharp[b]
        weights[b] = _within(weights[b], inside, 1.0) * (_image(weight[b], shape, rows, cols) > 0)
        known = _image(weight[b] * agrees[b], shape, rows, cols)
        apart = _image(mean - color[b].astype(np.float32), shape, rows, cols)
        share = cv2.GaussianBlur(known, (0, 0), _BAND)
        shifts[b] = cv2.GaussianBlur(apart * known[..., None], (0, 0), _BAND) / np.maximum(share, 1e-4)[..., None]
    return Blend(weights, shifts, _image(mean, shape, rows, cols), _image(seen, shape, rows, cols))


def _image(values: ndarray, shape: tuple[int, ...], rows: ndarray, cols: ndarray) -> ndarray:
    out = np.zeros((*shape, *values.shape[1:]), dtype=np.float32)
    out[rows, cols] = values
    return out


def _within(values: ndarray, inside: ndarray, sigma: float) -> ndarray:
    """Blurred over what is inside alone."""
    return cv2.GaussianBlur(values * inside, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(inside, (0, 0), sigma), 1e-3)
