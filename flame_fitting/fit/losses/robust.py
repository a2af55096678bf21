"""Robust kernels as weights for iteratively reweighted least squares."""

import torch
from torch import Tensor


def geman_mcclure_weight(distance: Tensor, scale: float | Tensor) -> Tensor:
    """Weight of a residual of size `distance` under rho(d) = d^2 / (1 + (d / scale)^2) (Geman and McClure 1987)."""
    return (1 + (distance / scale).square()).reciprocal().square()


def geman_mcclure(squared: Tensor, scale: float | Tensor) -> Tensor:
    """rho itself, of squared distances; bounded by scale^2."""
    return squared / (1 + squared / torch.as_tensor(scale).square())
