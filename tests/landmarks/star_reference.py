"""A network of STAR with weights that follow from their names, and pictures that follow from a formula.

`python -m tests.landmarks.star_reference` writes star_reference.npz anew, where the network is meant to change.
"""

import zlib
from pathlib import Path

import numpy as np
import torch

from flame_fitting.landmarks.star_network import StarNetwork

PATH = Path(__file__).with_name("star_reference.npz")
SETS = {"300w": 68, "wflw": 98}
PHOTO_BOX = np.array([180, 90, 396, 298]) + 0.5
"""Pixel centres on halves."""


def filled(n_points: int) -> StarNetwork:
    """Weights of the scale that a trained network has, so that no layer dies."""
    network = StarNetwork(n_points).eval()
    state = {}
    for name, value in network.state_dict().items():
        last = name.rpartition(".")[2]
        if name.startswith("e2h_transform") or last == "num_batches_tracked":
            state[name] = value
            continue
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(value.shape))
        if last == "weight" and value.ndim == 4:
            noise *= 0.6 / np.sqrt(np.prod(value.shape[1:]))
        elif last == "weight":
            noise = 1 + 0.1 * noise
        elif last == "running_var":
            noise = 1 + np.abs(0.1 * noise)
        else:
            noise *= 0.1
        state[name] = torch.as_tensor(noise, dtype=torch.float32)
    network.load_state_dict(state)
    return network


def picture() -> np.ndarray:
    """(256, 256, 3) uint8, channels blue, green, red."""
    y, x, c = np.mgrid[:256, :256, :3]
    rings = ((x - 100) ** 2 + (y - 140) ** 2) // (40 + 10 * c)
    return ((3 * x + 5 * y + 17 * c + x * y // 16 + 64 * ((x // 32 + y // 32) % 2) + rings) % 256).astype(np.uint8)


def photo() -> np.ndarray:
    """(300, 400, 3) uint8, channels blue, green, red; its face box reaches over the lower rim."""
    y, x, c = np.mgrid[:300, :400, :3]
    t = (x + 2 * y + 31 * c) % 256
    ramp = np.where(t < 128, 2 * t, 510 - 2 * t)
    ring = np.minimum(((x - 210) ** 2 + (y - 130) ** 2) // 64, 255)
    return ((ramp + ring * (1 + c)) // (2 + c)).astype(np.uint8)


def answers(network: StarNetwork) -> dict[str, np.ndarray]:
    """The maps (4, 2, N, 64, 64) of both pictures, and the photo's points in its px."""
    from flame_fitting.landmarks.star_detector import crop, crop_matrix, network_input, to_picture
    from flame_fitting.landmarks.star_network import decode

    matrix = crop_matrix(PHOTO_BOX)
    shown = np.stack([picture(), crop(photo(), matrix)])[..., ::-1]
    with torch.inference_mode():
        maps = network.maps(network_input(shown))
        points = np.stack([decode(one).numpy() for one in maps])
    return {
        "maps": maps[-1].numpy(),
        "points": points,
        "crop": shown[1, ..., ::-1],
        "photo_px": to_picture(points[-1, 1], matrix),
    }


def main() -> None:
    """Writes the reference."""
    arrays = {}
    for name, count in SETS.items():
        found = answers(filled(count))
        arrays[f"{name}/points"] = found["points"][-1]
        arrays[f"{name}/photo_px"] = found["photo_px"].astype(np.float32)
    np.savez_compressed(PATH, **arrays)


if __name__ == "__main__":
    main()
