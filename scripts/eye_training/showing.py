"""Views of eyes as the network is shown them: patches whose corners, lights, lashes and sharpness differ each time."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from flame_fitting.avatar.eye_pictures import EyeErrors
from flame_fitting.landmarks.eye_network import EyeViews
from flame_fitting.landmarks.eyes import INNER, IRIS, LOWER, OUTER, PATCH, UPPER, WIDTH

CORNER_NOISE = 0.03
"""Of corners that were found by a first look, in their distance."""
HIDDEN_MM = 1.5
"""Lid gap below which an iris is not seen, so that nothing is learned of it."""
LEAST = 8.0
"""Distance of an eye's corners, px, from which on anything is learned of it."""


class Shown:
    """Views as they are shown to the network: patches whose corners, lights, lashes and sharpness differ each time."""

    def __init__(self, errors: EyeErrors, device: str) -> None:
        self.device, self.count = device, 0
        self.arrays: dict[str, Tensor] = {}
        as_is, mirrored = errors, errors.mirrored()
        both = {f.name: np.concatenate([getattr(as_is, f.name), getattr(mirrored, f.name)]) for f in fields(EyeErrors)}
        self.errors = {name: torch.from_numpy(value).float().to(device) for name, value in both.items()}

    def add(self, views: EyeViews) -> None:
        """More of them; room is doubled where it ends."""
        more = len(views.images)
        for f in fields(EyeViews):
            value = torch.from_numpy(np.ascontiguousarray(getattr(views, f.name)))
            have = self.arrays.get(f.name)
            if have is None or self.count + more > len(have):
                room = torch.empty(max(2 * (self.count + more), 4096), *value.shape[1:], dtype=value.dtype)
                room = room.to(self.device)
                if have is not None:
                    room[: self.count] = have[: self.count]
                self.arrays[f.name] = have = room
            have[self.count : self.count + more] = value.to(self.device)
        self.count += more

    def batch(self, rows: Tensor, random: torch.Generator, plain: bool = False) -> dict[str, Tensor]:
        """Patches (B, 2, 3, h, w) in 0..255, the head's turn as the detector would tell it, and what is true: places
        (B, 2, P, 2) in distances of the corners, gaze, eyeball and gaps. `plain`: corners as of the detector alone."""
        device, count = self.device, 2 * len(rows)
        own = {name: value[rows] for name, value in self.arrays.items()}

        def normal(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=random, device=device)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *shape, generator=random, device=device)

        # what the detector was wrong by on one of the heads that were seen from about there
        away = torch.cdist(own["turn"], self.errors["turn"])
        near = away.topk(min(16, away.shape[1]), largest=False).indices
        one = near.gather(1, torch.randint(near.shape[1], (len(rows), 1), generator=random, device=device))[:, 0]
        turn = own["turn"] + self.errors["turn_error"][one] + 0.01 * normal(2)[: len(rows)]
        wrong = self.errors["corners"][one].flatten(0, 1)
        places = own["places"].flatten(0, 1)
        corners = places[:, [OUTER, INNER]]
        width, axes = (corners[:, 1] - corners[:, 0]).norm(dim=1), _axes(corners)
        again = (uniform(0, 1, 1, 1) < (0.0 if plain else 0.6)).float()
        wrong = (1 - again) * (wrong + 0.01 * normal(2, 2)) + again * CORNER_NOISE * uniform(0.1, 1.2, 1, 1) * normal(
            2, 2
        )
        given = corners + wrong @ axes.mT
        axes, middle = _axes(given), given.mean(1, keepdim=True)
        told = (places - middle) @ axes / (axes[:, :, :1] ** 2).sum(1, keepdim=True)
        # in the patch: along and down, in distances of the corners
        y, x = torch.meshgrid(
            *((torch.arange(n, device=device) + 0.5 - n / 2) / WIDTH for n in PATCH[::-1]), indexing="ij"
        )
        grid = torch.stack([x, -y], -1).reshape(1, -1, 2)
        at = (middle + grid @ axes.mT).reshape(count, PATCH[1], PATCH[0], 2)
        image = own["images"].flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        size = torch.tensor([image.shape[3], image.shape[2]], device=device)
        out = torch.nn.functional.grid_sample(image, 2 * at / size - 1, padding_mode="border", align_corners=False)
        spot = grid.reshape(1, PATCH[1], PATCH[0], 2)
        gaps = own["gaps"].flatten(0, 1)
        out = _lashes(out, spot, told, uniform)
        out = _specular(out, spot, told, gaps[:, 2] >= HIDDEN_MM, normal, uniform)
        out = 255 * _camera(out, x, y, normal, uniform)
        # now and then only one eye of a face is seen
        gone = (uniform(0, 1, 1, 1, 1) < 0.03).reshape(-1, 2, 1, 1, 1)
        gone[:, 1] &= ~gone[:, 0]
        patches = out.reshape(-1, 2, *out.shape[1:]) * ~gone
        return {
            "patches": patches,
            "turn": turn,
            "places": told.reshape(-1, 2, *told.shape[1:]),
            "gaze": own["gaze"],
            "ball": own["ball"],
            "gaps": own["gaps"],
            # an eye that is turned away says nothing
            "seen": ~gone[:, :, 0, 0, 0] & (width >= LEAST).reshape(-1, 2),
            "width": width.reshape(-1, 2),
        }


