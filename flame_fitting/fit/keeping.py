"""Keeps how far a stage is while it runs, so that a killed fit loses seconds and not the stage."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from flame_fitting.fit.loss_curve import LossCurve
from flame_fitting.fit.state import FitState, Underway


class Clock:
    """Tells when the next checkpoint is due."""

    def __init__(self, seconds: float) -> None:
        """One in so many seconds; 0 for none inside of stages."""
        self._seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        """Whether so much time has passed since the last one."""
        return self._seconds > 0 and time.monotonic() - self._last >= self._seconds

    def restart(self) -> None:
        """One was written."""
        self._last = time.monotonic()


@dataclass(frozen=True, eq=False)
class Keeper:
    """What a solver shows its progress to. It belongs to one batch of timesteps of one stage."""

    save: Callable[[FitState], None]
    clock: Clock
    before: FitState
    """The state that the stage began with."""
    stage: str
    batch: int = 0
    found: FitState | None = None
    """What earlier batches have made of it."""
    losses: LossCurve = field(default_factory=LossCurve)
    """The stage's own, as its solver fills it in."""

    def due(self) -> bool:
        """Whether it is time to show it."""
        return self.clock.due()

    def keep(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any] | None = None) -> None:
        """Saves all that the solver needs to go on before its step number `step`."""
        underway = Underway(self.stage, self.batch, self.found, step, tensors, numbers or {}, [*self.losses.points])
        self.save(replace(self.before, underway=underway).to(torch.device("cpu")))
        self.clock.restart()
