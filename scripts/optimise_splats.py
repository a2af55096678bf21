"""Optimises Gaussian splats on the pictures of captures with gsplat, as people make them, and writes 3DGS .ply files.

    python scripts/optimise_splats.py O/render... --output DIR [--steps 5000] [--most 60000]

Needs an NVIDIA GPU and gsplat, which compiles itself once. Splats begin at random in the hull that the masks leave, and
stand in the avatar's own coordinates. DIR/<name>.ply is named after the avatar's file.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, l1_loss

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_fitting.avatar.view_planning import HEAD_RADIUS
from flame_fitting.capture.camera import project
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.similarity import decompose_similarity

RATES = {"means": 1.6e-4, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "sh0": 2.5e-3, "shN": 1.25e-4}
"""Learning rates as in 3DGS (Kerbl et al. 2023), for a scene of radius 1."""
DSSIM = 0.2


@dataclass
class Pictures:
    """What is seen, in a frame in which the head has radius 1."""

    images: Tensor
    """(B, H, W, 3) sRGB 0..1, premultiplied."""
    alphas: Tensor
    """(B, H, W, 1)."""
    K: Tensor
    world_to_camera: Tensor
    center: np.ndarray
    """Of that frame in the avatar's coordinates."""
    unit: float
    """Of that frame, in the avatar's."""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--most", type=int, default=60000, help="splats")
    parser.add_argument("--degree", type=int, default=2, help="of spherical harmonics")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for folder in args.captures:
        started = time.perf_counter()
        name, seen = read(folder)
        splats, error = optimise(seen, args.steps, args.most, args.degree)
        write(args.output / f"{name}.ply", splats, seen)
        seconds = time.perf_counter() - started
        print(f"{name}: {len(splats['means'])} splats, {error:.1f} dB, {seconds:.0f} s", flush=True)
    return 0


def read(folder: Path) -> tuple[str, Pictures]:
    """The avatar's name, and pictures for fits and those held out: one shading."""
    capture = open_capture(folder)
    assert capture.avatar is not None and capture.avatar.head_from_world is not None
    head_from_world = np.asarray(capture.avatar.head_from_world)
    unit = HEAD_RADIUS / decompose_similarity(head_from_world)[0]
    center = np.linalg.inv(head_from_world)[:3, 3]
    views = [view for view in capture.views if view.role != "landmark"]
    images, alphas, cameras = [], [], []
    for view in views:
        image, alpha = capture.image_and_alpha(view)
        behind = np.asarray(capture.background_color, dtype=np.float32).reshape(3, 1, 1)
        images.append((image - (1 - alpha) * behind).transpose(1, 2, 0))
        alphas.append(alpha[..., None])
        camera = np.array(view.world_to_camera)
        camera[:3, 3] = (camera[:3, :3] @ center + camera[:3, 3]) / unit
        cameras.append(camera)

    def there(values: list[np.ndarray]) -> Tensor:
        return torch.as_tensor(np.stack(values), dtype=torch.float32, device="cuda")

    name = Path(capture.avatar.file or folder.name).stem
    return name, Pictures(there(images), there(alphas), there([v.K for v in views]), there(cameras), center, unit)


