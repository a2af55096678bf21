#!/usr/bin/env python3
"""Trains the network that looks at eyes (asset/open_head/eyes.npz), on pictures of the open head's eyes.

python scripts/train_eyes.py --crops FOLDER --device cuda      # pictures are kept there; what is there is used again

Ten parts of 480 pictures, then 240 epochs: 2.5 minutes on a GPU. What ships was trained so, with the pictures kept as
JPEG of quality 96.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flame_fitting.avatar.evidence_pictures import EvidencePictures
from flame_fitting.avatar.eye_pictures import eye_crops
from flame_fitting.avatar.head_calibration import landmark_embedding
from flame_fitting.files import atomic_write
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.eye_network import EyeCrops, EyeNetwork
from flame_fitting.landmarks.eyes import INNER, IRIS, LOWER, OUTER, PATCH, UPPER, WIDTH, network_path
from flame_fitting.landmarks.registry import make_detector

_BATCH = 64
_FIRST_SEED = 21
_CORNER_NOISE = 0.05
"""Of the detector's corners, in their distance."""
_HIDDEN_MM = 1.5
"""Lid gap below which an iris is not seen, so that nothing is learned of it."""


class Shown:
    """Crops as they are shown to the network: patches whose corners, lights, lashes and sharpness differ each time."""

    def __init__(self, crops: EyeCrops, device: str) -> None:
        self.images = torch.from_numpy(crops.images).to(device)
        self.places = torch.from_numpy(crops.places).float().to(device)
        self.seen_iris = torch.from_numpy(crops.gaps[:, 2] >= _HIDDEN_MM).to(device)

    def patches(self, rows: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Patches (B, 3, h, w) in 0..255 and places (B, P, 2) in distances of their corners."""
        device, count = self.images.device, len(rows)

        def normal(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=random, device=device)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *shape, generator=random, device=device)

        places = self.places[rows]
        width = (places[:, INNER] - places[:, OUTER]).norm(dim=1).clamp_min(6.0)[:, None, None]
        # the detector's corners: each with an error, and one that both share
        given = places[:, [OUTER, INNER]] + width * _CORNER_NOISE * uniform(0.2, 1.2, 1, 1) * normal(2, 2)
        given = given + width * 0.6 * _CORNER_NOISE * normal(1, 2)
        along = given[:, 1] - given[:, 0]
        axes = torch.stack([along, torch.stack([along[:, 1], -along[:, 0]], 1)], 2)
        middle = given.mean(1, keepdim=True)
        told = torch.linalg.solve(axes[:, None], (places - middle)[..., None])[..., 0]
        # in the patch: along and down, in distances of the corners
        y, x = torch.meshgrid(
            *((torch.arange(n, device=device) + 0.5 - n / 2) / WIDTH for n in PATCH[::-1]), indexing="ij"
        )
        grid = torch.stack([x, -y], -1).reshape(1, -1, 2)
        at = (middle + grid @ axes.mT).reshape(count, PATCH[1], PATCH[0], 2)
        image = self.images[rows].permute(0, 3, 1, 2).float() / 255
        size = torch.tensor([image.shape[3], image.shape[2]], device=device)
        out = torch.nn.functional.grid_sample(image, 2 * at / size - 1, padding_mode="border", align_corners=False)
        spot = grid.reshape(1, PATCH[1], PATCH[0], 2)
        out = self._lashes(out, spot, told, uniform)
        out = self._specular(out, spot, told, self.seen_iris[rows], normal, uniform)
        return 255 * _camera(out, x, y, normal, uniform), told

    def _lashes(self, out: Tensor, spot: Tensor, told: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
        """A dark line along the upper lid, which the head model has none of."""
        line = told[:, [OUTER, 0, 1, 2, 3, 4, INNER]] + uniform(-0.01, 0.05, 1, 1) * torch.tensor([0.0, 1.0]).to(told)
        begin, step = line[:, :-1, None, None], (line[:, 1:] - line[:, :-1])[:, :, None, None]
        away = spot[:, None] - begin
        share = ((away * step).sum(-1) / (step**2).sum(-1).clamp_min(1e-6)).clamp(0, 1)
        distance = (away - share[..., None] * step).norm(dim=-1).amin(1)
        cover = torch.exp(-((distance / uniform(0.01, 0.05, 1, 1)) ** 2)) * (uniform(-0.4, 0.95, 1, 1)).clamp_min(0)
        return out * (1 - cover[:, None]) + cover[:, None] * uniform(0.02, 0.2, 1, 1, 1)

    def _specular(
        self,
        out: Tensor,
        spot: Tensor,
        told: Tensor,
        seen: Tensor,
        normal: Callable[..., Tensor],
        uniform: Callable[..., Tensor],
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
    """Light from a side, contrast, colour, blur and noise."""
    slope = 0.25 * normal(2, 1, 1)
    light = (1 + slope[:, 0] * x + 1.5 * slope[:, 1] * y).clamp(0.3, 1.8)
    out = (out * light[:, None]).clamp(1e-3, 1) ** torch.exp(0.3 * normal(1, 1, 1))
    gray = out.mean(1, keepdim=True)
    out = gray + (out - gray) * uniform(0, 1.5, 1, 1, 1)
    out = out * torch.exp(0.1 * normal(3, 1, 1)) * uniform(0.4, 1.2, 1, 1, 1) + uniform(0, 0.15, 1, 1, 1)
    sigma = uniform(-0.8, 1.6, 1, 1).clamp_min(0.05)
    reach = torch.arange(-4, 5, device=out.device)
    kernel = torch.exp(-(reach**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(-1, keepdim=True)).repeat_interleave(3, 0)
    flat = torch.nn.functional.pad(out.reshape(1, -1, *out.shape[2:]), (4, 4, 4, 4), mode="replicate")
    flat = torch.nn.functional.conv2d(flat, kernel[:, :, None, :], groups=len(kernel))
    out = torch.nn.functional.conv2d(flat, kernel[..., None], groups=len(kernel)).reshape(out.shape)
    return (out + uniform(0, 0.03, 1, 1, 1) * normal(*out.shape[1:])).clamp(0, 1)


def train(crops: EyeCrops, epochs: int, seed: int, device: str = "cpu") -> EyeNetwork:
    """Adam with a falling step, errors beyond a twentieth of the eye's width counting linearly."""
    torch.manual_seed(seed)
    random = torch.Generator(device=device).manual_seed(seed)
    network, shown = EyeNetwork().to(device), Shown(crops, device)
    count = len(crops.images) // _BATCH
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * count + 1)
    start = time.monotonic()
    for epoch in range(epochs):
        order, total = torch.randperm(len(crops.images), generator=random, device=device), 0.0
        for part in order[: count * _BATCH].reshape(count, _BATCH):
            patches, places = shown.patches(part, random)
            weight = torch.ones(len(part), places.shape[1], 1, device=device)
            weight[~shown.seen_iris[part], IRIS] = 0.0
            loss = torch.nn.functional.smooth_l1_loss(network(patches), places, reduction="none", beta=0.05)
            value = (weight * loss).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            total += float(value.detach())
        if epoch % 10 == 9 or epoch == epochs - 1:
            print(
                f"  {epoch + 1} of {epochs}: {1000 * total / count:.3f}, {time.monotonic() - start:.0f} s", flush=True
            )
    return network.cpu().eval()


