"""The second-order solver on a sequence of known truth: errors, their standard deviations, seconds and memory.

    python scripts/bench_sequence.py                        75, 150 and 300 timesteps, each in a process of its own
    python scripts/bench_sequence.py --timesteps 300 --n-shape 100

The open head of one drawn identity moves smoothly for so many timesteps: rotation, translation, expression, neck, jaw
and eyes. Of MediaPipe's points some have a place in space, the others are seen by three cameras only; all have Gaussian
noise of the stated standard deviation, and the solver is told how many independent measurements they are. Every
twentieth timestep shows no face, and neither do ten in a row. The start is the template, placed in closed form.

Printed are the root mean square error of every parameter beside its posterior standard deviation and the z-scores
(error over standard deviation; a truth that the priors draw would have mean 0 and standard deviation 1), and for each
length the seconds and the peak of memory above what the process holds once it has the head model.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flame_fitting import assets
from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.fit.parameters import PARAMETERS, FitParameters, moving_parts
from flame_fitting.fit.prepare import landmark_weights
from flame_fitting.fit.solvers.closed_form import align_timesteps
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import GaussNewtonSettings, gauss_newton
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target, make_pixel_target
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel

PERIODS = (40.0, 160.0)
"""Shortest and longest period of the motion, timesteps."""
AMPLITUDE = {"expr": 0.3, "rotation": 0.3, "translation": 0.03, "neck_pose": 0.07, "jaw_pose": 0.05, "eyes_pose": 0.1}
"""Root mean square of each parameter that moves, in its unit."""
COHERENT = 5.0
"""Standard deviation of changes that the solver is told, times the true one. A sine's changes agree for half a period;
a first-order process needs changes so much larger to stray as far in that time."""
ONLY_SEEN = 80
"""Landmarks of a timestep that have no place in space."""
SPREAD = 0.001
"""Standard deviation of landmarks in space, m, besides the detector's own and the embedding's."""
GAP = (100, 110)
"""Timesteps without a face, beside every twentieth, where the sequence is long enough."""


def waves(rng: np.random.Generator, timesteps: int, size: int, amplitude: float) -> tuple[np.ndarray, float]:
    """(T, size) sines of drawn period and phase, and the root mean square of their change in one timestep."""
    period, phase = rng.uniform(*PERIODS, size=size), rng.uniform(0, 2 * np.pi, size=size)
    values = np.sqrt(2) * amplitude * np.sin(2 * np.pi * np.arange(timesteps)[:, None] / period + phase)
    return values, float(amplitude * np.sqrt(np.mean((2 * np.pi / period) ** 2)))


def draw_truth(
    head: HeadModel, timesteps: int, components: dict[str, int], seed: int
) -> tuple[FitParameters, dict[str, float]]:
    """True parameters, and the standard deviation of the change of each in one timestep."""
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {"shape": rng.normal(size=head.n_shape), "placement": 0.02 * np.eye(7)[6]}
    change = {}
    for name, amplitude in AMPLITUDE.items():
        size = getattr(FitParameters.neutral(head, 1), name).shape[-1]
        values[name], change[name] = waves(rng, timesteps, size, amplitude)
    for name, count in components.items():
        values[name][..., count:] = 0
    values["jaw_pose"] *= [1, 1 / 3, 1 / 3]
    values["jaw_pose"][:, 0] += 0.1
    values["eyes_pose"][:, 3:] = values["eyes_pose"][:, :3]
    neutral = FitParameters.neutral(head, timesteps)
    return replace(neutral, **{name: torch.as_tensor(value) for name, value in values.items()}), change


def draw_targets(
    head: HeadModel, embedding: LandmarkEmbedding, truth: FitParameters, seed: int
) -> tuple[list[FrameTarget], int, np.ndarray]:
    """Noisy landmarks, the number of independent measurements in space, and which timesteps show a face (T,)."""
    rng = np.random.default_rng(seed + 1)
    weights = landmark_weights(embedding.scheme, len(embedding.face_index))
    usable = np.flatnonzero(embedding.valid & (weights > 0))
    K = intrinsics_from_fov(25.0, 512, 512)
    cameras = look_at([[0.0, 0.0, 1.0], [0.5, 0.1, 0.9], [-0.5, 0.1, 0.9]], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    rows = np.arange(truth.timesteps)
    shown = (rows % 20 != 10) & ((rows < GAP[0]) | (rows >= GAP[1]))
    spread, targets = np.full(len(weights), SPREAD), []
    for t in rows:
        one = replace(truth, **{p.name: getattr(truth, p.name)[t : t + 1] for p in PARAMETERS if p.role == "frame"})
        points = embedding.points(one.vertices(head), head.faces)[0].numpy()
        missing = np.zeros(len(weights), dtype=bool)
        missing[rng.choice(usable, ONLY_SEEN, replace=False)] = True
        given = np.where((missing | ~shown[t])[:, None], np.nan, points)
        marks = make_landmark_target(head, embedding, given, spread, weights)
        noise = torch.as_tensor(rng.normal(size=marks.points.shape)) * (marks.sigma / marks.weight.sqrt())[:, None]
        pixels = None
        if shown[t]:
            projected = np.einsum("cij,nj->cni", K @ cameras[:, :3, :3], points) + (cameras[:, :3, 3] @ K.T)[:, None]
            seen = np.concatenate([projected[..., :2] / projected[..., 2:], np.ones_like(projected[..., :1])], axis=-1)
            pixels = make_pixel_target(head, embedding, missing, seen, np.stack([K] * 3), cameras, weights)
            assert pixels is not None
            depth = torch.as_tensor(projected[..., 2][:, missing].reshape(-1))
            apart = torch.as_tensor(rng.normal(size=pixels.rays.shape)) * pixels.sigma / pixels.weight.sqrt()[:, None]
            pixels = replace(pixels, rays=pixels.rays + apart / depth[:, None])
        targets.append(FrameTarget((SourceTarget(replace(marks, points=marks.points + noise), pixels),)))
    return targets, len(usable) - ONLY_SEEN, shown


def resident_mb() -> float:
    """What the process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(timesteps: int, components: dict[str, int], seed: int, iterations: int) -> dict[str, Any]:
    """One sequence."""
    head = load_head("open").double()
    embedding = LandmarkEmbedding.load(assets.shipped_embedding_path("mediapipe", "clay"))
    before = resident_mb()
    truth, change = draw_truth(head, timesteps, components, seed)
    targets, count, shown = draw_targets(head, embedding, truth, seed)
    names = [part.name for part in moving_parts(("pose", "scale", "joints", "shape", "expr"), timesteps > 1, AMPLITUDE)]
    columns = Columns.of(head, names, components)
    settings = GaussNewtonSettings(
        iterations=iterations,
        landmark_count=count,
        surface_count=0.0,
        smoothness={name: COHERENT * step for name, step in change.items()},
        seed=0,
    )
    torch.set_num_threads(1)  # so that the processor's seconds are comparable whatever else runs
    started, used = time.perf_counter(), time.process_time()
    start = align_timesteps(head, FitParameters.neutral(head, timesteps), targets)
    found = gauss_newton(head, start, targets, columns, PriorConfig(), settings)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    sigmas, table = found.posterior.standard_deviations(found.parameters), {}
    for block in columns.blocks:
        error = (getattr(found.parameters, block.parameter) - getattr(truth, block.parameter)).numpy()
        error, sigma = error[..., block.coefficients], sigmas[block.parameter][..., block.coefficients]
        true = getattr(truth, block.parameter).numpy()[..., block.coefficients]
        parts = {"": np.ones(1, dtype=bool)} if error.ndim == 1 else {"": shown, ", no face": ~shown}
        for label, chosen in parts.items():
            e, s = (error, sigma) if error.ndim == 1 else (error[chosen], sigma[chosen])
            if e.size:
                z = e / s
                table[f"{block.part.name}{label}"] = {
                    "unit": block.part.unit,
                    "truth": float(np.sqrt(np.mean(true**2))),
                    "error": float(np.sqrt(np.mean(e**2))),
                    "sigma": float(np.sqrt(np.mean(s**2))),
                    "z_mean": float(z.mean()),
                    "z_std": float(np.sqrt(np.mean(z**2))),
                }
    return {
        "timesteps": timesteps,
        "unknowns": columns.n_shared + timesteps * (columns.count - columns.n_shared),
        "iterations": found.iterations,
        "refused": found.refused,
        "seconds": seconds,
        "cpu_seconds": used,
        "memory_mb": peak,
        "table": table,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[75, 150, 300])
    parser.add_argument("--n-shape", type=int, default=50, help="identity components")
    parser.add_argument("--n-expr", type=int, default=20, help="expression components")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one length in this process, as JSON")
    options = parser.parse_args()
    if options.json:
        components = {"shape": options.n_shape, "expr": options.n_expr}
        print(json.dumps(measure(options.timesteps[0], components, options.seed, options.iterations)))
        return
    runs = []
    for timesteps in options.timesteps:
        arguments = ["--timesteps", str(timesteps), "--json"]
        arguments += ["--n-shape", str(options.n_shape), "--n-expr", str(options.n_expr)]
        arguments += ["--iterations", str(options.iterations), "--seed", str(options.seed)]
        done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    last = runs[-1]
    print(f"| {last['timesteps']} timesteps | unit | truth, rms | error, rms | posterior | z mean | z rms |")
    print("|---|---|---|---|---|---|---|")
    for name, row in last["table"].items():
        values = " | ".join(f"{row[key]:.3g}" for key in ("truth", "error", "sigma"))
        print(f"| {name} | {row['unit']} | {values} | {row['z_mean']:.2f} | {row['z_std']:.2f} |")
    columns = (
        "timesteps",
        "unknowns",
        "iterations",
        "refused",
        "seconds",
        "of one core",
        "ms a timestep and iteration",
    )
    print("\n| " + " | ".join((*columns, "peak memory, MB")) + " |")
    print("|---|---|---|---|---|---|---|---|")
    for run in runs:
        each = 1000 * run["cpu_seconds"] / (run["timesteps"] * (run["iterations"] + 1))
        print(
            f"| {run['timesteps']} | {run['unknowns']} | {run['iterations']} | {run['refused']} | {run['seconds']:.1f} "
            f"| {run['cpu_seconds']:.1f} | {each:.1f} | {run['memory_mb']:.0f} |"
        )


if __name__ == "__main__":
    main()