def beginning(seen: Pictures, count: int, degree: int) -> dict[str, Tensor]:
    """Random points that no mask denies."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.2, 1.2, (40 * count, 3))
    keep = np.ones(len(points), dtype=bool)
    height, width = seen.alphas.shape[1:3]
    for K, camera, alpha in zip(
        *(part.cpu().numpy() for part in (seen.K, seen.world_to_camera, seen.alphas)), strict=True
    ):
        pixels = project(points, K.astype(np.float64), camera.astype(np.float64))
        x, y = (np.clip(pixels[:, k], 0, most - 1).astype(int) for k, most in ((0, width), (1, height)))
        inside = (pixels[:, 0] >= 0) & (pixels[:, 0] < width) & (pixels[:, 1] >= 0) & (pixels[:, 1] < height)
        keep &= ~inside | (alpha[y, x, 0] > 0.5)
    points = points[keep][:count]
    size = math.log(0.5 * (2.4**3 * keep.mean() / len(points)) ** (1 / 3))
    there = torch.as_tensor(points, dtype=torch.float32, device="cuda")
    return {
        "means": there,
        "scales": torch.full_like(there, size),
        "quats": torch.randn(len(there), 4, generator=torch.Generator().manual_seed(0)).cuda(),
        "opacities": torch.full_like(there[:, 0], math.log(0.1 / 0.9)),
        "sh0": torch.zeros(len(there), 1, 3, device="cuda"),
        "shN": torch.zeros(len(there), (degree + 1) ** 2 - 1, 3, device="cuda"),
    }


def optimise(seen: Pictures, steps: int, most: int, degree: int) -> tuple[dict[str, Tensor], float]:
    """Splats, and the PSNR (dB) of all pictures on black."""
    from gsplat import rasterization
    from gsplat.strategy import DefaultStrategy

    begun = beginning(seen, most // 3, degree)
    splats = torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, value in begun.items()})
    optimizers = {name: torch.optim.Adam([splats[name]], lr=rate, eps=1e-15) for name, rate in RATES.items()}
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizers["means"], 0.01 ** (1 / steps))
    strategy = DefaultStrategy(refine_start_iter=300, refine_stop_iter=int(0.6 * steps), reset_every=100 * steps)
    strategy.check_sanity(splats, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    height, width = seen.alphas.shape[1:3]
    order = torch.Generator().manual_seed(0)

    def drawn(chosen: Tensor, step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        colors = torch.cat([splats["sh0"], splats["shN"]], dim=1)
        out: tuple[Tensor, Tensor, dict[str, Tensor]] = rasterization(
            splats["means"],
            splats["quats"],
            splats["scales"].exp(),
            splats["opacities"].sigmoid(),
            colors,
            seen.world_to_camera[chosen],
            seen.K[chosen],
            width,
            height,
            sh_degree=min(degree, step // 1000),
            packed=False,
        )
        return out

    for step in range(steps):
        chosen = torch.randint(len(seen.images), (1,), generator=order)
        picture, alpha, info = drawn(chosen, step)
        strategy.step_pre_backward(splats, optimizers, state, step, info)
        behind = torch.rand(3, device="cuda")  # so that what is empty stays empty
        mine = picture + (1 - alpha) * behind
        truth = seen.images[chosen] + (1 - seen.alphas[chosen]) * behind
        loss = (1 - DSSIM) * l1_loss(mine, truth) + DSSIM * (1 - similarity(mine, truth))
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay.step()
        if len(splats["means"]) > most:
            strategy.refine_stop_iter = min(strategy.refine_stop_iter, step)
        strategy.step_post_backward(splats, optimizers, state, step, info, packed=False)
    with torch.no_grad():
        errors = [
            ((drawn(torch.tensor([k]), steps)[0] - seen.images[k]) ** 2).mean().item() for k in range(len(seen.images))
        ]
    return {name: value.detach() for name, value in splats.items()}, -10 * math.log10(float(np.mean(errors)))


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of pictures (B, H, W, 3) over windows of 11 pixels, each of the same weight (Wang et al. 2004)."""
    a, b = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)
    mean_a, mean_b, aa, bb, ab = (avg_pool2d(part, 11, 1) for part in (a, b, a * a, b * b, a * b))
    spread_a, spread_b, common = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return (
        (2 * mean_a * mean_b + c1) * (2 * common + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread_a + spread_b + c2))
    ).mean()


def write(path: Path, splats: dict[str, Tensor], seen: Pictures) -> None:
    """A 3DGS file in the avatar's coordinates, by gsplat's own writer."""
    from gsplat import export_splats

    export_splats(
        splats["means"] * seen.unit + torch.as_tensor(seen.center).to(splats["means"]),
        splats["scales"] + math.log(seen.unit),
        splats["quats"],
        splats["opacities"],
        splats["sh0"],
        splats["shN"],
        format="ply",
        save_to=str(path),
    )


if __name__ == "__main__":
    sys.exit(main())
