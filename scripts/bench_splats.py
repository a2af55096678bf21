"""Times the drawing of splats on the CPU, or fits splats and measures them against the meshes that they show.

python scripts/bench_splats.py
python scripts/bench_splats.py AVATAR.ply --sizes 256 512 --threads 1 2
python scripts/bench_splats.py --fits DIR --pairs AVATAR.ply=MESH.glb ...

Drawing: seconds a view by size, number of splats, threads. Fits: distance to the true mesh by region, mm,
and seconds by stage; what DIR holds already is only measured. Where splats are 7.3 times larger than the mesh, give
`MESH.glb*7.3`.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.splat_files import read_splats
from flame_fitting.avatar.splat_scene import build_scene, draw_splats
from flame_fitting.avatar.splats import middle
from flame_fitting.avatar.view_planning import camera_distance
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, transform_points
from flame_fitting.cli import main as main_of_program
from flame_fitting.fit.sources import open_fit_and_head
from flame_fitting.render.jit import set_threads
from tests.avatar.splat_cases import ball

FOV = 25.0
VIEWS = 4


REGIONS = ("face", "lips", "eyelids", "scalp", "neck")


def fits(folder: Path, pairs: list[str]) -> int:
    """Fits every avatar and prints the table."""
    rows = []
    for pair in pairs:
        avatar, mesh = pair.split("=")
        mesh, _, scale = mesh.partition("*")
        out = folder / Path(avatar).stem
        stages = {
            "render": [avatar, "--output", str(out / "render")],
            "detect": [str(out / "render")],
            "fit": [str(out / "render"), "--output", str(out / "fit")],
        }
        seconds = []
        for name, arguments in stages.items():
            begin = time.perf_counter()
            if not (out / "fit" / "manifest.json").is_file() and main_of_program([name, *arguments]) != 0:
                return 1
            seconds.append(f"{time.perf_counter() - begin:.0f}")
        apart = distances(out / "fit", mesh, float(scale or 1))
        rows.append([Path(avatar).stem, *(apart[region] for region in REGIONS), " + ".join(seconds)])
    print("| avatar | " + " | ".join(f"{region} (95 %), mm" for region in REGIONS) + " | render + detect + fit, s |")
    print("|---" * (len(REGIONS) + 2) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return 0


def distances(fit_folder: Path, mesh: str, scale: float) -> dict[str, str]:
    """Median and 95 % of the distance of each region's vertices to the surface of the true mesh, mm."""
    fit, head = open_fit_and_head(fit_folder)
    true, vertices = load_avatar(mesh).normalized(np.zeros(3), 1 / scale), fit.vertices_head(head)[0]
    points = transform_points(fit.head_from_world, true.points)
    surface = true.seen_surface(points[np.linalg.norm(points, axis=1) < 0.5], fit.head_from_world)
    assert surface is not None
    out = {}
    for region in REGIONS:
        apart = 1000 * surface.distance(vertices[head.region_mask(region).numpy()])
        out[region] = f"{np.median(apart):.2f} ({np.quantile(apart, 0.95):.2f})"
    return out


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path, nargs="?", help="a ball of --splats where none is given")
    parser.add_argument("--splats", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--fits", type=Path, help="folder of the fits")
    parser.add_argument("--pairs", nargs="+", default=[], help="AVATAR=MESH")
    args = parser.parse_args()
    if args.fits is not None:
        return fits(args.fits, args.pairs)
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
