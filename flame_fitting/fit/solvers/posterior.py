"""How well a solver knows what it found: the posterior covariance of a Gaussian model around the solution."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector
from flame_fitting.fit.solvers.columns import Columns

UNKNOWN = 1e4
"""Standard deviations above this (m, rad, ...) belong to what nothing measures and no prior holds: infinite."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """Covariances of the unknowns, each block with all others marginalised.

    True where the solver's measurement model is: independent errors of the stated standard deviations, of which all
    landmarks (and the surface) together count for the stated number, correspondences that are right, the stated
    priors. A bound of a parameter (a jaw that is shut) is not part of it, nor is what the model's basis cannot show.
    """

    columns: Columns
    shared: Float[Tensor, "S S"]
    """Identity and placement."""
    frames: Float[Tensor, "T F F"]

    def standard_deviations(self, like: FitParameters) -> dict[str, np.ndarray]:
        """Of every parameter that moved, in its own shape and unit; NaN for coefficients that did not move.

        Infinite where nothing determines a coefficient. Where unknowns count in the reference frame (`Columns.metric`)
        what the scale's own uncertainty adds to them, in proportion to their value, is left out.
        """
        sigmas = BlockVector(*(m.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt() for m in (self.shared, self.frames)))
        out: dict[str, np.ndarray] = {}
        for block, values in zip(self.columns.blocks, self.columns.split(sigmas), strict=True):
            empty = np.full(getattr(like, block.parameter).shape, np.nan)
            known = torch.where(values > UNKNOWN, torch.inf, values / self.columns.unit(block, like)).cpu().numpy()
            out.setdefault(block.parameter, empty)[..., block.coefficients] = known
        return out


def posterior_of(columns: Columns, system: BlockArrow) -> Posterior:
    """From the undamped system at the solution; all is unknown where rounding leaves it singular.

    Shared unknowns beyond the columns (biases of landmarks) are marginalised.
    """
    size = columns.n_shared
    try:
        shared, frames = system.damped(0.0).factorised().inverse_blocks()
        return Posterior(columns, shared[:size, :size], frames)
    except torch.linalg.LinAlgError:
        return Posterior(
            columns, *(torch.full_like(m, torch.inf) for m in (system.corner[:size, :size], system.diagonal))
        )
