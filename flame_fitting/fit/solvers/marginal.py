"""What timesteps share, estimated with the timesteps' own unknowns integrated out.

The joint mode of both is biased, more certainly the more timesteps there are (Neyman and Scott 1948): how far a turn of
a joint moves a point depends on the shape, so that the shape is drawn to where turns explain noise best. (The same bias
of the scale, by expressions and translations, is gone by what the unknowns are: `Columns.metric`.) The mode of the
shared unknowns' own posterior pays for the volume that it leaves the timesteps' unknowns x: to the cost C comes half
the logarithm of the determinant of their Hessian at their mode (Laplace's approximation; Tierney and Kadane 1986),
    C(s, x(s)) + 1/2 log det H(s, x(s)),    H = sum of J' W J and the priors.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.jacobians import AT_ONCE, Linearizer, batches
from flame_fitting.fit.solvers.residuals import Measurements, Projections
from flame_fitting.fit.solvers.skin import Points
from flame_fitting.head.model import HeadModel

_UNKNOWN = 1e-6
"""Precision (in the unknowns' units) of what nothing determines, so that it has a volume at all."""


class FrameVolume:
    """Half the log determinant of the timesteps' Hessian, by its slope."""

    def __init__(self, head: HeadModel, columns: Columns, chosen: Points | None = None) -> None:
        """`columns` and `chosen` as the solver's own `Linearizer` has them."""
        self._columns = columns
        self._linearizer = Linearizer(head, columns.frames_alone(), chosen)

    def pull(
        self,
        parameters: FitParameters,
        terms: list[list[Measurements]],
        system: BlockArrow,
        held: Bool[Tensor, "T F"],
    ) -> Float[Tensor, " S"] | None:
        """Its slope along the shared unknowns while the timesteps' follow at their mode; None where it has none.

        `terms` are the measurements of every timestep, and `system` the Hessian of everything, at the parameters; what
        is `held` at its bound has no volume.
        """
        alone = system.frames_alone().holding(held)
        alone = replace(alone, diagonal=alone.diagonal + _UNKNOWN * torch.eye(held.shape[1]).to(alone.diagonal))
        try:
            factors = alone.factorised()
        except torch.linalg.LinAlgError:
            return None
        free = (~held).to(system.diagonal)
        covariance = factors.inverse_blocks()[1] * free[:, :, None] * free[:, None]
        slopes = [
            self._slope(parameters, rows, terms[rows], covariance[rows])
            for rows in batches(parameters.timesteps, AT_ONCE)
        ]
        own = torch.cat([slope.frames for slope in slopes]) * free
        # x(s) moves by -H^-1 A ds
        followed = factors.solve(BlockVector(own.new_zeros(0), own)).frames * free
        shared = system.corner.new_zeros(len(system.corner))
        shared[: self._columns.n_shared] = torch.stack([slope.shared for slope in slopes]).sum(0)
        return shared - system.arrow.flatten(0, 1).mT @ followed.flatten()

    def _slope(
        self,
        parameters: FitParameters,
        rows: slice,
        terms: list[list[Measurements]],
        covariance: Float[Tensor, "T F F"],
    ) -> BlockVector:
        """At some timesteps, of 1/2 tr(covariance J' W J) with covariance and weights held: along all their
        unknowns."""
        some = parameters.of_frames(range(rows.start, rows.stop))
        at = BlockVector(*(value.clone().requires_grad_() for value in self._columns.values(some)))
        moved = self._columns.with_values(some, at)
        total = at.shared.sum() * 0 + at.frames.sum() * 0
        # unbound once: the slope of each row alone would be as large as all
        each = zip(*(values.unbind() for values in self._linearizer.of(moved, slice(None))), strict=True)
        for measurements, (vertices, jacobian), own in zip(terms, each, covariance, strict=True):
            total = total + self._sloped(moved, measurements, vertices, jacobian, own)
        return BlockVector(*torch.autograd.grad(total, tuple(at)))

    @staticmethod
    def _sloped(
        moved: FitParameters, terms: list[Measurements], vertices: Tensor, jacobian: Tensor, covariance: Tensor
    ) -> Tensor:
        """What has the slope of that of one timestep."""
        total, depths = vertices.new_zeros(()), []
        for measured in terms:
            weight = measured.robust_weight(measured.residuals(vertices.detach()))
            if isinstance(measured, Projections):
                measured = measured.through(moved)
                depths.append(measured.depths(vertices))
            rows = measured.rows(vertices, jacobian)
            # quadratic in the rows: their slope is known, and held here
            total = total + ((rows.detach() @ covariance) * weight[:, None, None] * rows).sum()
        if depths:  # a distance is told by how large the head is seen: its volume is one of ratios, not of metres
            total = total + torch.cat(depths).mean().log()
        return total
