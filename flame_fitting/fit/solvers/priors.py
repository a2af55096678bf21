"""Gaussian priors of single timesteps and over time, as parts of the second-order solver's system.

Over time a parameter is an autoregressive process of first order: x' = a x + noise, with a and the noise such that each
timestep has its prior's standard deviation and changes by the one that is stated. So priors mean the same for one
timestep and for many. Without a prior a parameter walks at random (a = 1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.parameters import VERGENCE, FitParameters
from flame_fitting.fit.solvers.active_expression import ActiveExpression, precision_of
from flame_fitting.fit.solvers.block_arrow import BlockVector
from flame_fitting.fit.solvers.columns import Block, Columns
from flame_fitting.fit.solvers.moments import Moment
from flame_fitting.fit.weight_config import PriorConfig


@dataclass(frozen=True, eq=False)
class Priors:
    """Precision matrix of the unknowns: half of x' P x is their share of the cost, x counted from what is usual."""

    shared: Float[Tensor, "S S"]
    diagonal: Float[Tensor, "T F F"]
    """Blocks of the timesteps."""
    below: Float[Tensor, "T_1 F F"]
    """The block between each timestep and the next; symmetric."""
    usual: Float[Tensor, " S"]
    """Mean of what timesteps share; that of all else is 0."""
    before: Float[Tensor, " F"]
    """Minus the slope at the first timestep by the one before it, where that is given; else 0."""

    def gradient(self, x: BlockVector) -> BlockVector:
        """Slope at the unknowns x."""
        return BlockVector(self.shared @ (x.shared - self.usual), self.slope(x.frames))

    def slope(self, frames: Float[Tensor, "T F"]) -> Float[Tensor, "T F"]:
        """That along the unknowns of the timesteps."""
        out = torch.einsum("tfg,tg->tf", self.diagonal, frames)
        out[1:] += torch.einsum("tfg,tg->tf", self.below, frames[:-1])
        out[:-1] += torch.einsum("tfg,tg->tf", self.below, frames[1:])
        out[0] -= self.before
        return out

    def cost(self, x: BlockVector) -> float:
        """At the unknowns x; without what they cannot change."""
        away = x._replace(shared=x.shared - self.usual)
        return 0.5 * (self.gradient(x).dot(away) - float(self.before @ x.frames[0]))


def make_priors(
    columns: Columns,
    prior: PriorConfig,
    smoothness: Mapping[str, float],
    timesteps: int,
    like: Tensor,
    before: FitParameters | None = None,
    shares: Mapping[str, Float[Tensor, " T_1"]] | None = None,
    moments: Sequence[Moment] = (),
) -> Priors:
    """`smoothness` has the standard deviation of a parameter's change from a timestep to the next, in its own unit.

    Where coefficients have priors of different widths it is that of the first, and the others' are in proportion.
    Parameters that are not in it are independent from a timestep to the next. `before` is the timestep before the first
    one, where it was found already. `shares` has what each change's deviation is multiplied by, where that is not 1
    (`steadiness`), `moments` what is known of each timestep by itself, where that is more than `prior`.
    """
    start, size = columns.n_shared, columns.count - columns.n_shared
    shared = like.new_zeros(start, start)
    diagonal, below = like.new_zeros(timesteps, size, size), like.new_zeros(timesteps - 1, size, size)
    first = like.new_zeros(size, size)
    for block in columns.shared:
        shared[block.columns, block.columns] = _precision(block, prior, like)
    for block in columns.frame:
        rows = slice(block.columns.start - start, block.columns.stop - start)
        own, step = _precision(block, prior, like), smoothness.get(block.part.name)
        of_moments = [_precision(block, moment.prior, like, moment.active) for moment in moments]
        diagonal[:, rows, rows] += torch.stack(of_moments) if of_moments else own
        if step is None:
            continue
        share = (shares or {}).get(block.part.name)
        steps = like.new_full((timesteps - 1,), step) if share is None else step * share.to(like)
        sigmas = block.part.prior_sigmas(prior)
        tied, linked = _ties(own, sigmas, steps)
        diagonal[:-1, rows, rows] += tied
        diagonal[1:, rows, rows] += tied
        below[:, rows, rows] = -linked
        if before is not None:
            tied, linked = _ties(own, sigmas, like.new_full((1,), step))
            diagonal[0, rows, rows] += tied[0]
            first[rows, rows] = linked[0]
    usual, earlier = like.new_zeros(start), like.new_zeros(size)
    if before is not None:
        earlier = first @ columns.values(before).frames[0].to(like)
    return Priors(shared, diagonal, below, usual, earlier)


def change_precision(block: Block, prior: PriorConfig, step: float, like: Tensor) -> Float[Tensor, "n n"]:
    """Of the change of one part from a timestep to the next, where that of its first coefficient deviates by `step`."""
    if not (sigmas := block.part.prior_sigmas(prior)):
        return torch.eye(block.columns.stop - block.columns.start).to(like) / step**2
    return _precision(block, prior, like) * (sigmas[0] / min(step, 2**0.5 * sigmas[0])) ** 2


def _ties(
    own: Float[Tensor, "n n"], sigmas: tuple[float, ...], steps: Float[Tensor, " L"]
) -> tuple[Float[Tensor, "L n n"], Float[Tensor, "L n n"]]:
    """What changes of so many standard deviations add to each of their two timesteps, and minus what is between."""
    if not sigmas:
        alone = torch.eye(len(own)).to(own) * steps.square().reciprocal()[:, None, None]
        return alone, alone
    missing = (steps.square() / (2 * sigmas[0] ** 2)).clamp_max(1.0)  # 1 - a
    a, noise = 1 - missing, missing * (2 - missing)
    return own * (a.square() / noise)[:, None, None], own * (a / noise)[:, None, None]


def _precision(block: Block, prior: PriorConfig, like: Tensor, active: ActiveExpression | None = None) -> Tensor:
    """Of the coefficients of one part, at one timestep."""
    size, sigmas = block.columns.stop - block.columns.start, block.part.prior_sigmas(prior)
    diagonal = like.new_zeros(size)
    if sigmas:
        diagonal += like.new_tensor(sigmas).square().reciprocal()
    out = torch.diag(diagonal)
    if block.parameter == "expr" and sigmas:
        out = precision_of(active, like.new_tensor(sigmas).expand(size))
    if block.parameter == "eyelids" and sigmas and active is not None:
        out = torch.diag(like.new_tensor([1 / (sigmas[0] ** 2 + shut**2) for shut in active.eyelids]))
    if block.parameter == "eyes_pose":
        eye = torch.eye(3).to(like)
        apart = torch.cat([eye, -eye], dim=1) / VERGENCE
        out += apart.T @ apart
    return out
