"""Swimming texture: how much the colour of each texel changes over time.

Each timestep's pictures are baked onto the head as it was fitted there. Where the head is followed well, a texel shows
the same spot of skin at all timesteps, and its colour changes only with the light and with what the model has no
geometry for (the inside of the mouth, hair, wrinkles).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting import progress
from flame_fitting.capture.capture import Capture
from flame_fitting.fit.pictures import load_pictures
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.texture import bake, gaussian_blur, texel_map
from flame_fitting.head.model import HeadModel
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.report.sampling import spread
from flame_fitting.report.statistics import REGIONS

RESOLUTION = 256
"""Texels along an edge."""
MOST_TIMESTEPS = 48
_MOST_CAMERAS = 4
_LONGER_SIDE = 800
_CACHE = 5 * 10**8
_FEWEST = 3
"""Timesteps that must see a texel."""
_SEEN = 0.05
"""Weight (a power of the cosine between normal and view) from which on a timestep sees a texel."""
_DETAIL = 1 / 64
"""Detail is what a Gaussian of this part of the map's width takes out: the light changes more slowly."""


@dataclass(eq=False)
class Swimming:
    """Standard deviations over time, in sRGB levels (0..255); NaN where fewer than three timesteps see the texel."""

    all: Float[ndarray, "R R"]
    detail: Float[ndarray, "R R"]
    """Of what is finer than a few texels, so of colours less those around them: it does not change with the light."""
    timesteps: int
    """That were looked at."""
    regions: dict[str, dict[str, float]]
    """By region: median over its texels of both, and how many texels there are."""

    def as_metrics(self) -> dict[str, Any]:
        """For metrics.json."""
        return {"timesteps": self.timesteps, "resolution": len(self.all), "regions": self.regions}


def swimming(fit: FitResult, capture: Capture, head: HeadModel, without: Sequence[int] = ()) -> Swimming | None:
    """The variation of a fit over time; None where the head has no texture coordinates or is seen too seldom.

    `without` are rows that show no head.
    """
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    views = [view for view in capture.views_of("fit") or capture.views if rows[view.timestep] not in without]
    cameras = {capture.cameras[k] for k in spread(len(capture.cameras), _MOST_CAMERAS)}
    chosen = {capture.timesteps[k] for k in spread(len(capture.timesteps), MOST_TIMESTEPS)}
    views = [view for view in views if view.timestep in chosen and view.camera in cameras]
    if not head.has_uv or len({view.timestep for view in views}) < _FEWEST:
        return None
    rasterizer = make_rasterizer(torch.device("cpu"))
    texels = texel_map(rasterizer, head, RESOLUTION)
    pictures = load_pictures(capture, views, fit.head_from_world, "cpu", _CACHE)
    factor = max(1, -(-max(pictures.resolution) // _LONGER_SIDE))
    sums = [_Moments(), _Moments()]
    timesteps = sorted({rows[view.timestep] for view in views})
    with progress.Bar(len(timesteps), "swimming", "timestep") as bar, torch.no_grad():
        for row in timesteps:
            vertices = torch.as_tensor(fit.vertices_head(head, [row]), dtype=torch.float32)
            some = pictures.of_frames([row])
            baked = bake(rasterizer, head, vertices, some.batch(some.rows()).downsampled(factor), texels)
            seen = baked.weight > _SEEN
            sums[0].add(baked.color, seen)
            sums[1].add(baked.color - _around(baked.color, seen), seen)
            bar.advance()
    deviation = [255 * one.deviation() for one in sums]
    return Swimming(
        all=deviation[0].numpy(),
        detail=deviation[1].numpy(),
        timesteps=len(timesteps),
        regions=_by_region(head, texels.face.numpy(), *(one.numpy() for one in deviation)),
    )


def _around(color: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """(R, R, 3) the mean colour of what is seen around each texel."""
    inside = seen.float()[..., None]
    both = gaussian_blur(torch.cat([color * inside, inside], dim=-1), _DETAIL * len(color))
    return both[..., :3] / both[..., 3:].clamp_min(1e-6)


class _Moments:
    """Mean and squared deviations of texels as timesteps come in (Welford)."""

    def __init__(self) -> None:
        self._count = torch.zeros(RESOLUTION, RESOLUTION, dtype=torch.float64)
        self._mean = torch.zeros(RESOLUTION, RESOLUTION, 3, dtype=torch.float64)
        self._squares = torch.zeros(RESOLUTION, RESOLUTION, 3, dtype=torch.float64)

    def add(self, color: torch.Tensor, seen: torch.Tensor) -> None:
        """Colours (R, R, 3) where they are seen (R, R)."""
        self._count += seen
        apart = torch.where(seen[..., None], color.double() - self._mean, 0.0)
        self._mean += apart / self._count.clamp_min(1)[..., None]
        self._squares += apart * torch.where(seen[..., None], color.double() - self._mean, 0.0)

    def deviation(self) -> torch.Tensor:
        """(R, R) RMS over the channels; NaN where too few timesteps saw the texel."""
        variance = (self._squares / (self._count - 1).clamp_min(1)[..., None]).mean(-1)
        return torch.where(self._count >= _FEWEST, variance.sqrt(), torch.nan)


def _by_region(
    head: HeadModel, face: Int[ndarray, "R R"], whole: Float[ndarray, "R R"], detail: Float[ndarray, "R R"]
) -> dict[str, dict[str, float]]:
    out = {}
    for name in REGIONS:
        if name not in head.regions:
            continue
        inside = (face >= 0) & head.face_mask(name).cpu().numpy()[np.maximum(face, 0)] & np.isfinite(whole)
        if inside.any():
            out[name] = {
                "std_median": float(np.median(whole[inside])),
                "detail_std_median": float(np.median(detail[inside])),
                "detail_std_p95": float(np.percentile(detail[inside], 95)),
                "texels": int(inside.sum()),
            }
    return out
