"""The network that looks at both eyes of a face: what its patches show, and how the head is turned, give the places in
each eye and its gaze against the head.

Residual blocks (He et al., "Deep Residual Learning for Image Recognition", 2016) down to 6 by 4 cells. Places are the
means of maps of 24 by 16 cells (Sun et al., "Integral Human Pose Regression", 2018), corrected by what the whole of
both eyes tells, as is the gaze.
"""

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
from flame_fitting.landmarks.eyes import (
    INNER,
    OUTER,
    PATCH,
    PLACES,
    WIDTH,
    corners_of,
    frame_of,
    network_path,
    patch_of,
)
from flame_fitting.maths.resection import FEWEST

_CHANNELS = (24, 48, 96, 128)
_CONTEXT, _HIDDEN = 160, 192
_LEAST = 3.0
"""Distance of an eye's corners in the picture, px, below which nothing is looked for."""
_FOCAL = 5.0
"""Over the larger side of the face: its turn is told as by a lens of usual length, as the picture does not say it."""
_LOOKS = 2
"""The first with the detector's corners, then with those that were found."""
_POINTS = 160
"""Points of the head by which its turn is told, at most."""


@dataclass(eq=False)
class EyeViews:
    """M pictures of both eyes of a head: the right one, and the left one as if mirrored, outer corner to the left."""

    images: UInt8[ndarray, "M 2 H W 3"]
    places: Float[ndarray, "M 2 14 2"]
    """px, in the order of `eyes.PLACES`."""
    gaps: Float[ndarray, "M 2 5"]
    """mm between the rims; below 0 where lids have passed each other."""
    gaze: Float[ndarray, "M 2 2"]
    """Against the head, toward the outer side and up, rad."""
    ball: Float[ndarray, "M 2 3"]
    """Middle of the eyeball from the middle between the corners, in the head's axes as of a right eye, mm."""
    turn: Float[ndarray, "M 2"]
    """Yaw and pitch from which the camera looks at the head, rad."""


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, 1, 1, bias=False) for _ in range(2))
        self.norm_first, self.norm_second = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        inside = torch.relu(self.norm_first(self.first(x)))
        return torch.relu(x + self.norm_second(self.second(inside)))


def _smaller(before: int, after: int, kernel: int = 3) -> nn.Sequential:
    layer = nn.Conv2d(before, after, kernel, 2, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU())


class EyeNetwork(nn.Module):
    """Places in both eyes, in distances of their corners, their gaze and the middle of their eyeballs."""

    grid: Tensor
    head_points: Tensor
    head_index: Tensor

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = _CHANNELS
        self.to_half = nn.Sequential(_smaller(3, a, 5), _Residual(a))
        self.to_quarter = nn.Sequential(_smaller(a, b), _Residual(b), _Residual(b))
        self.to_eighth = nn.Sequential(_smaller(b, c), _Residual(c), _Residual(c))
        self.to_sixteenth = nn.Sequential(_smaller(c, d), _Residual(d))
        cells = (PATCH[0] // 16) * (PATCH[1] // 16)
        self.context = nn.Sequential(
            nn.Conv2d(d, b, 1), nn.ReLU(), nn.Flatten(), nn.Linear(b * cells, _CONTEXT), nn.ReLU()
        )
        self.fine, self.coarse = nn.Conv2d(b, b, 1), nn.Conv2d(c, b, 1)
        self.maps = nn.Sequential(nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU(), nn.Conv2d(b, len(PLACES), 1))
        self.told = nn.Sequential(
            nn.Linear(2 * _CONTEXT + 4 * len(PLACES) + 2, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, 2 * len(PLACES) + 5),
        )
        # what the turn of a head is told by: points of the head model that expressions hardly move (decimetres)
        self.register_buffer("head_points", torch.zeros(_POINTS, 3))
        self.register_buffer("head_index", torch.full((_POINTS,), -1.0))
        x, y = ((torch.arange(n // 4) + 0.5 - n / 8) * 4 / WIDTH for n in PATCH)
        self.register_buffer("grid", torch.stack(torch.meshgrid(x, -y, indexing="xy"), -1).reshape(-1, 2), False)

    def forward(
        self, patches: Float[Tensor, "M 2 3 h w"], turn: Float[Tensor, "M 2"]
    ) -> tuple[Float[Tensor, "M 2 P 2"], Float[Tensor, "M 2 P 2"], Float[Tensor, "M 2 2"], Float[Tensor, "M 2 3"]]:
        """Of patches in 0..255 of a right and a mirrored left eye, and the turn of the head (`head_turn`).

        Places, the same as the maps alone show them, gaze (rad), and the eyeball's middle as of `EyeViews.ball` in
        centimetres. Brightness and contrast of each whole patch are taken out first.
        """
        count = len(patches)
        x = patches.flatten(0, 1)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) / x.std((1, 2, 3), keepdim=True).clamp_min(4.0)
        quarter = self.to_quarter(self.to_half(x))
        eighth = self.to_eighth(quarter)
        context = self.context(self.to_sixteenth(eighth)).reshape(count, 2, -1)
        larger = nn.functional.interpolate(self.coarse(eighth), scale_factor=2, mode="bilinear", align_corners=False)
        maps = self.maps(self.fine(quarter) + larger).flatten(2)
        # half floats, as training on a GPU takes them for the layers above, are too coarse for places
        with torch.autocast(x.device.type, enabled=False):
            shown = (maps.float().softmax(-1) @ self.grid).reshape(count, 2, len(PLACES), 2)
            both = torch.cat([context.float(), 2 * shown.flatten(2)], -1)
            # the left eye is shown mirrored, and so is its camera
            turned = torch.stack([turn, turn * turn.new_tensor([-1.0, 1.0])], 1)
            said = self.told(torch.cat([both, both.flip(1), turned], -1))
            moved, gaze, ball = said.split([2 * len(PLACES), 2, 3], -1)
            return shown + 0.1 * moved.reshape(shown.shape), shown, gaze, ball

    def save(self, path: Path) -> None:
        """Writes an .npz file of half floats."""
        arrays = {k: v.cpu().numpy().astype(np.float16) for k, v in self.state_dict().items()}
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **{k: v for k, v in arrays.items() if not k.endswith("num_batches_tracked")})

    @classmethod
    def load(cls, path: Path) -> "EyeNetwork":
        """Reads what `save` wrote."""
        advice = "Install flame-fitting again, or make it with: python scripts/train_eyes.py"
        arrays = read_npz(path, advice)
        made = cls()
        given = {k: torch.from_numpy(v.astype(np.float32)) for k, v in arrays.items()}
        given |= {k: v for k, v in made.state_dict().items() if k.endswith("num_batches_tracked")}
        try:
            made.load_state_dict(given)
        except RuntimeError as error:
            raise InputError(f"{path}: not the weights of the network for eyes. {advice}") from error
        return made.eval()

    def set_head(self, points: Float[ndarray, "N 3"], usable: ndarray) -> None:
        """Gives it the points (m) of the head model, in the detector's order, that say how a head is turned."""
        chosen = np.flatnonzero(usable)
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _POINTS)).round().astype(int)]
        self.head_index[: len(chosen)] = torch.from_numpy(chosen).float()
        self.head_points[: len(chosen)] = torch.from_numpy(10 * points[chosen]).float()


