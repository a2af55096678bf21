"""Gaussian priors of single timesteps and over time, as parts of the second-order solver's system.

Over time a parameter is an autoregressive process of first order: x' = a x + noise, with a and the noise such that each
timestep has its prior's standard deviation and changes by the one that is stated. So priors mean the same for one
timestep and for many. Without a prior a parameter walks at random (a = 1).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.parameters import VERGENCE, FitParameters
from flame_fitting.fit.solvers.active_expression import ActiveExpression, precision_of
from flame_fitting.fit.solvers.block_arrow import BlockVector
from flame_fitting.fit.solvers.columns import Block, Columns
from flame_fitting.fit.weight_config import PriorConfig


@dataclass(frozen=True, eq=False)
class Priors:
    """Precision matrix of the unknowns: half of x' P x is their share of the cost, x counted from what is usual."""

    shared: Float[Tensor, "S S"]
    diagonal: Float[Tensor, "T F F"]
    """Blocks of the timesteps."""
    link: Float[Tensor, "F F"]
    """Minus the block between a timestep and the next; symmetric."""
    usual: Float[Tensor, " S"]
    """Mean of what timesteps share; that of all else is 0."""
    before: Float[Tensor, " F"]
    """The unknowns of the timestep before the first one, where that is given; else 0."""

    @property
    def below(self) -> Float[Tensor, "T_1 F F"]:
        """What couples each timestep with the next; a view of one block."""
        return -self.link.expand(len(self.diagonal) - 1, -1, -1)

    def gradient(self, x: BlockVector) -> BlockVector:
        """Slope at the unknowns x."""
        frames = torch.einsum("tfg,tg->tf", self.diagonal, x.frames)
        linked = x.frames @ self.link
        frames[1:] -= linked[:-1]
        frames[:-1] -= linked[1:]
        frames[0] -= self.link @ self.before
        return BlockVector(self.shared @ (x.shared - self.usual), frames)

    def cost(self, x: BlockVector) -> float:
        """At the unknowns x; without what they cannot change."""
        away = x._replace(shared=x.shared - self.usual)
        return 0.5 * (self.gradient(x).dot(away) - float(self.before @ self.link @ x.frames[0]))


def make_priors(
    columns: Columns,
    prior: PriorConfig,
    smoothness: Mapping[str, float],
    timesteps: int,
    like: Tensor,
    before: FitParameters | None = None,
    active: ActiveExpression | None = None,
) -> Priors:
    """`smoothness` has the standard deviation of a parameter's change from a timestep to the next, in its own unit.

    Where coefficients have priors of different widths it is that of the first, and the others' are in proportion.
    Parameters that are not in it are independent from a timestep to the next. `before` is the timestep before the first
    one, where it was found already. `active` is what of a single moment is not at rest.
    """
    start, size = columns.n_shared, columns.count - columns.n_shared
    shared, end, middle, link = (like.new_zeros(n, n) for n in (start, size, size, size))
    for block in columns.shared:
        shared[block.columns, block.columns] = _precision(block, prior, like)
    for block in columns.frame:
        rows = slice(block.columns.start - start, block.columns.stop - start)
        own, step = _precision(block, prior, like, active), smoothness.get(block.part.name)
        if step is None or (timesteps == 1 and before is None):
            end[rows, rows] = middle[rows, rows] = own
            continue
        sigmas, a = block.part.prior_sigmas(prior), 1.0
        if sigmas:
            a = max(0.0, 1 - step**2 / (2 * sigmas[0] ** 2))
            noise = own / (1 - a**2)
        else:
            noise = torch.eye(len(own)).to(own) / step**2
        end[rows, rows], middle[rows, rows], link[rows, rows] = noise, (1 + a**2) * noise, a * noise
    inner = max(timesteps - 2, 0)
    diagonal = torch.stack([end, *[middle] * inner, *[end] * (timesteps - inner - 1)])
    usual = like.new_zeros(start)
    if before is None:
        return Priors(shared, diagonal, link, usual, like.new_zeros(size))
    if timesteps > 1:  # the first one has one before it, too
        diagonal[0] = middle
    return Priors(shared, diagonal, link, usual, columns.values(before).frames[0].to(like))


def _precision(block: Block, prior: PriorConfig, like: Tensor, active: ActiveExpression | None = None) -> Tensor:
    """Of the coefficients of one part, at one timestep."""
    size, sigmas = block.columns.stop - block.columns.start, block.part.prior_sigmas(prior)
    diagonal = like.new_zeros(size)
    if sigmas:
        diagonal += like.new_tensor(sigmas).square().reciprocal()
    out = torch.diag(diagonal)
    if block.parameter == "expr" and sigmas:
        out = precision_of(active, like.new_tensor(sigmas).expand(size))
    if block.parameter == "eyes_pose":
        eye = torch.eye(3).to(like)
        apart = torch.cat([eye, -eye], dim=1) / VERGENCE
        out += apart.T @ apart
    return out
