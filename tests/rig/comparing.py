"""How alike pictures are."""

from pathlib import Path

import numpy as np


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of pictures 0..1."""
    assert one.shape == other.shape
    return float(-10 * np.log10(np.mean((np.asarray(one, dtype=np.float64) - other) ** 2) + 1e-12))


def picture(path: Path) -> np.ndarray:
    """(H, W, 3) 0..1."""
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) / 255
