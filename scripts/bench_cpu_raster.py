"""Times the CPU rasterizer: milliseconds per view for each operation, forward and backward, and how it scales.

    python scripts/bench_cpu_raster.py
    python scripts/bench_cpu_raster.py --head asset/flame/flame2023.npz --sizes 512 --views 1 16 --threads 1 2 4

Each figure is the fastest of `--repeat` runs. "geometry" is the sum of all but the texture: what DRTK does too. Where
Meta's DRTK can be imported (it is not on the PyPI), the same mesh, views and threads run through it, with the ratio.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_fitting.capture.camera import clip_from_world, intrinsics_from_fov, look_at
from flame_fitting.errors import InputError
from flame_fitting.render.cpu import CpuRasterizer
from flame_fitting.render.jit import set_threads
from flame_fitting.render.winding import front_faces

OPERATIONS = ("rasterize", "interpolate", "texture", "antialias")


def load_mesh(head: str) -> tuple[str, Tensor, Tensor, Tensor, Tensor]:
    """Name, vertices (V, 3), faces, uv (VT, 2) and uv faces; a sphere of FLAME's size where there is no head file."""
    from flame_fitting.head.loading import load_head

    try:
        model = load_head(head)
        return model.name, model.v_template.float(), model.faces.int(), model.uv.float(), model.uv_faces.int()
    except (InputError, OSError) as error:
        print(f"({error} Timing a sphere instead.)")
    n = 71
    theta, phi = np.meshgrid(np.linspace(0.02, np.pi - 0.02, n), np.linspace(0, 2 * np.pi, n), indexing="ij")
    vertices = 0.12 * np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], axis=-1)
    first = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate([np.c_[first, first + n, first + n + 1], np.c_[first, first + n + 1, first + 1]])
    uv = np.stack([phi / (2 * np.pi), 1 - theta / np.pi], axis=-1)
    faces_ = torch.tensor(faces, dtype=torch.int32)
    return (
        "sphere",
        torch.tensor(vertices.reshape(-1, 3)).float(),
        faces_,
        torch.tensor(uv.reshape(-1, 2)).float(),
        faces_,
    )


def clip_positions(vertices: Tensor, n_views: int, size: int) -> Tensor:
    """The mesh seen from all around, about 85 % of the picture high."""
    low, high = vertices.amin(0), vertices.amax(0)
    centre, extent = (0.5 * (low + high)).numpy().astype(float), float((high - low).max())
    angle = np.linspace(0, 2 * np.pi, n_views, endpoint=False)
    distance = 0.5 * extent / 0.85 / np.tan(np.radians(12.5)) + 0.5 * extent
    eye = centre + distance * np.stack([np.sin(angle), 0.2 * np.cos(3 * angle), np.cos(angle)], axis=-1)
    clip = clip_from_world(
        intrinsics_from_fov(25.0, size, size), look_at(eye, centre, [0.0, 1.0, 0.0]), size, size,
        distance - extent, distance + extent,
    )  # fmt: skip
    homogeneous = torch.cat([vertices, torch.ones(len(vertices), 1)], dim=1)
    return (homogeneous @ torch.tensor(clip, dtype=torch.float32).transpose(1, 2)).contiguous()


def run_once(
    rasterizer: CpuRasterizer,
    pos: Tensor,
    faces: Tensor,
    uv: Tensor,
    uv_faces: Tensor,
    texture: Tensor,
    topology: Tensor,
    size: int,
    mask: Tensor | None,
) -> tuple[dict[str, float], dict[str, float], float]:
    """Seconds of each operation forward and backward, and the share of pixels covered."""
    forward: dict[str, float] = {}
    backward: dict[str, float] = {}

    def timed(seconds: dict[str, float], name: str, call: Callable):
        start = time.perf_counter()
        result = call()
        seconds[name] = time.perf_counter() - start
        return result

    pos = pos.clone().requires_grad_(True)
    texture = texture.clone().requires_grad_(True)
    rast, rast_db = timed(forward, "rasterize", lambda: rasterizer.rasterize(pos, faces, (size, size), mask))
    texcoord, texcoord_da = timed(
        forward, "interpolate", lambda: rasterizer.interpolate(uv[None], rast, uv_faces, rast_db, "all")
    )
    color = timed(forward, "texture", lambda: rasterizer.texture(texture, texcoord, texcoord_da))
    covered = (rast[..., 3:] > 0).float()
    image = torch.cat([color * covered, covered], dim=-1).detach().requires_grad_(True)
    out = timed(forward, "antialias", lambda: rasterizer.antialias(image, rast.detach(), pos, faces, topology))

    g_image, _ = timed(backward, "antialias", lambda: torch.autograd.grad(out, (image, pos), torch.ones_like(out)))
    g_color = g_image[..., :3] * covered
    g_texture = timed(
        backward, "texture", lambda: torch.autograd.grad(color, (texture, texcoord, texcoord_da), g_color)
    )
    g_rast = timed(
        backward,
        "interpolate",
        lambda: torch.autograd.grad((texcoord, texcoord_da), (rast, rast_db), g_texture[1:]),
    )
    timed(backward, "rasterize", lambda: torch.autograd.grad((rast, rast_db), pos, g_rast))
    return forward, backward, float(covered.mean())


