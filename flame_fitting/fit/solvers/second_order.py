"""Second order: landmarks, and the avatar's surface in stages that look at it."""

from dataclasses import replace

from flame_fitting import progress
from flame_fitting.fit.linearize import Columns
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parametric import GaussNewtonWeights, fit_geometry, fit_landmarks
from flame_fitting.fit.priors import priors
from flame_fitting.fit.schedule import moving_joints
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.state import FitState

COMPONENTS_BY_LANDMARKS = (50, 20)
"""Components of shape and expression that landmarks alone can tell."""


def solve(state: FitState, seen: Observations, stage: Stage, shown: progress.Bar) -> FitState:
    """All that the stage's groups name, by landmarks and priors, and by the surface where the stage looks at it."""
    config, settings = stage.config, stage.settings
    groups, prior = settings.optimizable_params, priors(config)
    balance = GaussNewtonWeights(
        landmark_count=config.w.landmark_count if config.data.use_landmark else 0.0,
        surface_count=config.w.surface_count,
    )
    n_shape = min(config.model.n_shape, seen.head.n_shape) if "shape" in groups else 0
    n_expr = min(config.model.n_expr, seen.head.n_expr) if "expr" in groups else 0
    poses = moving_joints(config) if "joints" in groups else ()
    if state.parameters.timesteps > 1 and "pose" in groups:
        poses = ("rotation", "translation", *poses)
    if not stage.name.startswith("geo"):
        most_shape, most_expr = COMPONENTS_BY_LANDMARKS
        few = Columns("pose" in groups, min(most_shape, n_shape), min(most_expr, n_expr), poses, "scale" in groups)
        args = (seen.targets, few, prior, balance)
        found = fit_landmarks(seen.head, state.parameters, *args, iterations=settings.num_steps)
        return replace(state, parameters=found)
    found = fit_geometry(
        seen.head,
        state.parameters,
        seen.targets,
        Columns("pose" in groups, n_shape, n_expr, poses, "scale" in groups),
        prior,
        balance,
        seen.surface,
        iterations=settings.num_steps,
        seed=config.seed,
        report=lambda _: shown.advance(),
    )
    return replace(state, parameters=found)
