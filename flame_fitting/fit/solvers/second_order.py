"""Second order: landmarks, and the avatar's surface in stages that look at it."""

from collections.abc import Mapping
from dataclasses import replace

from flame_fitting import progress
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import moving_parts
from flame_fitting.fit.priors import priors
from flame_fitting.fit.schedule import moving_joints
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.focal import usual_log_focal
from flame_fitting.fit.solvers.gauss_newton import MARGINAL_STEPS, gauss_newton
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.moments import in_words, moments_of
from flame_fitting.fit.solvers.problem import GaussNewtonSettings
from flame_fitting.fit.solvers.residuals import LANDMARK_CUT
from flame_fitting.fit.solvers.steadiness import FEWEST
from flame_fitting.fit.state import FitState

COMPONENTS_BY_LANDMARKS = {"shape": 50, "expr": 20}
"""Components that landmarks alone can tell."""

VOLUME = 0.5
"""What the volume of the timesteps' unknowns counts for where cameras are not known. All of it would be right if
errors were as large as they are assumed to be, and each for itself: they are smaller (their squares a third of what is
assumed, of points of the skin a tenth), but alike in neighbours, and so are assumed larger."""


def solve(
    state: FitState,
    seen: Observations,
    stage: Stage,
    shown: progress.Bar,
    components: Mapping[str, int] = COMPONENTS_BY_LANDMARKS,
    cut: float = LANDMARK_CUT,
    marginal: int | None = None,
) -> FitState:
    """All that the stage's groups name, by landmarks and priors, and by the surface where the stage looks at it.

    Without the surface at most so many `components` move. `cut` is the robust scale of landmarks in their deviations,
    `marginal` how many steps are taken in the end with timesteps integrated out; None: enough where cameras are known.
    """
    config, settings = stage.config, stage.settings
    if marginal is None:
        marginal = MARGINAL_STEPS if seen.calibrated else 0
    parts = moving_parts(settings.optimizable_params, seen.is_sequence, moving_joints(config), seen.calibrated)
    geometry, most = "surface" in settings.looks_at, {"shape": config.model.n_shape, "expr": config.model.n_expr}
    if not geometry:
        most = {name: min(count, components[name]) for name, count in most.items()}
    prior, (moments, evident) = priors(config), moments_of(seen, stage)
    over_time = seen.timesteps > 1 and not moments
    found = gauss_newton(
        seen.head,
        state.parameters,
        seen.targets,
        Columns.of(seen.head, [part.name for part in parts], most, metric=seen.is_sequence),
        prior,
        GaussNewtonSettings(
            iterations=settings.num_steps,
            landmark_count=config.w.landmark_count if config.data.use_landmark else 0.0,
            landmark_cut=cut,
            surface_count=config.w.surface_count,
            evidence=config.w.evidence if config.data.use_landmark else 0.0,
            bias_sigma=prior.landmark_bias if over_time and not geometry else None,
            marginal=marginal if seen.timesteps > 1 else 0,
            smoothness={}
            if moments
            else {part.name: change for part in parts if (change := part.change_sigma(prior)) is not None},
            steadied=stage.steadied
            and config.prior.steadied
            and over_time
            and seen.timesteps > FEWEST
            and stage.before is None,
            volume=1.0 if seen.calibrated else VOLUME,
            size_sigma=None if seen.calibrated else prior.log_size,
            usual_log_focal=0.0 if seen.calibrated else usual_log_focal(seen, state.parameters),
            moments=moments,
            seed=config.seed,
        ),
        seen.surface if geometry else None,
        report=lambda _: shown.advance(),
        keeper=stage.keeper,
        left=state.underway,
        before=stage.before,
    )
    uncertainty = found.posterior.standard_deviations(found.parameters)
    said = in_words(evident, seen.moments) if any(evident) else state.active
    return replace(state, parameters=found.parameters, uncertainty=uncertainty, active=said)
