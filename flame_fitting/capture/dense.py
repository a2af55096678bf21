"""Dense observations: maps that say something of every pixel of a view, made by other programs and imported."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DenseKind:
    """What one kind of map holds."""

    channels: int
    """Values of a pixel; 0: one label, without a dimension of its own."""
    meaning: str


DENSE: dict[str, DenseKind] = {
    "normal": DenseKind(3, "unit normal in the world; NaN where nothing is known"),
    "uv": DenseKind(2, "texture coordinate on the head model, origin at the bottom left; NaN where nothing is known"),
    "region": DenseKind(0, "label of a face parser; -1 where nothing is known"),
    "occlusion": DenseKind(0, "1 where something covers the head, 0 where nothing does; -1 where it is not known"),
}
"""By the names of the arrays in a view's file."""


def checked_map(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """A map as float32 (H, W, C) or int32 (H, W). Raises ValueError where it is something else."""
    kind = DENSE[name]
    if kind.channels:
        if array.ndim != 3 or array.shape[2] != kind.channels or array.dtype.kind not in "fiu":
            raise ValueError(f"{name} is {array.shape} of {array.dtype}, not numbers (H, W, {kind.channels})")
        return array.astype(np.float32)
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise ValueError(f"{name} is {array.shape} of {array.dtype}, not whole numbers (H, W)")
    return array.astype(np.int32)
