"""Which views a step looks at, where it does not look at all."""

import torch


class ViewOrder:
    """Rows of views in random order, round after round: each comes once before one comes again.

    Where a round ends inside a draw, the next one begins with views that are not in it yet, so that no draw holds a
    view twice: two slopes for one view would overwrite each other.
    """

    def __init__(self, total: int, generator: torch.Generator) -> None:
        self._total, self._generator = total, generator
        self._waiting: list[int] = []

    def draw(self, count: int) -> list[int]:
        """The next `count` rows, all different; at most as many as there are views."""
        if count > self._total:
            raise ValueError(f"{count} different views were asked for, and there are {self._total}")
        if len(self._waiting) < count:
            fresh = torch.randperm(self._total, generator=self._generator).tolist()
            first = [row for row in fresh if row not in self._waiting][: count - len(self._waiting)]
            self._waiting += first + [row for row in fresh if row not in first]
        drawn, self._waiting = self._waiting[:count], self._waiting[count:]
        return drawn
