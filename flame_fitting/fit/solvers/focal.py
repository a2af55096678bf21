"""The focal length of a camera that is not known, to begin with: several on a logarithmic scale, the best one stays.

A face seen by one camera tells its focal length by perspective alone, and joint solutions have several minima (the
nearer the camera, the flatter the face). So each of them is tried on a few timesteps, with shape, expression and poses
free, and the parabola through the best three says where to begin; a later stage releases it.
"""

from dataclasses import replace

import numpy as np

from flame_fitting import progress
from flame_fitting.fit.keyframes import keyframes
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters, moving_parts
from flame_fitting.fit.priors import priors
from flame_fitting.fit.solvers.closed_form import align_timesteps
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import GaussNewtonSettings, gauss_newton
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.state import FitState

TRIED = tuple(float(value) for value in np.log(2.0) * np.arange(-1.5, 2.01, 0.5))
"""Logarithms of the focal length over the assumed one, from 0.35 to 4 times it."""
_KEYFRAMES = 12
_COMPONENTS = {"shape": 30, "expr": 10}


def solve(state: FitState, seen: Observations, stage: Stage, shown: progress.Bar) -> FitState:
    """Focal length and poses of all timesteps; calibrated cameras stay as they are."""
    shown.advance()
    if seen.calibrated:
        return state
    rows = keyframes(seen, state.parameters, _KEYFRAMES)
    costs = []
    for tried in TRIED:
        costs.append(_cost_at(tried, state.parameters.of_frames(rows), seen.of_frames(rows), stage))
        shown.note(focal=f"{np.exp(tried):.2f}")
    parameters = state.parameters.clone()
    parameters.log_focal[0] = lowest(TRIED, costs)
    seen_so = seen.zoomed(float(parameters.log_focal[0]))
    return replace(state, parameters=align_timesteps(seen.head, parameters, seen_so.targets))


def lowest(places: tuple[float, ...], costs: list[float]) -> float:
    """Where the parabola through the least cost and its neighbours is lowest; at an end, the end."""
    best = int(np.argmin(costs))
    if best in (0, len(places) - 1):
        return places[best]
    a, b, _ = np.polyfit(places[best - 1 : best + 2], costs[best - 1 : best + 2], 2)
    return float(np.clip(-b / (2 * a), places[best - 1], places[best + 1])) if a > 0 else places[best]


def _cost_at(log_focal: float, parameters: FitParameters, seen: Observations, stage: Stage) -> float:
    """Least cost with this focal length, over a few timesteps that do not know of one another."""
    parameters.log_focal[0] = log_focal
    parameters = align_timesteps(seen.head, parameters, seen.zoomed(log_focal).targets)
    config = stage.config
    parts = moving_parts(("pose", "shape", "expr", "joints"), True, ("jaw_pose", "neck_pose", "eyes_pose"))
    columns = Columns.of(seen.head, [part.name for part in parts], _COMPONENTS)
    settings = GaussNewtonSettings(
        evidence=0.0,
        iterations=stage.settings.num_steps,
        landmark_count=config.w.landmark_count,
        surface_count=0.0,
        smoothness={},
        bias_sigma=config.prior.landmark_bias,
        marginal=False,
        seed=config.seed,
    )
    return gauss_newton(seen.head, parameters, seen.targets, columns, priors(config), settings).cost