def head_turn(network: EyeNetwork, points: Float[ndarray, "N 2"]) -> Float[ndarray, "2"]:
    """Yaw and pitch (rad) from which the camera looks at a head, by its points in the picture; 0 where they say
    nothing."""
    import cv2

    index = network.head_index.numpy().astype(int)
    model = 0.1 * network.head_points.numpy()[index >= 0].astype(np.float64)
    seen = np.asarray(points, dtype=np.float64)[index[index >= 0]]
    known = np.isfinite(seen).all(1)
    if known.sum() < FEWEST or np.ptp(seen[known], axis=0).min() < 1:
        return np.zeros(2)
    seen, model = seen[known], model[known]
    side = float(np.ptp(seen, axis=0).max())
    rays = np.ascontiguousarray((seen - seen.mean(0)) / (_FOCAL * side))
    found, turn, place = cv2.solvePnP(model, rays, np.eye(3), None, flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        return np.zeros(2)
    turn, place = cv2.solvePnPRefineLM(model, rays, np.eye(3), None, turn, place)
    x, y, z = (-cv2.Rodrigues(turn)[0].T @ place)[:, 0]
    angles = np.array([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))])
    return angles.clip(-1.3, 1.3) if np.isfinite(angles).all() else np.zeros(2)


def look(
    network: EyeNetwork, patches: UInt8[ndarray, "M 2 h w 3"], turn: Float[ndarray, "M 2"]
) -> tuple[Float[ndarray, "M 2 P 2"], Float[ndarray, "M 2 2"]]:
    """Places and gaze (rad) of M faces."""
    with torch.no_grad():
        given = torch.from_numpy(np.ascontiguousarray(patches.transpose(0, 1, 4, 2, 3))).float()
        places, _, gaze, _ = network(given, torch.from_numpy(turn).float())
    return places.numpy().astype(np.float64), gaze.numpy().astype(np.float64)


def find_eyes(image: UInt8[ndarray, "H W 3"], points: Float[ndarray, "N 2"]) -> Float[ndarray, " M"]:
    """The `eyes.NAMES` of a face; NaN for eyes that are too small to be looked at."""
    network = shipped_network()
    given = corners_of(points)
    large = np.isfinite(given).all((1, 2)) & (np.linalg.norm(given[:, 1] - given[:, 0], axis=-1) >= _LEAST)
    out = np.full((2, 2 * len(PLACES) + 2), np.nan)
    if not large.any():
        return out.reshape(-1)
    turn, corners = head_turn(network, points)[None], given.copy()
    patches = np.zeros((1, 2, PATCH[1], PATCH[0], 3), np.uint8)
    for _ in range(_LOOKS):
        frames = [frame_of(corners[side], left=side == 1) for side in range(2)]
        for side in range(2):
            if large[side]:
                patches[0, side] = patch_of(image, *frames[side])
        places, gaze = look(network, patches, turn)
        seen = np.stack([middle + told @ axes.T for told, (middle, axes) in zip(places[0], frames, strict=True)])
        corners[large] = seen[large][:, [OUTER, INNER]]
    for side in range(2):
        if large[side]:
            middle, axes = frame_of(given[side], left=side == 1)
            told = (seen[side] - middle) @ np.linalg.inv(axes).T
            out[side] = np.concatenate([told.reshape(-1), gaze[0, side]])
    return out.reshape(-1)


@lru_cache(maxsize=1)
def shipped_network() -> EyeNetwork:
    """The network that comes with the program, loaded once."""
    return EyeNetwork.load(network_path())