def _axes(corners: Tensor) -> Tensor:
    """(B, 2, 2) as of `eyes.frame_of`: along and up, as columns."""
    along = corners[:, 1] - corners[:, 0]
    # corners of an eye seen from far aside fall together
    length = along.norm(dim=1, keepdim=True)
    along = torch.where(length > 0.5 * LEAST, along, torch.tensor([0.5 * LEAST, 0.0], device=along.device))
    return torch.stack([along, torch.stack([along[:, 1], -along[:, 0]], 1)], 2)


def _lashes(out: Tensor, spot: Tensor, told: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """A dark line along the upper lid, which the head model has none of."""
    line = told[:, [OUTER, 0, 1, 2, 3, 4, INNER]] + uniform(-0.01, 0.05, 1, 1) * torch.tensor([0.0, 1.0]).to(told)
    begin, step = line[:, :-1, None, None], (line[:, 1:] - line[:, :-1])[:, :, None, None]
    away = spot[:, None] - begin
    share = ((away * step).sum(-1) / (step**2).sum(-1).clamp_min(1e-6)).clamp(0, 1)
    distance = (away - share[..., None] * step).norm(dim=-1).amin(1)
    cover = torch.exp(-((distance / uniform(0.01, 0.05, 1, 1)) ** 2)) * (uniform(-0.4, 0.95, 1, 1)).clamp_min(0)
    return out * (1 - cover[:, None]) + cover[:, None] * uniform(0.02, 0.2, 1, 1, 1)


def _specular(
    out: Tensor, spot: Tensor, told: Tensor, seen: Tensor, normal: Callable[..., Tensor], uniform: Callable[..., Tensor]
) -> Tensor:
    """Lights that a wet eye mirrors."""
    for _ in range(2):
        at = told[:, IRIS] + 0.1 * normal(2)
        inside = (at[:, 1] < told[:, UPPER, 1].amax(1)) & (at[:, 1] > told[:, LOWER, 1].amin(1)) & seen
        blob = torch.exp(-(((spot - at[:, None, None]) / uniform(0.015, 0.06, 1, 1, 1)) ** 2).sum(-1) / 2)
        blob = blob * (inside[:, None, None] * uniform(-0.6, 1.0, 1, 1)).clamp_min(0)
        out = out + blob[:, None] * (1 - out)
    return out


def _camera(out: Tensor, x: Tensor, y: Tensor, normal: Callable[..., Tensor], uniform: Callable[..., Tensor]) -> Tensor:
    """Light from a side, contrast, colour, blur and noise: of two pictures in five only a little."""
    much = torch.where(uniform(0, 1, 1, 1, 1) < 0.4, 0.25, 1.0)
    slope = 0.25 * much[..., 0] * normal(2, 1, 1)[..., 0]
    light = (1 + slope[:, :1, None] * x + 1.5 * slope[:, 1:, None] * y).clamp(0.3, 1.8)
    out = (out * light).clamp(1e-3, 1) ** torch.exp(0.3 * much * normal(1, 1, 1))
    gray = out.mean(1, keepdim=True)
    out = gray + (out - gray) * (1 + much * uniform(-1, 0.5, 1, 1, 1))
    out = out * torch.exp(0.1 * much * normal(3, 1, 1)) * (1 + much * uniform(-0.6, 0.2, 1, 1, 1))
    out = out + much * uniform(0, 0.15, 1, 1, 1)
    sigma = (much.reshape(-1, 1) * uniform(-1.5, 1.8, 1)).clamp_min(0.05)
    reach = torch.arange(-5, 6, device=out.device)
    kernel = torch.exp(-(reach**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(-1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    flat = torch.nn.functional.pad(out.reshape(1, -1, *out.shape[2:]), (5, 5, 5, 5), mode="replicate")
    flat = torch.nn.functional.conv2d(flat, kernel[:, :, None, :], groups=len(kernel))
    out = torch.nn.functional.conv2d(flat, kernel[..., None], groups=len(kernel)).reshape(out.shape)
    return (out + uniform(-0.01, 0.03, 1, 1, 1).clamp_min(0) * normal(*out.shape[1:])).clamp(0, 1)
