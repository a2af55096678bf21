"""Random replacement of colours by region, as in VHAP: what each region of a step's pictures may be painted with."""

import torch
from torch import Tensor

from flame_fitting.fit.losses.photometric import ColorPools, color_pools
from flame_fitting.fit.solvers.changing import Changing
from flame_fitting.fit.solvers.photometric_settings import PhotometricConfig

POOL_SIZE = 4096
"""Colours kept of each region."""


class Perturbation:
    """Colour pools of all regions, drawn from time to time; buffers of constant shape."""

    def __init__(self, config: PhotometricConfig, device: torch.device, seed: int) -> None:
        self._config, self._regions = config, len(config.clusters) + 1
        self.pools = ColorPools(
            torch.zeros(self._regions, POOL_SIZE, 3, device=device),
            torch.zeros(self._regions + 1, dtype=torch.int32, device=device),
        )
        self._generator = torch.Generator(device).manual_seed(seed)
        self.seed = torch.full((), 1_000_003 * (seed % 1000), dtype=torch.int32, device=device)
        """Of the next chunk of pictures; goes up by one with each."""

    def changing(self) -> Changing:
        """What draws and steps write."""
        pools = {"colors": self.pools.colors, "thresholds": self.pools.thresholds}
        return {**pools, "generator": self._generator, "seed": self.seed}

    def draw(self, clusters: Tensor, colors: Tensor) -> None:
        """New pools from the drawn colours (B, h, w, 3) and the regions (B, h, w) of their pixels."""
        config, size = self._config, self.pools.colors.shape[1]
        rates = (config.disturb_rate_fg, config.disturb_rate_bg)
        pools = color_pools(clusters, colors, self._regions, *rates, self._generator, size)
        self.pools.colors.copy_(pools.colors)
        self.pools.thresholds.copy_(pools.thresholds)
