"""Axis-angle rotations."""

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fusion import fused_kernels


def rotation_matrix(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues' formula; exact and smooth at zero (Taylor series below 1e-4 rad)."""
    fused = fused_kernels(axis_angle, "flame_fitting.head.fused") if axis_angle.dtype == torch.float32 else None
    if fused is not None:
        return fused.rotation_matrix(axis_angle)
    squared = (axis_angle * axis_angle).sum(-1)[..., None, None]
    small = squared < 1e-8
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    cross = cross_matrix(axis_angle)
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return eye + sine * cross + cosine * (cross @ cross)


def cross_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix of the cross product with a vector."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vector.shape[:-1], 3, 3)


def left_jacobian(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """J_l with dR = [J_l da]_x R: how a change of the axis-angle vector turns the rotated frame.

    Sola et al., "A micro Lie theory for state estimation in robotics", 2018, equation 145.
    """
    squared = (axis_angle * axis_angle).sum(-1)[..., None, None]
    small = squared < 1e-6
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    first = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    second = torch.where(small, 1 / 6 - squared / 120, (angle - angle.sin()) / (safe * angle))
    cross = cross_matrix(axis_angle)
    return torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device) + first * cross + second * (cross @ cross)
