"""The options' priors, as the solvers take them. Pure."""

from dataclasses import replace

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.weight_config import PriorConfig

OPEN_JAW = 0.3
"""Standard deviation of the jaw's opening where a mouth may be open, rad."""
BLINKING = 0.5
"""That of eyelids where eyes may be shut."""


def priors(config: FitConfig) -> PriorConfig:
    """Standard deviations of the priors; --expressive loosens expression, eyelids and jaw."""
    return replace(config.prior, expr=1.0, eyelids=BLINKING, jaw=OPEN_JAW) if config.expressive else config.prior
