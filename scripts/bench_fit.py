"""Speed of a fit on one device, in one run.

    python scripts/bench_fit.py CAPTURE                      a capture with landmarks2d (see `flame-fitting render`)
    python scripts/bench_fit.py CAPTURE --views 16 --sizes 512 --device cpu
    python scripts/bench_fit.py CAPTURE --no-geometry --preset high

First the whole fit with a preset's options: seconds of each stage. Then, for each of its stages that uses Adam on
pictures, each number of views and each size, one step as the options have it (which parameters move, losses, weights,
texture, background, perturbation), and a bare loop of the rasterizer's operations at the same views, size, mesh,
texture, mip mode and culling (rasterize, interpolate, texture, antialias, backward): milliseconds, their ratio, and the
peak of the device's memory. Views are the capture's own, repeated and resized, all drawn in one step; a bake of the
base and a search of correspondences, which a stage does every so many steps, count in the seconds of the stage alone.
With depth and normals a fit has other stages than without: --no-geometry times those.
"""

import argparse
import dataclasses
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count
from pathlib import Path

import numpy as np
import torch

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import run_stages
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.presets import PRESETS, preset
from flame_fitting.fit.priors import priors
from flame_fitting.fit.schedule import effective_pipeline
from flame_fitting.fit.solvers.adam_settings import photometric_config, photometric_weights
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.photometric_step import PhotometricStep, Problem
from flame_fitting.fit.stage_config import StageConfig
from flame_fitting.fit.state import FitState
from flame_fitting.fit.views import ViewSet
from flame_fitting.fit_avatar import fit, prepare
from flame_fitting.fusion import reference_only
from flame_fitting.render.backend import choose_device
from flame_fitting.render.culling import instanced_faces, view_ranges


def repeated(views: ViewSet, count: int, size: int) -> ViewSet:
    """`count` views of `size` x `size` pixels."""
    rows = [i % len(views.views) for i in range(count)]
    chosen = views.subset(rows)
    planes = chosen.pictures().permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", antialias=False)
    rgba = (resized.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).contiguous()
    K = chosen.K.copy()
    K[:, :2] *= size / views.resolution[0]
    return dataclasses.replace(chosen, rgba=rgba, K=K)


def bare_loop(step: PhotometricStep, views: ViewSet, size: int) -> Callable[[], None]:
    """Rasterize, interpolate, texture, antialias and backward, and nothing else."""
    with torch.no_grad():
        now = step.project()
        pos, front = now.pos, now.front
        # gradients where the head is: the background's texture coordinates are all 0, one texel would take them all
        rast, _ = step.rasterizer.rasterize(pos, step.triangles, (size, size), front)
        drawn = rast[..., 3] > 0
    assert step.texture is not None
    texture = step.texture.now(0).detach().clone().requires_grad_()
    levels = max(int(np.log2(texture.shape[1])) - 2, 0)
    renderer, rasterizer = step.renderer, step.rasterizer
    if rasterizer.device.type == "cpu":
        pos = pos.clone().requires_grad_()
        slope = drawn.float()[..., None].expand(-1, -1, -1, 3).contiguous()

        def on_cpu() -> None:
            pos.grad = texture.grad = None
            rast, rast_db = rasterizer.rasterize(pos, renderer.faces, (size, size), front)
            uv, uv_da = rasterizer.interpolate(renderer.uv, rast, renderer.uv_faces, rast_db, "all")
            color = rasterizer.texture(texture, uv, uv_da, max_mip_level=levels)
            out = rasterizer.antialias(color, rast, pos, renderer.faces, renderer.topology)
            out.backward(slope)

        return on_cpu

    import nvdiffrast.torch as dr

    context = dr.RasterizeCudaContext(device=rasterizer.device)
    count, vertices = pos.shape[:2]
    faces = instanced_faces(renderer.faces, front, vertices)
    uv_faces = renderer.uv_faces.repeat(count, 1).contiguous()
    ranges, uv_points = view_ranges(count, len(renderer.faces)), renderer.uv[0].contiguous()
    topology = dr.antialias_construct_topology_hash(faces)
    flat = pos.reshape(-1, 4).clone().requires_grad_()
    slope = drawn.float()[..., None].expand(-1, -1, -1, 3).contiguous()

    def on_gpu() -> None:
        flat.grad = texture.grad = None
        rast, rast_db = dr.rasterize(context, flat, faces, (size, size), ranges=ranges)
        uv, uv_da = dr.interpolate(uv_points, rast, uv_faces, rast_db, "all")
        color = dr.texture(texture, uv, uv_da, boundary_mode="clamp", max_mip_level=levels)
        out = dr.antialias(color, rast, flat, faces, topology_hash=topology)
        out.backward(slope)

    return on_gpu


