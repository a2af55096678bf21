"""Times the drawing of splats on the CPU: seconds a view by size, number of splats and threads.

python scripts/bench_splats.py
python scripts/bench_splats.py AVATAR.ply --sizes 256 512 --threads 1 2
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_fitting.avatar.splat_files import read_splats
from flame_fitting.avatar.splat_scene import build_scene, draw_splats
from flame_fitting.avatar.splats import middle
from flame_fitting.avatar.view_planning import camera_distance
from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.render.jit import set_threads
from tests.avatar.splat_cases import ball

FOV = 25.0
VIEWS = 4


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path, nargs="?", help="a ball of --splats where none is given")
    parser.add_argument("--splats", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    if args.avatar is None:
        splats = ball(args.splats)
    else:
        splats = read_splats(args.avatar.read_bytes(), args.avatar, args.avatar.suffix.lower().lstrip("."), print)
    center, radius = middle(splats.means, 0.95)
    directions = np.array([[0, 0, 1], [0.8, 0, 0.6], [-0.8, 0.2, 0.6], [0, 0.6, 0.8]])
    views = look_at(center + camera_distance(radius, FOV) * directions, center, np.tile([0.0, 1.0, 0.0], (VIEWS, 1)))
    scenes = {"degree 3": build_scene(splats), "degree 0": build_scene(splats, 0)}
    print(f"{len(splats)} splats, seconds a view, the fastest of {args.repeat}")
    for threads in args.threads:
        set_threads(threads)
        for size in args.sizes:
            K = np.stack([intrinsics_from_fov(FOV, size, size)] * VIEWS)
            row = []
            for name, scene in scenes.items():
                for outputs in (("image", "alpha"), ("depth", "normal")):
                    taken = []
                    for _ in range(args.repeat):
                        begin = time.perf_counter()
                        draw_splats(scene, K, views, size, size, outputs=outputs)
                        taken.append((time.perf_counter() - begin) / VIEWS)
                    row.append(f"{outputs[0]} ({name}) {min(taken):.3f}")
            print(f"{threads} threads, {size} px: {', '.join(row)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