def parts_of(folder: Path, count: int) -> EyeCrops:
    """Pictures of `count` parts, each with heads of its own, drawn where the folder does not have them."""
    folder.mkdir(parents=True, exist_ok=True)
    head = load_head("open")
    embedding = landmark_embedding(head, make_detector("mediapipe"), "lit")
    for seed in range(_FIRST_SEED, _FIRST_SEED + count):
        path = folder / f"eyes_{seed}.npz"
        if not path.is_file():
            config = EvidencePictures(identities=40, expressions=1, views=6, paints=6, plain_paints=4, seed=seed)
            crops = eye_crops(head, embedding, config)
            with atomic_write(path) as temporary:
                np.savez_compressed(temporary, images=crops.images, places=crops.places, gaps=crops.gaps)
        print(f"{path}", flush=True)
    parts = [np.load(folder / f"eyes_{seed}.npz") for seed in range(_FIRST_SEED, _FIRST_SEED + count)]
    return EyeCrops(*(np.concatenate([part[name] for part in parts]) for name in ("images", "places", "gaps")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path, required=True, help="folder for the pictures of eyes")
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    network = train(parts_of(arguments.crops, arguments.parts), arguments.epochs, arguments.seed, arguments.device)
    network.save(arguments.output or network_path())


if __name__ == "__main__":
    main()
