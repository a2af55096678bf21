"""The options' priors, as the solvers take them. Pure."""

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.parametric import PriorWeights


def priors(config: FitConfig) -> PriorWeights:
    """Standard deviations of the priors; --expressive loosens expression and jaw."""
    return PriorWeights(
        shape=config.prior.shape,
        expr=1.0 if config.expressive else config.prior.expr,
        neck=config.prior.neck,
        jaw=0.3 if config.expressive else config.prior.jaw,
        eyes=config.prior.eyes,
        log_scale=config.prior.log_scale,
    )