def thread_counts() -> list[int]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [n for n in (1, 2, 4, 8, 16) if n <= cores]


def import_drtk() -> Any | None:
    """Meta's DRTK; a package of the PyPI that only has its name is not it."""
    try:
        import drtk
    except ImportError:
        return None
    return drtk if hasattr(drtk, "edge_grad_estimator") else None


def run_drtk(drtk: Any, pos: Tensor, faces: Tensor, size: int) -> float:
    """Seconds of DRTK's rasterize, render, interpolate, edge gradient and backward."""
    ndc = pos[..., :2] / pos[..., 3:]
    vertices = torch.cat([(ndc + 1.0) * (0.5 * size), pos[..., 3:]], dim=-1).requires_grad_(True)
    attributes = torch.rand(*pos.shape[:2], 3)
    start = time.perf_counter()
    index = drtk.rasterize(vertices, faces, height=size, width=size)
    _, bary = drtk.render(vertices, faces, index)
    image = drtk.interpolate(attributes, faces, index, bary)
    image = drtk.edge_grad_estimator(v_pix=vertices, vi=faces, bary_img=bary, img=image, index_img=index)
    image.square().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", default="open", help="open, or a FLAME-format .npz")
    parser.add_argument("--views", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--texture", type=int, default=1024, help="texture extent in texels")
    parser.add_argument("--threads", type=int, nargs="+", default=thread_counts())
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--cull", action="store_true", help="drop back faces")
    args = parser.parse_args()

    rasterizer = CpuRasterizer()
    name, vertices, faces, uv, uv_faces = load_mesh(args.head)
    topology = rasterizer.topology(faces)
    texture = torch.rand(1, args.texture, args.texture, 3)
    print(f"{name}: {len(vertices)} vertices, {len(faces)} faces, texture {args.texture}, ms per view")
    drtk = import_drtk()
    header = " ".join(f"{op + ' fwd+bwd':>20}" for op in OPERATIONS)
    print(
        f"{'views':>5} {'size':>5} {'threads':>7} {header} {'sum/view':>9} {'sum':>8} {'geometry':>9} {'speed-up':>8}"
        + (f" {'DRTK':>8} {'ratio':>6}" if drtk else "")
        + "  covered"
    )
    for size in args.sizes:
        for n_views in args.views:
            pos = clip_positions(vertices, n_views, size)
            mask = front_faces(pos, faces) if args.cull else None
            first = None
            for threads in args.threads:
                set_threads(threads)
                torch.set_num_threads(threads)
                runs = [
                    run_once(rasterizer, pos, faces, uv, uv_faces, texture, topology, size, mask)
                    for _ in range(args.repeat + 1)
                ][1:]
                forward = {op: 1e3 * min(r[0][op] for r in runs) / n_views for op in OPERATIONS}
                backward = {op: 1e3 * min(r[1][op] for r in runs) / n_views for op in OPERATIONS}
                cells = " ".join(f"{forward[op]:>12.2f} {backward[op]:>7.2f}" for op in OPERATIONS)
                total = n_views * (sum(forward.values()) + sum(backward.values()))
                geometry = total - n_views * (forward["texture"] + backward["texture"])
                first = first or total
                peer = ""
                if drtk:
                    drtk_ms = 1e3 * min(run_drtk(drtk, pos, faces, size) for _ in range(args.repeat + 1))
                    peer = f" {drtk_ms:>8.1f} {drtk_ms / geometry:>6.1f}"
                print(
                    f"{n_views:>5} {size:>5} {threads:>7} {cells} {total / n_views:>9.2f} {total:>8.1f}"
                    f" {geometry:>9.1f} {first / total:>8.2f}{peer}  {100 * runs[0][2]:.0f} %",
                    flush=True,
                )


if __name__ == "__main__":
    main()
