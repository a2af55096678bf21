"""The loss of a stage on its way, for whoever wants to see whether it has arrived."""

import math
from dataclasses import dataclass, field

MOST = 200
"""Points of a curve that are kept of a finished stage."""


@dataclass
class LossCurve:
    """Filled in by a solver as it reads its loss; several batches of timesteps stand one after the other."""

    points: list[tuple[int, float]] = field(default_factory=list)
    """Step and loss."""
    begin: int = 0
    """Steps behind the batch that is being solved."""

    def add(self, step: int, loss: float) -> None:
        """The loss at a step of the batch."""
        self.points.append((self.begin + step, float(loss)))

    def thinned(self, most: int = MOST) -> list[tuple[int, float]]:
        """At most so many finite points, evenly spread, the first and the last one among them."""
        known = [point for point in self.points if math.isfinite(point[1])]
        if len(known) <= most:
            return known
        return [known[round(k * (len(known) - 1) / (most - 1))] for k in range(most)]
