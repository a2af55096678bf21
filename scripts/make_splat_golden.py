"""Writes what gsplat draws of the tests' splats to tests/avatar/splat_files/golden.npz, and how far the CPU is from it.

    python scripts/make_splat_golden.py        # needs an NVIDIA GPU and gsplat (which compiles itself once)

Run it again whenever tests/avatar/splat_cases.py changes.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_fitting.avatar.splat_scene import build_scene, draw_splats
from flame_fitting.files import atomic_write
from tests.avatar.splat_cases import BACKGROUND, NEAR, SIZE, cameras, mixture
from tests.avatar.test_splat_drawing import GOLDEN


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=GOLDEN)
    args = parser.parse_args()
    from gsplat import rasterization

    def there(value: object) -> torch.Tensor:
        return torch.as_tensor(np.asarray(value), dtype=torch.float32, device="cuda")

    splats, (K, views) = mixture(), cameras()
    images, fine = {}, True
    for mode in ("classic", "antialiased"):
        values = (there(getattr(splats, name)) for name in ("means", "quats", "scales", "opacities", "sh"))
        background = there(BACKGROUND).expand(len(K), 3)
        options = {"near_plane": NEAR, "sh_degree": splats.degree, "rasterize_mode": mode, "packed": False}
        options["backgrounds"] = background
        drawn = rasterization(*values, there(views), there(K), *SIZE, **options)[0].clamp(0, 1)
        images[mode] = drawn.permute(0, 3, 1, 2).cpu().numpy().astype(np.float32)
        scene = replace(build_scene(replace(splats, antialiased=mode == "antialiased")), near=NEAR)
        apart = np.abs(draw_splats(scene, K, views, *SIZE, BACKGROUND, outputs=("image",)).image - images[mode])
        close = (apart.max(axis=1) <= 2 / 255).mean()
        fine &= bool(apart.mean() <= 0.5 / 255 and close >= 0.999)
        print(f"{mode}: mean {255 * apart.mean():.4f} / 255, {100 * close:.3f} % of the pixels within 2 / 255")
    with atomic_write(args.output) as path:
        np.savez_compressed(path, **{name: image.astype(np.float16) for name, image in images.items()})
    print(f"{args.output}: {args.output.stat().st_size / 1e3:.0f} kB")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
