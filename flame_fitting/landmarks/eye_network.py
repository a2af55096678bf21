"""The network that looks at an eye: three convolutions and two full layers, from a patch to the places in it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz
from flame_fitting.landmarks.eyes import PATCH, PLACES, corners_of, frame_of, network_path, patch_of

_CHANNELS = (16, 32, 48, 20)
_HIDDEN = 96
_LEAST = 3.0
"""Distance of an eye's corners in the picture, px, below which nothing is looked for."""


@dataclass(eq=False)
class EyeCrops:
    """M pictures of single eyes, the outer corner to the left."""

    images: UInt8[ndarray, "M H W 3"]
    places: Float[ndarray, "M 14 2"]
    """px, in the order of `eyes.PLACES`."""
    gaps: Float[ndarray, "M 5"]
    """mm between the rims; below 0 where lids have passed each other."""


class EyeNetwork(nn.Module):
    """Places of an eye from its patch, in distances of its corners."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, last = _CHANNELS
        self.layers = nn.Sequential(
            nn.Conv2d(3, first, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(third, last, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(last * (PATCH[0] // 8) * (PATCH[1] // 8), _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, 2 * len(PLACES)),
        )

    def forward(self, patches: Float[Tensor, "M 3 h w"]) -> Float[Tensor, "M P 2"]:
        """Of patches in 0..255: brightness and contrast of the whole patch are taken out first."""
        mean = patches.mean((1, 2, 3), keepdim=True)
        spread = patches.std((1, 2, 3), keepdim=True).clamp_min(4.0)
        return self.layers((patches - mean) / spread).reshape(len(patches), len(PLACES), 2)

    def save(self, path: Path) -> None:
        """Writes an .npz file of half floats."""
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **{k: v.numpy().astype(np.float16) for k, v in self.state_dict().items()})

    @classmethod
    def load(cls, path: Path) -> "EyeNetwork":
        """Reads what `save` wrote."""
        advice = "Install flame-fitting again, or make it with: python scripts/train_eyes.py"
        arrays = read_npz(path, advice)
        made = cls()
        try:
            made.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in arrays.items()})
        except RuntimeError as error:
            raise InputError(f"{path}: not the weights of the network for eyes. {advice}") from error
        return made.eval()


def look(network: EyeNetwork, patches: UInt8[ndarray, "M h w 3"]) -> Float[ndarray, "M P 2"]:
    """Places of M patches."""
    with torch.no_grad():
        seen = network(torch.from_numpy(np.ascontiguousarray(patches.transpose(0, 3, 1, 2))).float())
    return seen.numpy().astype(np.float64)


def find_eyes(image: UInt8[ndarray, "H W 3"], points: Float[ndarray, "N 2"]) -> Float[ndarray, " M"]:
    """The `eyes.NAMES` of a face; NaN for eyes that are too small to be looked at."""
    out = np.full((2, len(PLACES), 2), np.nan)
    patches, sides = [], []
    for side, corners in enumerate(corners_of(points)):
        if np.isfinite(corners).all() and np.linalg.norm(corners[1] - corners[0]) >= _LEAST:
            patches.append(patch_of(image, *frame_of(corners, left=side == 1)))
            sides.append(side)
    if patches:
        out[sides] = look(shipped_network(), np.stack(patches))
    return out.reshape(-1)


@lru_cache(maxsize=1)
def shipped_network() -> EyeNetwork:
    """The network that comes with the program, loaded once."""
    return EyeNetwork.load(network_path())