def milliseconds(work: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Median wall time of one call once warm, the device's work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    for _ in range(3):
        work()
    wait()
    rounds = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(repeat):
            work()
        wait()
        rounds.append((time.perf_counter() - started) / repeat)
    return 1000 * statistics.median(rounds)


def measured_fit(config: FitConfig) -> None:
    """Fits and prints the seconds of every stage."""
    started = time.perf_counter()
    result = fit(config, evaluate=False)
    total = time.perf_counter() - started
    last = result.stages[-1].summary
    for name, seconds in result.seconds.items():
        if name != "fit":
            print(f"    {name:<18} {seconds:7.2f} s")
    print(f"    loaded to saved    {total - result.seconds['load']:7.2f} s")
    print(f"    face {last['face_mm']:.3f} mm, landmarks {last['landmark_mm']:.2f} mm (medians)")


def step_of(
    config: FitConfig, state: FitState, seen: Observations, stage: StageConfig, views: ViewSet
) -> PhotometricStep:
    """A step of a stage on the views given, all of them at once and as large as they are."""
    assert seen.rasterizer is not None and seen.texels is not None
    settings = photometric_config(Stage("", stage, config), views, seen.rasterizer.device, is_sequence=seen.is_sequence)
    sizes = max(len(settings.downsample), len(settings.texture_sizes))
    settings = dataclasses.replace(
        settings,
        steps=settings.steps // sizes,  # of one size: what decides on fused kernels and graphs
        downsample=(1,),
        texture_sizes=settings.texture_sizes[-1:],
        views_per_step=len(views.views),
        rebake=0,
    )
    problem = Problem(
        seen.rasterizer,
        seen.head,
        state.parameters,
        seen.targets,
        views,
        seen.surface,
        priors(config),
        seen.texels,
    )
    return PhotometricStep(problem, photometric_weights(config, stage), settings)


def measured_steps(
    config: FitConfig,
    state: FitState,
    seen: Observations,
    name: str,
    stage: StageConfig,
    arguments: argparse.Namespace,
) -> None:
    """Prints the table of a stage."""
    assert seen.rasterizer is not None and seen.pictures is not None
    device, pictures = seen.rasterizer.device, seen.pictures.batch(seen.pictures.rows())
    print(f"  one step of {name}, {len(seen.head.faces)} faces")
    print(f"    {'views':>5} {'size':>5} {'texture':>7} {'step ms':>8} {'bare ms':>8} {'ratio':>6} {'memory GiB':>10}")
    for size in arguments.sizes:
        for shown in arguments.views:
            views = repeated(pictures, shown, size)
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            step, numbers = step_of(config, state, seen, stage, views), count()
            with nullcontext() if step.config.is_long else reference_only():
                ours = milliseconds(lambda step=step, numbers=numbers: step(next(numbers)), device, arguments.repeat)
                if arguments.profile:
                    profile(step, numbers, arguments.profile.with_suffix(f".{name}.{shown}x{size}.txt"))
            memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
            bare = milliseconds(bare_loop(step, views, size), device, arguments.repeat)
            texture = step.config.texture_sizes[0]
            numbers_shown = f"{ours:>8.2f} {bare:>8.2f} {ours / bare:>6.2f} {memory:>10.2f}"
            print(f"    {shown:>5} {size:>5} {texture:>7} {numbers_shown}", flush=True)


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--preset", choices=list(PRESETS), default=FitConfig.preset)
    parser.add_argument("--no-geometry", action="store_true", help="as of a capture without depth and normals")
    parser.add_argument("--views", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--head", default="open")
    parser.add_argument("--model-path", type=Path, help="weights of the landmark detector")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--profile", type=Path, help="write tables of a step's kernels there")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, Python {platform.python_version()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            preset(arguments.preset, arguments.capture),
            output=Path(folder) / "fit",
            head=arguments.head,
            device=str(device),
            model_path=arguments.model_path,
        )
        config.data.use_geometry &= not arguments.no_geometry
        for number in range(2 if device.type == "cuda" else 1):
            print("  whole fit" + (", the first in this process" if number == 0 else ", once more"))
            measured_fit(dataclasses.replace(config, output=Path(folder) / f"fit{number}"))
    prepared = prepare(config, device)
    state, seen = run_stages(prepared.state, prepared.seen, config, device).to(device), prepared.seen.to(device)
    has_geometry = any(target.surface is not None for target in seen.targets)
    for name, stage in effective_pipeline(config, has_geometry, state.scale.held):
        if stage.solver == "adam" and "pictures" in stage.looks_at:
            measured_steps(config, state, seen, name, stage, arguments)
    return 0


def profile(step: PhotometricStep, numbers: Iterator[int], path: Path) -> None:
    """Kernels of ten steps, by time on the device."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorder

    with recorder(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        for _ in range(10):
            step(next(numbers))
    rows = recorded.key_averages()
    path.write_text(
        rows.table(sort_by="cuda_time_total", row_limit=60)
        + "\n\n"
        + rows.table(sort_by="self_cpu_time_total", row_limit=40)
    )


if __name__ == "__main__":
    sys.exit(main())
