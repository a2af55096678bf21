"""Colour corrections of a camera: NeRSemble's affine one (v1) and its polynomial one in linear light (v2)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]

_SECOND = ("r", "g", "b", "rg", "rb", "gb", "rr", "gg", "bb")
_CUBES = ("rrr", "ggg", "bbb")
_MIXED = (*_SECOND, "rgb", "rrg", "ggb", "rbb")
_ALL_MIXED = (*_MIXED, "rrb", "rgg", "gbb")
_PRODUCTS: dict[int, tuple[str, ...]] = {
    len(products): products
    for products in (
        _SECOND[:3],
        (*_SECOND[:3], ""),
        (*_SECOND[:3], "rgb", ""),
        (*_SECOND[:6], ""),
        (*_SECOND[:6], "rgb", ""),
        (*_SECOND, ""),
        (*_SECOND, "rgb", ""),
        (*_SECOND, "rgb", *_CUBES, ""),
        (*_MIXED, *_CUBES),
        (*_MIXED, *_CUBES, ""),
        (*_ALL_MIXED, *_CUBES),
        (*_ALL_MIXED, *_CUBES, ""),
        (*_ALL_MIXED, *_CUBES, "rrgb", "rggb", "rgbb"),
    )
}
"""Terms of the polynomials by their number (Cheung, Westland, Connah, Ripamonti, "A comparative study of the
characterisation of colour cameras by means of neural networks and polynomial transforms", 2004; Westland, Ripamonti,
"Computational Colour Science", 2004), in the order of the package colour-science, which NeRSemble's are made with."""


@dataclass(frozen=True, eq=False)
class AffineCorrection:
    """rgb' = rgb @ matrix + offset on sRGB values, as NeRSemble v1 has it."""

    matrix: NDArray[np.float64]
    """(3, 3)."""
    offset: NDArray[np.float64]
    """(3,)."""

    def __call__(self, picture: Picture) -> Picture:
        """(H, W, 3) sRGB 0..1 to the same."""
        corrected = picture @ self.matrix.astype(np.float32) + self.offset.astype(np.float32)
        return np.clip(corrected, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class PolynomialCorrection:
    """A polynomial of linear light, as NeRSemble v2 has it."""

    matrix: NDArray[np.float64]
    """(3, terms); terms is one of `polynomial_terms()`."""

    def __call__(self, picture: Picture) -> Picture:
        """(H, W, 3) sRGB 0..1 to the same."""
        linear = srgb_to_linear(picture)
        corrected = np.zeros_like(linear)
        for column, product in zip(self.matrix.T.astype(np.float32), _PRODUCTS[self.matrix.shape[1]], strict=True):
            term = np.ones(linear.shape[:-1], dtype=np.float32)
            for channel in product:
                term = term * linear[..., "rgb".index(channel)]
            corrected += term[..., None] * column
        return linear_to_srgb(np.clip(corrected, 0.0, 1.0))


ColorCorrection = AffineCorrection | PolynomialCorrection
"""Corrects the colours of one camera: called with a picture (H, W, 3), sRGB 0..1, gives the same."""


def polynomial_terms() -> tuple[int, ...]:
    """How many terms a polynomial may have."""
    return tuple(_PRODUCTS)


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, decoding of 0..1."""
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, encoding of 0..1."""
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * np.maximum(values, 0) ** (1 / 2.4) - 0.055)
