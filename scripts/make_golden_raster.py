"""Writes what nvdiffrast makes of the rasterizer tests' scenes to tests/render/golden/, and how far the CPU is from it.

    python scripts/make_golden_raster.py                     # needs an NVIDIA GPU and nvdiffrast
    python scripts/make_golden_raster.py --output /tmp/x --device cpu    # the same files from the CPU rasterizer

Run it again whenever the scenes or the open head's mesh change.
"""

import argparse
import importlib.metadata
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.cpu import CpuRasterizer
from flame_fitting.render.interface import Rasterizer
from tests.render import agreement
from tests.render.golden_files import FOLDER, read_golden, write_golden
from tests.render.raster_scenes import (
    Results,
    all_scenes,
    input_hash,
    scene_hash,
    scene_results,
    texture_inputs,
    texture_results,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    args = parser.parse_args()

    rasterizer = make_rasterizer(args.device)
    metadata = {"rasterizer": type(rasterizer).__name__, "torch": torch.__version__}
    if rasterizer.device.type == "cuda":
        metadata["nvdiffrast"] = importlib.metadata.version("nvdiffrast")
        metadata["gpu"] = torch.cuda.get_device_name(rasterizer.device)
        metadata["cuda"] = str(torch.version.cuda)
    cpu = CpuRasterizer()
    jobs: list[tuple[str, str, Callable[[Rasterizer], Results]]] = [
        (scene.name, scene_hash(scene), partial(scene_results, scene=scene)) for scene in all_scenes()
    ]
    jobs.append(("texture", input_hash(*texture_inputs()), texture_results))
    n_bad = 0
    for name, digest, compute in jobs:
        path = args.output / f"{name}.npz"
        write_golden(path, compute(rasterizer), {**metadata, "inputs": digest})
        golden, own = read_golden(path), compute(cpu)
        print(f"== {name}: {path} ({path.stat().st_size / 1e3:.0f} kB), the CPU rasterizer against it:")
        print("\n".join("   " + line for line in agreement.table(golden.results, own, golden.pixels)))
        bad = agreement.disagreements(golden.results, own, golden.pixels)
        print("\n".join("   BEYOND THE BAR " + line for line in bad) or "   all within the bars")
        n_bad += len(bad)
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
