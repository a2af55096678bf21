"""A sequence of known truth through observations, driver and Gauss-Newton: errors, their scores, seconds, memory.

    python scripts/bench_sequence.py                        75, 150 and 300 timesteps, each in a process of its own
    python scripts/bench_sequence.py --timesteps 300 --course sines

The open head of one drawn identity moves for so many timesteps: rotation, translation, expression, neck, jaw and eyes.
Of MediaPipe's points some have a place in space, the others are seen by three cameras only; all have Gaussian noise of
the stated standard deviation, and the options say how many independent measurements they are. Every twentieth timestep
shows no face, and neither do ten in a row. The schedule is a user's for landmarks alone (`SCHEDULE`): placed in closed
form, all of the first timestep, each timestep after the other, all together.

The course is a draw from what the options say (each parameter's prior, its change from a timestep to the next), for
which scores are right where the solver is; or sines, which no first-order process draws: their steps agree for half a
period, and options that say wide enough changes for that (`COHERENT`) are wrong by as much from one timestep to the
next. Printed are the root mean square error of every parameter beside its posterior standard deviation and the z-scores
(error over standard deviation; mean 0 and root mean square 1 where all is as the options say), and for each length the
seconds of every stage, and the peak of memory above what the process holds once it has the head model.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flame_fitting import assets, progress
from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import run_stages
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import PARAMETERS, VERGENCE, FitParameters
from flame_fitting.fit.prepare import landmark_weights
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.solvers.second_order import COMPONENTS_BY_LANDMARKS
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target, make_pixel_target
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel

CHANGES = {"expr": 0.1, "rotation": 0.02, "translation": 0.002, "neck": 0.03, "jaw": 0.03, "eyes": 0.05}
"""Standard deviation of a drawn course's change in one timestep, in each parameter's unit."""
PERIODS = (40.0, 160.0)
"""Shortest and longest period of sines, timesteps."""
AMPLITUDE = {"expr": 0.3, "rotation": 0.3, "translation": 0.03, "neck": 0.07, "jaw": 0.05, "eyes": 0.1}
"""Root mean square of sines."""
COHERENT = 5.0
"""Standard deviation of changes that the options say, times that of the sines."""
SCHEDULE = {
    "lmk_init_rigid": {"num_steps": 1},
    "lmk_init_all": {"num_steps": 25, "frames": "first"},
    "lmk_sequential_tracking": {"num_steps": 10, "solver": "gauss_newton"},
    "lmk_global_tracking": {"num_steps": 30, "solver": "gauss_newton"},
}
"""What is changed of the stages."""
ONLY_SEEN = 80
"""Landmarks of a timestep that have no place in space."""
SPREAD = 0.001
"""Standard deviation of landmarks in space, m, besides the detector's own and the embedding's."""
GAP = (100, 110)
"""Timesteps without a face, beside every twentieth, where the sequence is long enough."""


def drawn(rng: np.random.Generator, timesteps: int, covariance: np.ndarray, change: float, walks: bool) -> np.ndarray:
    """(T, n) of a first-order process: `change` of the first coefficient in one timestep, each timestep with the
    covariance, or, where it walks, from a first one with it on at random."""
    size = len(covariance)
    noise = rng.normal(size=(timesteps, size)) @ np.linalg.cholesky(covariance).T
    keep = 1.0 if walks else max(0.0, 1 - change**2 / (2 * covariance[0, 0]))
    fresh = change / covariance[0, 0] ** 0.5 if walks else (1 - keep**2) ** 0.5
    out = noise.copy()
    for t in range(1, timesteps):
        out[t] = keep * out[t - 1] + fresh * noise[t]
    return out


def sines(rng: np.random.Generator, timesteps: int, size: int, amplitude: float) -> tuple[np.ndarray, float]:
    """(T, size) sines of drawn period and phase, and the root mean square of their change in one timestep."""
    period, phase = rng.uniform(*PERIODS, size=size), rng.uniform(0, 2 * np.pi, size=size)
    values = np.sqrt(2) * amplitude * np.sin(2 * np.pi * np.arange(timesteps)[:, None] / period + phase)
    return values, float(amplitude * np.sqrt(np.mean((2 * np.pi / period) ** 2)))


def covariances(head: HeadModel, prior: PriorConfig) -> dict[str, np.ndarray]:
    """Of each parameter of a timestep by the priors; of the two that have none, where they begin."""
    apart = np.concatenate([np.eye(3), -np.eye(3)], axis=1) / VERGENCE
    return {
        "expr": prior.expr**2 * np.eye(head.n_expr),
        "rotation": 0.1**2 * np.eye(3),
        "translation": 0.01**2 * np.eye(3),
        "neck": prior.neck**2 * np.eye(3),
        "jaw": prior.jaw**2 * np.diag([1, 1 / 9, 1 / 9]),
        "eyes": np.linalg.inv(np.eye(6) / prior.eyes**2 + apart.T @ apart),
    }


def draw_truth(head: HeadModel, timesteps: int, course: str, prior: PriorConfig, seed: int) -> FitParameters:
    """True parameters; writes the standard deviations of their changes into the prior."""
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {"shape": prior.shape * rng.normal(size=head.n_shape)}
    values["placement"] = prior.log_scale * rng.normal() * np.eye(7)[6]
    for name, covariance in covariances(head, prior).items():
        if course == "sines":
            size = len(covariance) if name != "eyes" else 3
            values[name], change = sines(rng, timesteps, size, AMPLITUDE[name])
            change *= COHERENT
        else:
            change = CHANGES[name]
            values[name] = drawn(rng, timesteps, covariance, change, name in ("rotation", "translation"))
        setattr(prior, f"{name}_change", change)
    if course == "sines":
        values["jaw"] = values["jaw"] * [1, 1 / 3, 1 / 3] + [0.1, 0, 0]
        values["eyes"] = np.tile(values["eyes"], 2)
    values["jaw"][:, 0] = np.abs(values["jaw"][:, 0])  # it does not shut further than shut
    for name, count in COMPONENTS_BY_LANDMARKS.items():
        values[name][..., count:] = 0
    neutral = FitParameters.neutral(head, timesteps)
    full = {name if hasattr(neutral, name) else f"{name}_pose": value for name, value in values.items()}
    return replace(neutral, **{name: torch.as_tensor(value) for name, value in full.items()})


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


def options(landmarks: int, prior: PriorConfig) -> FitConfig:
    """A user's options for a sequence of which there are landmarks alone."""
    config = FitConfig(Path("sequence"), prior=prior)
    config.exp.photometric = config.model.use_static_offset = False
    config.w.landmark_count = landmarks
    for name, changes in SCHEDULE.items():
        setattr(config.pipeline, name, replace(getattr(config.pipeline, name), **changes))
    return config


