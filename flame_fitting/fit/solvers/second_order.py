"""Second order: landmarks, and the avatar's surface in stages that look at it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flame_fitting import progress
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters, moving_parts
from flame_fitting.fit.priors import priors
from flame_fitting.fit.schedule import moving_joints
from flame_fitting.fit.solvers.active_expression import ActiveExpression
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.focal import usual_log_focal
from flame_fitting.fit.solvers.gauss_newton import MARGINAL_STEPS, Solution, gauss_newton
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.moments import Evident, in_words, moments_of, not_at_rest
from flame_fitting.fit.solvers.problem import GaussNewtonSettings
from flame_fitting.fit.solvers.residuals import LANDMARK_CUT
from flame_fitting.fit.solvers.shown_actions import shown_actions
from flame_fitting.fit.solvers.steadiness import FEWEST
from flame_fitting.fit.state import FitState
from flame_fitting.head.actions import Actions, actions_at_landmarks, actions_of

COMPONENTS_BY_LANDMARKS = {"shape": 50, "expr": 20}
"""Components that landmarks alone can tell."""

_CARRYING, _FEWEST_MARKS = "mediapipe478", 100
"""Landmarks that carry named actions over to a head model, and how many it takes."""

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
    prior, evident = priors(config), not_at_rest(seen, stage)
    over_time = seen.timesteps > 1 and not seen.moments
    columns = Columns.of(seen.head, [part.name for part in parts], most, metric=seen.is_sequence)
    given = GaussNewtonSettings(
        iterations=settings.num_steps,
        landmark_count=config.w.landmark_count if config.data.use_landmark else 0.0,
        landmark_cut=cut,
        surface_count=config.w.surface_count,
        evidence=config.w.evidence if config.data.use_landmark else 0.0,
        bias_sigma=prior.landmark_bias if over_time and not geometry else None,
        marginal=marginal if seen.timesteps > 1 else 0,
        smoothness={
            part.name: change for part in parts if (change := part.change_sigma(prior)) is not None and not seen.moments
        },
        steadied=stage.steadied
        and config.prior.steadied
        and over_time
        and seen.timesteps > FEWEST
        and stage.before is None,
        volume=1.0 if seen.calibrated else VOLUME,
        size_sigma=None if seen.calibrated else prior.log_size,
        usual_log_focal=0.0 if seen.calibrated else usual_log_focal(seen, state.parameters),
        moments=(),
        seed=config.seed,
    )

    def solved(parameters: FitParameters, active: Evident, again: bool = False, **changed: Any) -> Solution:
        return gauss_newton(
            seen.head,
            parameters,
            seen.targets,
            columns,
            prior,
            replace(given, moments=moments_of(seen, config, active), **changed),
            seen.surface if geometry else None,
            report=lambda _: shown.advance(),
            keeper=None if again else stage.keeper,
            left=None if again else state.underway,
            before=stage.before,
            losses=stage.losses,
        )

    actions = known_actions(seen, stage, geometry)
    if actions is None:
        found = solved(state.parameters, evident)
    else:
        # first as if at rest: by what that cannot explain
        first = -(-3 * settings.num_steps // 5)
        found = solved(state.parameters, evident, iterations=first)
        surface = seen.surface if geometry else None
        own = (found.parameters.of_frames([row]) for row in range(seen.timesteps))
        evident = tuple(
            (one or ActiveExpression.at_rest(seen.head)).with_shown(
                shown_actions(seen.head, moment, target, surface, prior, actions)
            )
            for one, moment, target in zip(evident, own, seen.targets, strict=True)
        )
        rest, narrow = settings.num_steps - first, given.surface_cut[1]
        stage.losses.begin += first
        found = solved(found.parameters, evident, again=True, iterations=rest, surface_cut=(narrow, narrow))
    uncertainty = found.posterior.standard_deviations(found.parameters)
    said = in_words(evident, seen.moments) if any(evident) else state.active
    return replace(state, parameters=found.parameters, uncertainty=uncertainty, active=said)


def known_actions(seen: Observations, stage: Stage, geometry: bool) -> Actions | None:
    """The actions of the head model that are looked for in a stage, in moments by themselves: where it moves identity
    and expression by all that the capture has."""
    config, target = stage.config, next((one for one in seen.targets if one.n_seen), seen.targets[0])
    moves = {"shape", "expr"} <= set(stage.settings.optimizable_params)
    if (seen.is_sequence and not seen.moments) or not (moves and config.w.evidence and config.data.use_landmark):
        return None
    if geometry != (target.surface is not None):
        return None
    marks = [source.landmarks for source in target.sources if source.landmarks.scheme == _CARRYING]
    if (own := actions_of(seen.head)) is not None or not marks or len(marks[0].index) < _FEWEST_MARKS:
        return own
    return actions_at_landmarks(seen.head, marks[0].corners, marks[0].barycentric, marks[0].index)
