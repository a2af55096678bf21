"""What a solver is: (state, observations, stage) -> state."""

from collections.abc import Callable
from dataclasses import dataclass, field

from flame_fitting import progress
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.keeping import Keeper
from flame_fitting.fit.loss_curve import LossCurve
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.stage_config import StageConfig
from flame_fitting.fit.state import FitState


class Diverged(RuntimeError):
    """A stage went astray; the driver keeps what was there before."""


@dataclass(frozen=True)
class Stage:
    """What a solver is told to do."""

    name: str
    """For messages; it means nothing."""
    settings: StageConfig
    config: FitConfig
    """Options that all stages share."""
    losses: LossCurve = field(default_factory=LossCurve)
    """Filled in by solvers that read what they minimise."""
    keeper: Keeper | None = None
    """Where the solver shows from time to time how far it is; None where nobody saves it."""
    place: int | None = None
    """Row of the timestep that is seen by itself, in sequence."""
    before: FitParameters | None = None
    """The timestep before the first that the solver sees, where it was found already: changes over time count to it."""
    steadied: bool = True
    """Whether motion is narrowed to what the sequence shows (`solvers.steadiness`): where no later stage of second
    order finds it anew."""

    def steps_per_epoch(self, timesteps: int) -> int:
        """Steps in which Adam sees the pictures of so many timesteps once."""
        batches = self.settings.solver == "adam" and "pictures" in self.settings.looks_at
        return -(-timesteps // self.config.batch_size) if batches else 1

    def steps(self, timesteps: int) -> int:
        """Steps over so many timesteps at once."""
        return self.settings.num_steps or self.settings.num_epochs * self.steps_per_epoch(timesteps)


Solver = Callable[[FitState, Observations, Stage, progress.Bar], FitState]
"""Gives the state that it has arrived at, over the frames and views of the observations, and leaves the one that it was
given as it is. Advances the bar with each of the stage's steps. A state that is `underway` is taken up where it was.
Raises `Diverged`."""
