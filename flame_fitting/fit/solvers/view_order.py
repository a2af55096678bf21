"""Which views a step looks at, where it does not look at all."""

import torch

from flame_fitting.fit.solvers.changing import Changing


class ViewOrder:
    """Rows of views in random order, round after round: each comes once before one comes again.

    Where a round ends inside a draw, the next one begins with views that are not in it yet, so that no draw holds a
    view twice: two slopes for one view would overwrite each other.
    """

    def __init__(self, total: int, generator: torch.Generator) -> None:
        self._total, self._generator = total, generator
        self._waiting = torch.full((2 * total,), -1)

    def draw(self, count: int) -> list[int]:
        """The next `count` rows, all different; at most as many as there are views."""
        if count > self._total:
            raise ValueError(f"{count} different views were asked for, and there are {self._total}")
        waiting = [row for row in self._waiting.tolist() if row >= 0]
        if len(waiting) < count:
            fresh = torch.randperm(self._total, generator=self._generator).tolist()
            first = [row for row in fresh if row not in waiting][: count - len(waiting)]
            waiting += first + [row for row in fresh if row not in first]
        drawn, waiting = waiting[:count], waiting[count:]
        self._waiting.fill_(-1)[: len(waiting)] = torch.tensor(waiting, dtype=torch.long)
        return drawn

    def changing(self) -> Changing:
        """What draws write."""
        return {"waiting": self._waiting}
