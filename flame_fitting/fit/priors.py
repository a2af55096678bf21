"""The options' priors, as the solvers take them. Pure."""

from dataclasses import replace

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.weight_config import PriorConfig


def priors(config: FitConfig) -> PriorConfig:
    """Standard deviations of the priors; --expressive loosens expression and jaw."""
    return replace(config.prior, expr=1.0, jaw=0.3) if config.expressive else config.prior
