"""The pictures of a long capture in batches of timesteps: an epoch sees each once, and only a few are held at once."""

from collections.abc import Sequence

import numpy as np
import torch

from flame_fitting.fit.pictures import Pictures
from flame_fitting.fit.solvers.changing import Changing, within
from flame_fitting.fit.solvers.view_order import ViewOrder
from flame_fitting.fit.views import ViewSet

_BAKED = 16
"""Timesteps whose pictures a common base is baked from."""


def sample_of(timesteps: Sequence[int]) -> list[int]:
    """A few timesteps from the first to the last, always the same."""
    places = np.linspace(0, len(timesteps) - 1, min(_BAKED, len(timesteps))).round().astype(int)
    return [timesteps[place] for place in places]


class Batches:
    """Timesteps in random order, epoch after epoch, so many at once."""

    def __init__(
        self, pictures: Pictures, timesteps: Sequence[int], size: int, max_yaw: float, generator: torch.Generator
    ) -> None:
        """`timesteps` are rows of the parameters, at least `size` of them; `max_yaw` as in `Pictures.rows`."""
        self._generator = generator
        self._pictures, self._timesteps, self._max_yaw = pictures, list(timesteps), max_yaw
        self._order, self._size = ViewOrder(len(self._timesteps), generator), size
        self._chosen = torch.tensor([self._order.draw(size), self._order.draw(size)])
        """The batch that is looked at and the next one, as places in `timesteps`."""

    @property
    def resolution(self) -> tuple[int, int]:
        """(H, W) of all pictures."""
        return self._pictures.resolution

    @property
    def timesteps(self) -> int:
        """How many an epoch sees."""
        return len(self._timesteps)

    @property
    def rows(self) -> list[int]:
        """The timesteps of this batch, ascending."""
        return sorted(self._timesteps[place] for place in self._chosen[0].tolist())

    def views(self) -> ViewSet:
        """The pictures of this batch, whose `timestep` counts among its `rows`; the next ones are read meanwhile."""
        found = self._views_of(self.rows)
        following = [self._timesteps[place] for place in self._chosen[1].tolist()]
        self._pictures.prefetch(self._pictures.rows(following, self._max_yaw))
        return found

    def advance(self) -> None:
        """Goes on to the next batch."""
        following = torch.tensor(self._order.draw(self._size))
        self._chosen.copy_(torch.stack([self._chosen[1], following]))

    def sample(self) -> tuple[list[int], ViewSet]:
        """Timesteps that stand for all, and their pictures as `views` gives them."""
        rows = sample_of(self._timesteps)
        return rows, self._views_of(rows)

    def changing(self) -> Changing:
        """What `advance` writes."""
        return {"chosen": self._chosen, "generator": self._generator, **within("order", self._order.changing())}

    def _views_of(self, rows: list[int]) -> ViewSet:
        pictures = self._pictures.of_frames(rows)
        return pictures.batch(pictures.rows(max_yaw=self._max_yaw))