def measure(timesteps: int, course: str, seed: int) -> dict[str, Any]:
    """One sequence."""
    head = load_head("open").double()
    embedding = LandmarkEmbedding.load(assets.shipped_embedding_path("mediapipe", "clay"))
    before, prior = resident_mb(), PriorConfig()
    truth = draw_truth(head, timesteps, course, prior, seed)
    targets, count, shown = draw_targets(head, embedding, truth, seed)
    ones = torch.ones(head.n_vertices, dtype=torch.float64)
    seen = Observations(head, targets, SurfaceWeights(ones, ones[head.faces].mean(1), ones))
    torch.set_num_threads(1)  # so that the processor's seconds are comparable whatever else runs
    started, used = time.perf_counter(), time.process_time()
    with progress.silent():
        state = run_stages(FitState(FitParameters.neutral(head, timesteps), np.eye(4)), seen, options(count, prior))
    seconds, used = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return {
        "timesteps": timesteps,
        "course": course,
        "stages": {record.name: record.seconds for record in state.records},
        "warnings": list(state.warnings),
        "seconds": seconds,
        "cpu_seconds": used,
        "memory_mb": peak,
        "table": scores(state, truth, shown),
    }


def scores(state: FitState, truth: FitParameters, shown: np.ndarray) -> dict[str, dict[str, Any]]:
    """Errors of every part that moved beside what the posterior says."""
    table: dict[str, dict[str, Any]] = {}
    for parameter in PARAMETERS:
        for part in parameter.parts:
            if parameter.name not in state.uncertainty:
                continue
            sigma = state.uncertainty[parameter.name][..., part.span]
            found, true = (getattr(p, parameter.name).numpy()[..., part.span] for p in (state.parameters, truth))
            over_time = parameter.role == "frame"
            rows = {"": shown, ", no face": ~shown} if over_time else {"": np.ones(1, dtype=bool)}
            for label, chosen in rows.items():
                t, e, s = (v[chosen] if over_time else v for v in (true, found - true, sigma))
                moved = np.isfinite(s)
                if not moved.any():
                    continue
                t, e, s = t[moved], e[moved], s[moved]
                table[part.name + label] = {
                    "unit": part.unit,
                    "truth": float(np.sqrt(np.mean(t**2))),
                    "error": float(np.sqrt(np.mean(e**2))),
                    "sigma": float(np.sqrt(np.mean(s**2))),
                    "z_mean": float(np.mean(e / s)),
                    "z_std": float(np.sqrt(np.mean((e / s) ** 2))),
                }
    return table


def row(*values: object) -> None:
    """Prints one line of a table."""
    print("| " + " | ".join(str(value) for value in values) + " |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[75, 150, 300])
    parser.add_argument("--course", choices=("drawn", "sines"), default="drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one length in this process, as JSON")
    given = parser.parse_args()
    if given.json:
        print(json.dumps(measure(given.timesteps[0], given.course, given.seed)))
        return
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    runs = []
    for timesteps in given.timesteps:
        arguments = ["--timesteps", str(timesteps), "--course", given.course, "--seed", str(given.seed), "--json"]
        done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    last = runs[-1]
    row(f"{last['timesteps']} timesteps", "unit", "truth, rms", "error, rms", "posterior", "z mean", "z rms")
    print("|" + "---|" * 7)
    for name, values in last["table"].items():
        figures = [f"{values[key]:.3g}" for key in ("truth", "error", "sigma")]
        row(name, values["unit"], *figures, f"{values['z_mean']:.2f}", f"{values['z_std']:.2f}")
    names = list(last["stages"])
    print()
    row(
        "timesteps",
        *(f"{name}, s" for name in names),
        "all, s",
        "of one core",
        "ratio to the row above",
        "peak memory, MB",
    )
    print("|" + "---|" * (len(names) + 5))
    for previous, run in zip([None, *runs], runs, strict=False):
        ratio = "" if previous is None else f"{run['cpu_seconds'] / previous['cpu_seconds']:.2f}"
        stages = [f"{run['stages'][name]:.1f}" for name in names]
        row(
            run["timesteps"],
            *stages,
            f"{run['seconds']:.1f}",
            f"{run['cpu_seconds']:.1f}",
            ratio,
            f"{run['memory_mb']:.0f}",
        )
        for warning in run["warnings"]:
            print(f"warning: {warning}", file=sys.stderr)


if __name__ == "__main__":
    main()
