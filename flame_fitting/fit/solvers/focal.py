"""The focal length of a camera that is not known, to begin with: several on a logarithmic scale, the best one stays.

A face seen by one camera tells its focal length by perspective alone, and joint solutions have several minima (the
nearer the camera, the flatter the face). So each of them is tried on a few timesteps, with shape, expression and poses
free, and the parabola through the best three says where to begin; a later stage releases it. From each to the next the
head moves along the camera's axis as far as that shows it as large (a dolly zoom), and the rest begins where it was.
"""

from dataclasses import replace

import numpy as np
import torch

from flame_fitting import progress
from flame_fitting.fit.keyframes import keyframes
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters, moving_parts
from flame_fitting.fit.priors import priors
from flame_fitting.fit.solvers.closed_form import align_timesteps
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.dolly import along, depth_rows, depths
from flame_fitting.fit.solvers.gauss_newton import Solution, gauss_newton
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.problem import GaussNewtonSettings
from flame_fitting.fit.solvers.residuals import LANDMARK_CUT
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import PixelTarget

USUAL_DISTANCE = 0.9
"""m: people are filmed from an arm's length to a few metres. The prior of the focal length is around that which puts
the head there; `--prior.log-focal` is how wide it is."""
TRIED = tuple(float(value) for value in np.log(2.0) * np.arange(-1.5, 1.01, 0.5))
"""Logarithms of the focal length over the usual one, from 0.35 to 2 times it."""
_KEYFRAMES = 12
_POINTS = 120
"""Of a source, that are looked at."""
_COMPONENTS = {"shape": 30, "expr": 10}


def solve(state: FitState, seen: Observations, stage: Stage, shown: progress.Bar) -> FitState:
    """Focal length and poses of all timesteps; calibrated cameras stay as they are."""
    shown.advance()
    if seen.calibrated:
        return state
    usual = usual_log_focal(seen, state.parameters)
    rows = keyframes(seen, state.parameters, _KEYFRAMES)
    few = thinned(seen.of_frames(rows))
    places = tuple(usual + apart for apart in TRIED)
    costs: dict[int, float] = {}

    def tried(number: int, begun: FitParameters, steps: int) -> FitParameters:
        found = _with_focal_held(begun, few, stage, steps, usual)
        costs[number] = found.cost
        shown.note(focal=f"{np.exp(places[number]):.2f}")
        return found.parameters

    middle, steps = TRIED.index(0.0), stage.settings.num_steps
    begun = state.parameters.of_frames(rows)
    begun.log_focal[0] = places[middle]
    first = tried(middle, align_timesteps(seen.head, begun, few.zoomed(places[middle]).targets), steps)
    for away in (range(middle + 1, len(places)), reversed(range(middle))):
        at = first
        for number in away:
            at = tried(number, dollied(few, at, places[number]), -(-steps // 2))
    parameters = state.parameters.clone()
    parameters.log_focal[0] = lowest(places, [costs[number] for number in range(len(places))])
    seen_so = seen.zoomed(float(parameters.log_focal[0]))
    return replace(state, parameters=align_timesteps(seen.head, parameters, seen_so.targets))


def lowest(places: tuple[float, ...], costs: list[float]) -> float:
    """Where the parabola through the least cost and its neighbours is lowest; at an end, the end."""
    best = int(np.argmin(costs))
    if best in (0, len(places) - 1):
        return places[best]
    a, b, _ = np.polyfit(places[best - 1 : best + 2], costs[best - 1 : best + 2], 2)
    return float(np.clip(-b / (2 * a), places[best - 1], places[best + 1])) if a > 0 else places[best]


def usual_log_focal(seen: Observations, parameters: FitParameters) -> float:
    """Logarithm of the focal length, over the assumed one, that puts the head at `USUAL_DISTANCE`.

    By where the head is at the focal length of the parameters, in the median over timesteps; how large it is in the
    picture does not change, so distance and focal length are in proportion. What crops a picture changes neither.
    """
    found = depths(depth_rows(seen.targets, parameters.translation), parameters.translation)
    found = found[found > 0]
    if not len(found):
        return 0.0
    return float(np.log(USUAL_DISTANCE / np.median(found.cpu().numpy())) + float(parameters.log_focal[0]))


def dollied(seen: Observations, parameters: FitParameters, log_focal: float) -> FitParameters:
    """With another focal length, and the head as much farther away as that is longer."""
    out = parameters.clone()
    factor = np.exp(log_focal - float(parameters.log_focal[0]))
    out.log_focal[0] = log_focal
    rows = depth_rows(seen.targets, out.translation)
    out.translation += along(rows, (factor - 1) * depths(rows, parameters.translation))
    return out


def thinned(seen: Observations) -> Observations:
    """With at most so many points of each source that only pictures show: more of them tell the same."""

    def few(pixels: PixelTarget, kept: torch.Tensor) -> PixelTarget:
        rows = torch.isin(pixels.index, kept)
        own = {name: getattr(pixels, name)[rows] for name in ("camera", "rays", "weight", "corners", "barycentric")}
        index = pixels.index[rows]
        return replace(pixels, **own, view=pixels.view[rows], index=index, points=len(torch.unique(index)))

    targets = list(seen.targets)
    for number in range(max((len(target.sources) for target in targets), default=0)):
        having = [t for t, target in enumerate(targets) if len(target.sources) > number]
        shown = [pixels.index for t in having if (pixels := targets[t].sources[number].pixels) is not None]
        if not shown:
            continue
        points = torch.unique(torch.cat(shown))
        if len(points) <= _POINTS:
            continue
        kept = points[torch.linspace(0, len(points) - 1, _POINTS, device=points.device).round().long()]
        for t in having:
            sources = list(targets[t].sources)
            pixels = sources[number].pixels
            if pixels is not None:
                sources[number] = replace(sources[number], pixels=few(pixels, kept))
                targets[t] = replace(targets[t], sources=tuple(sources))
    return replace(seen, targets=targets)


def _with_focal_held(parameters: FitParameters, seen: Observations, stage: Stage, steps: int, usual: float) -> Solution:
    """The best fit with this focal length, over a few timesteps that do not know of one another; the cost has all."""
    config = stage.config
    parts = moving_parts(("pose", "shape", "expr", "joints"), True, ("jaw_pose", "neck_pose", "eyes_pose"))
    columns = Columns.of(seen.head, [part.name for part in parts], _COMPONENTS)
    prior = priors(config)
    settings = GaussNewtonSettings(
        evidence=0.0,
        moments=(),
        usual_log_focal=0.0,
        size_sigma=prior.log_size,
        iterations=steps,
        landmark_count=config.w.landmark_count,
        landmark_cut=LANDMARK_CUT,
        surface_count=0.0,
        smoothness={},
        steadied=False,
        bias_sigma=config.prior.landmark_bias,
        marginal=0,
        volume=0.0,
        seed=config.seed,
    )
    found = gauss_newton(seen.head, parameters, seen.targets, columns, prior, settings)
    of_focal = 0.5 * ((float(parameters.log_focal[0]) - usual) / prior.log_focal) ** 2
    return found._replace(cost=found.cost + of_focal)
