"""Gaussian priors and smoothness over time, as parts of the second-order solver's system."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.parameters import VERGENCE
from flame_fitting.fit.solvers.block_arrow import BlockVector
from flame_fitting.fit.solvers.columns import Block, Columns
from flame_fitting.fit.weight_config import PriorConfig


@dataclass(frozen=True, eq=False)
class Priors:
    """Half of x' P x for the shared unknowns and for those of every frame, and half of d' Q d for their differences."""

    shared: Float[Tensor, "S S"]
    frame: Float[Tensor, "F F"]
    change: Float[Tensor, " F"]
    """Diagonal of Q: d is what an unknown changes by from a timestep to the next."""

    def cost(self, x: BlockVector) -> float:
        """At the unknowns x."""
        return 0.5 * self.gradient(x).dot(x)

    def gradient(self, x: BlockVector) -> BlockVector:
        """Slope at the unknowns x."""
        frames = x.frames @ self.frame
        change = self.change * (x.frames[1:] - x.frames[:-1])
        frames[1:] += change
        frames[:-1] -= change
        return BlockVector(self.shared @ x.shared, frames)

    def diagonal(self, timesteps: int) -> Float[Tensor, "T F F"]:
        """What each frame's block of the system gets."""
        neighbours = self.change.new_full((timesteps,), 2.0)
        neighbours[0] -= 1
        neighbours[-1] -= 1
        return self.frame + neighbours[:, None, None] * torch.diag(self.change)

    def below(self, timesteps: int) -> Float[Tensor, "T_1 F F"]:
        """What couples each frame with the next; a view of one block."""
        return -torch.diag(self.change).expand(timesteps - 1, -1, -1)


def make_priors(columns: Columns, prior: PriorConfig, smoothness: Mapping[str, float], like: Tensor) -> Priors:
    """`smoothness` has the standard deviation of a parameter's change from a timestep to the next, in its own unit.

    Parameters that are not in it are free.
    """
    start = columns.n_shared
    return Priors(
        _precision(columns.shared, 0, start, prior, like),
        _precision(columns.frame, start, columns.count - start, prior, like),
        _smooth(columns, smoothness, like),
    )


def _precision(blocks: tuple[Block, ...], start: int, size: int, prior: PriorConfig, like: Tensor) -> Tensor:
    out = like.new_zeros(size, size)
    for block in blocks:
        rows = torch.arange(block.columns.start - start, block.columns.stop - start, device=like.device)
        sigmas = block.part.prior_sigmas(prior)
        if sigmas:
            out[rows, rows] += like.new_tensor(sigmas).square().reciprocal()
        if block.parameter == "eyes_pose":
            eye = torch.eye(3).to(like)
            apart = torch.cat([eye, -eye], dim=1) / VERGENCE
            out[rows[:, None], rows] += apart.T @ apart
    return out


def _smooth(columns: Columns, smoothness: Mapping[str, float], like: Tensor) -> Tensor:
    out = like.new_zeros(columns.count - columns.n_shared)
    for block in columns.frame:
        if block.part.name in smoothness:
            rows = slice(block.columns.start - columns.n_shared, block.columns.stop - columns.n_shared)
            out[rows] = smoothness[block.part.name] ** -2
    return out
