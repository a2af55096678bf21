"""Launches the Triton kernels of axis-angle rotations; `rotations.py` has the reference."""

import torch
import triton
from torch import Tensor

from flame_fitting.kernels import rotations

_BLOCK = 32


class RotationMatrix(torch.autograd.Function):
    """See `rotations.rotation_matrix`."""

    @staticmethod
    def forward(ctx, axis_angle):
        axis_angle = axis_angle.contiguous()
        out = axis_angle.new_empty(*axis_angle.shape, 3)
        n = axis_angle.numel() // 3
        with torch.cuda.device(axis_angle.device):
            rotations.forward_kernel[(triton.cdiv(n, _BLOCK),)](axis_angle, out, n, BLOCK=_BLOCK)
        ctx.save_for_backward(axis_angle)
        return out

    @staticmethod
    def backward(ctx, *grads):
        (axis_angle,) = ctx.saved_tensors
        out, n = torch.empty_like(axis_angle), axis_angle.numel() // 3
        with torch.cuda.device(axis_angle.device):
            grid = (triton.cdiv(n, _BLOCK),)
            rotations.backward_kernel[grid](axis_angle, grads[0].contiguous(), out, n, BLOCK=_BLOCK)
        return out


def rotation_matrix(axis_angle: Tensor) -> Tensor:
    """See `rotations.rotation_matrix`; float32."""
    return RotationMatrix.apply(axis_angle)
