"""Launches one Triton kernel for each per-pixel operation of a photometric step; `photometric.py`, `texture.py` and
`adam.py` have the references."""

import math

import torch
import triton
from torch import Tensor

from flame_fitting.kernels import pictures

_BLOCK = 512


class Paint(torch.autograd.Function):
    """See `photometric.paint`."""

    @staticmethod
    def forward(ctx, color, background, triangle, clusters, thresholds, pools, seed):
        n = color.numel() // 3
        out = color.new_empty(*color.shape[:3], 4)
        keep = torch.empty(color.shape[:3], dtype=torch.int8, device=color.device)
        perturb = pools is not None and seed is not None
        nothing = keep  # any pointer: not read
        with torch.cuda.device(color.device):
            pictures.paint_kernel[(triton.cdiv(n, _BLOCK),)](
                color.contiguous(),
                background.contiguous(),
                triangle,
                clusters if perturb else nothing,
                thresholds if perturb else nothing,
                pools if perturb else nothing,
                out,
                keep,
                n,
                triangle.stride(2),
                1.0 if background.is_floating_point() else 1 / 255,
                pools.shape[1] if perturb else 1,
                seed if perturb else nothing,
                BACKGROUND=background.shape[-1],
                PERTURB=perturb,
                BLOCK=_BLOCK,
            )
        ctx.save_for_backward(keep)
        return out

    @staticmethod
    def backward(ctx, *grads):
        (keep,) = ctx.saved_tensors
        slope = grads[0].contiguous()
        out = slope.new_empty(*slope.shape[:3], 3)
        n = keep.numel()
        with torch.cuda.device(slope.device):
            pictures.paint_backward_kernel[(triton.cdiv(n, _BLOCK),)](slope, keep, out, n, BLOCK=_BLOCK)
        return out, None, None, None, None, None, None


def picture_loss(
    painted: Tensor, target: Tensor, count: Tensor, photo: float, silhouette: float
) -> tuple[Tensor, Tensor]:
    """See `photometric.picture_loss`."""
    slope, value = torch.empty_like(painted), torch.zeros((), device=painted.device)
    n = painted.numel() // 4
    scale = 1.0 if target.is_floating_point() else 1 / 255
    with torch.cuda.device(painted.device):
        pictures.picture_loss_kernel[(triton.cdiv(n, _BLOCK),)](
            painted.contiguous(),
            target.contiguous(),
            count,
            value,
            slope,
            n,
            scale,
            photo,
            silhouette,
            BLOCK=_BLOCK,
        )
    return value, slope


def add_total_variation(
    texture: Tensor, along: float, across: float, slope: Tensor, mask: Tensor | None, count: Tensor | None
) -> Tensor:
    """See `texture.add_total_variation`; `along`, `across` and `count` are its `variation_shares`."""
    rows, columns, _ = texture.shape
    value = torch.zeros((), device=texture.device)
    masked = mask is not None and count is not None
    with torch.cuda.device(texture.device):
        pictures.variation_kernel[(triton.cdiv(texture.numel(), _BLOCK),)](
            texture.contiguous(),
            mask.contiguous() if mask is not None and masked else value,  # without a mask any pointer: not read
            count if masked else value,
            slope,
            value,
            rows,
            columns,
            along,
            across,
            MASKED=masked,
            BLOCK=_BLOCK,
        )
    return value


def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    count: Tensor,
    factor: Tensor,
    rate: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """See `adam.Adam`; all tensors contiguous, `parameter`, `mean` and `square` written in place."""
    n = parameter.numel()
    with torch.cuda.device(parameter.device):
        pictures.adam_kernel[(triton.cdiv(n, _BLOCK),)](
            parameter,
            gradient.contiguous(),
            mean,
            square,
            count,
            factor,
            n,
            rate,
            *betas,
            math.log(betas[0]),
            math.log(betas[1]),
            eps,
            BLOCK=_BLOCK,
        )
