"""Dense observations of a capture's views, read when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.dense import DENSE


@dataclass(frozen=True, eq=False)
class DenseMaps:
    """Maps of B views (see `capture.dense`), at the size of the views' pictures."""

    capture: Capture
    views: tuple[View, ...]
    frames: tuple[int, ...]
    """(B,) row of the parameters that each view shows."""
    resolution: tuple[int, int]
    """(H, W) that all are brought to, by the nearest pixels."""

    def rows(self, frames: Sequence[int] | None = None) -> list[int]:
        """Rows of the views of some timesteps (all by default)."""
        return [row for row, frame in enumerate(self.frames) if frames is None or frame in frames]

    def of_frames(self, frames: Sequence[int]) -> "DenseMaps":
        """Those of some timesteps, which become the first, second ... one."""
        number, rows = {frame: position for position, frame in enumerate(frames)}, self.rows(frames)
        own = tuple(number[self.frames[row]] for row in rows)
        return replace(self, views=tuple(self.views[row] for row in rows), frames=own)

    def batch(self, kind: str, rows: Sequence[int]) -> Tensor:
        """(b, H, W, C) float32, or (b, H, W) int32 of labels; NaN or -1 where nothing is known."""
        channels = DENSE[kind].channels
        shape = (*self.resolution, channels) if channels else self.resolution
        out = []
        for row in rows:
            found = self.capture.dense(self.views[row]).get(kind)
            if found is None:
                found = np.full(shape, np.nan, np.float32) if channels else np.full(shape, -1, np.int32)
            lines, columns = (
                ((np.arange(new) + 0.5) * old / new).astype(int)
                for new, old in zip(self.resolution, found.shape[:2], strict=True)
            )
            out.append(torch.from_numpy(np.ascontiguousarray(found[np.ix_(lines, columns)])))
        return torch.stack(out)
