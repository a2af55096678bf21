"""What is known beforehand of moments by themselves, one or several of one person in no order.

What differs between several moments of a person is expression, so there it may be wide. What they have in common can
be identity as well, and Gaussian priors alike in all moments would give each a share of every other's expression, the
other way round. So one of them is held nearer to rest: the one that detectors say is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.priors import OPEN_JAW, priors
from flame_fitting.fit.solvers.active_expression import ActiveExpression, active_expression
from flame_fitting.fit.solvers.evidence_terms import evidence_of
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.landmarks.action_scores import scored
from flame_fitting.landmarks.mediapipe_detector import SCORE_NAMES

ABOUT_AS_NEAR = 1.15
"""Moments whose scores are less than so many times the least ones' are about as near to rest: the first counts."""


@dataclass(frozen=True)
class Moment:
    """One timestep."""

    prior: PriorConfig
    active: ActiveExpression | None
    """What is not at rest; None: that is not known, or does not count."""


Evident = tuple[ActiveExpression | None, ...]
"""What is not at rest in each moment."""


def not_at_rest(seen: Observations, stage: Stage) -> Evident:
    """What evidence says of a single moment, or of each of several in no order; of timesteps over time nothing."""
    if seen.is_sequence and not seen.moments:
        return ()
    counts = bool(stage.config.w.evidence and stage.config.data.use_landmark)
    return tuple(active_expression(seen.head, [target]) if counts else None for target in seen.targets)


def moments_of(seen: Observations, config: FitConfig, active: Evident) -> tuple[Moment, ...]:
    """One for each of what is `active`."""
    usual = priors(config)
    if config.neutral or config.expressive:
        return tuple(Moment(usual, None) for _ in active)
    rest = nearest_to_rest(seen) if active else 0
    wide = replace(usual, expr=max(usual.expr, config.prior.expr_several))
    own = (usual if row == rest else wide for row in range(len(active)))
    return tuple(
        Moment(replace(prior, jaw=OPEN_JAW) if one is not None and one.open_mouth else prior, one)
        for prior, one in zip(own, active, strict=True)
    )


def nearest_to_rest(seen: Observations) -> int:
    """The row of the moment whose expression scores are least, where it is not known; the first where none tells."""
    if seen.at_rest is not None:
        return seen.at_rest
    telling = scored(SCORE_NAMES)
    size = {
        row: float(np.linalg.norm(expit(odds)))
        for row, one in evidence_of(seen.targets).items()
        if np.isfinite(odds := one.odds_of(telling)).all()
    }
    if len(size) < seen.timesteps:
        return 0
    least = min(size.values())
    return min(row for row, value in size.items() if value <= ABOUT_AS_NEAR * least)


def in_words(said: Evident, names: Sequence[str]) -> tuple[str, ...]:
    """What is not at rest, of several moments by their names."""
    if len(names) < 2:
        return tuple(text for one in said if one is not None for text in one.said)
    return tuple(
        f"{name}: {', '.join(one.said)}" for name, one in zip(names, said, strict=True) if one is not None and one.said
    )
