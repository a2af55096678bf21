"""Second-order terms: each returns its share of the Gauss-Newton normal equations of one timestep."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Quadratic(NamedTuple):
    """0.5 x^T H x + g^T x + cost around the current parameters."""

    hessian: Float[Tensor, "P P"]
    gradient: Float[Tensor, " P"]
    cost: Float[Tensor, ""]

    def __add__(self, other: "Quadratic") -> "Quadratic":  # type: ignore[override]
        return Quadratic(self.hessian + other.hessian, self.gradient + other.gradient, self.cost + other.cost)


def quadratic_of_residuals(
    residuals: Float[Tensor, " n"], jacobian: Float[Tensor, "n P"], weights: Float[Tensor, " n"]
) -> Quadratic:
    """Half the weighted sum of squared residuals, linearised."""
    weighted = jacobian * weights[:, None]
    return Quadratic(weighted.T @ jacobian, weighted.T @ residuals, 0.5 * (weights * residuals.square()).sum())


def quadratic_of_vectors(
    residuals: Float[Tensor, "n 3"], jacobian: Float[Tensor, "n 3 P"], weights: Float[Tensor, " n"]
) -> Quadratic:
    """The same for vector residuals with one weight each."""
    return quadratic_of_residuals(residuals.reshape(-1), jacobian.flatten(0, 1), weights.repeat_interleave(3))


def gather_points(
    vertices: Float[Tensor, "V 3"], jacobian: Float[Tensor, "V 3 P"], corners: Tensor, barycentric: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3 P"]]:
    """Barycentric points on triangles `corners` (n, 3) and their Jacobian."""
    points = torch.einsum("nkc,nk->nc", vertices[corners], barycentric)
    moved = sum(jacobian[corners[:, k]] * barycentric[:, k, None, None] for k in range(3))
    return points, torch.as_tensor(moved)
