"""The per-pixel operations of a photometric step as one Triton kernel each; `photometric.py` and `texture.py` have the
references."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 512


# Pixels are loaded as rows of four channels: whole 16-byte words, where one channel at a time would be four passes.


@triton.jit
def _paint_kernel(
    color, background, triangle, clusters, thresholds, pools, out, keep_out,
    n, triangle_stride, background_scale, pool_size, seed,
    BACKGROUND: tl.constexpr, PERTURB: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, 4)[None, :]
    inside, is_color = i < n, channel < 3
    face = tl.load(triangle + i * triangle_stride, mask=inside, other=0.0).to(tl.int32)
    drawn = face > 0
    behind = tl.load(background + i[:, None] * BACKGROUND + channel, mask=inside[:, None] & is_color, other=0)
    value = behind.to(tl.float32) * background_scale
    keep = drawn
    if PERTURB:
        row = tl.load(clusters + face, mask=inside, other=0)
        limit = tl.load(thresholds + row, mask=inside, other=0)
        noise, pick, _, _ = tl.randint4x(tl.load(seed), i.to(tl.int32))
        replaced = (noise & 65535) < limit
        at = (row * pool_size + (pick & (pool_size - 1))) * 3
        donor = tl.load(pools + at[:, None] + channel, mask=(inside & replaced)[:, None] & is_color, other=0.0)
        value = tl.where(replaced[:, None], donor, value)
        keep = drawn & (replaced == 0)
    own = tl.load(color + i[:, None] * 3 + channel, mask=(inside & keep)[:, None] & is_color, other=0.0)
    value = tl.where(keep[:, None], own, value)
    value = tl.where(is_color, value, drawn.to(tl.float32)[:, None])
    tl.store(out + i[:, None] * 4 + channel, value, mask=inside[:, None] & (channel >= 0))
    tl.store(keep_out + i, keep.to(tl.int8), mask=inside)


@triton.jit
def _paint_backward_kernel(slope, keep, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, 4)[None, :]
    inside = i < n
    kept = (tl.load(keep + i, mask=inside, other=0) != 0) & inside
    value = tl.load(slope + i[:, None] * 4 + channel, mask=kept[:, None] & (channel >= 0), other=0.0)
    tl.store(out + i[:, None] * 3 + channel, value, mask=inside[:, None] & (channel < 3))


@triton.jit
def _picture_loss_kernel(painted, target, count, value, slope, n, target_scale, photo, silhouette, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, 4)[None, :]
    at, inside = i[:, None] * 4 + channel, (i < n)[:, None] & (channel >= 0)
    total = 1.0 / tl.load(count)
    shown = tl.load(painted + at, mask=inside, other=0.0)
    wanted = tl.load(target + at, mask=inside, other=0).to(tl.float32) * target_scale
    is_alpha = channel == 3
    drawn = tl.sum(tl.where(is_alpha, shown, 0.0), axis=1) > 0
    difference = shown - wanted
    sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
    pictures = sign * tl.where(drawn, photo / 3.0 * total, 0.0)[:, None]
    outside = (1.0 - wanted) * (silhouette * total)
    out = tl.where(is_alpha, outside, pictures)
    tl.store(slope + at, out, mask=inside)
    sum = tl.where(inside, out * tl.where(is_alpha, shown, difference), 0.0)
    tl.atomic_add(value, tl.sum(tl.sum(sum, axis=1), axis=0))


@triton.jit
def _variation_kernel(
    texture, mask, count, slope, value, rows, columns, along, across,
    MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    size = columns * 3
    inside = i < rows * size
    row, at = i // size, i % size
    here = tl.load(texture + i, mask=inside, other=0.0)
    has_up, has_down = inside & (row > 0), inside & (row < rows - 1)
    has_left, has_right = inside & (at >= 3), inside & (at < size - 3)
    up = tl.where(has_up, here - tl.load(texture + i - size, mask=has_up, other=0.0), 0.0) * along
    down = tl.where(has_down, here - tl.load(texture + i + size, mask=has_down, other=0.0), 0.0)
    left = tl.where(has_left, here - tl.load(texture + i - 3, mask=has_left, other=0.0), 0.0) * across
    right = tl.where(has_right, here - tl.load(texture + i + 3, mask=has_right, other=0.0), 0.0)
    pull_down, pull_right = down * along, right * across
    if MASKED:
        texel = i // 3
        own = tl.load(mask + texel, mask=inside, other=0.0) / tl.load(count)
        up *= own * tl.load(mask + texel - columns, mask=has_up, other=0.0)
        pull_down *= own * tl.load(mask + texel + columns, mask=has_down, other=0.0)
        left *= own * tl.load(mask + texel - 1, mask=has_left, other=0.0)
        pull_right *= own * tl.load(mask + texel + 1, mask=has_right, other=0.0)
    before = tl.load(slope + i, mask=inside, other=0.0)
    tl.store(slope + i, before + 2 * (up + pull_down + left + pull_right), mask=inside)
    tl.atomic_add(value, tl.sum(tl.where(inside, down * pull_down + right * pull_right, 0.0), axis=0))


@triton.jit
def _adam_kernel(
    parameter, gradient, mean, square, count, factor, n, rate, beta1, beta2, log_beta1, log_beta2, eps,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    steps = tl.load(count)
    g = tl.load(gradient + i, mask=inside, other=0.0)
    m = beta1 * tl.load(mean + i, mask=inside, other=0.0) + (1 - beta1) * g
    v = beta2 * tl.load(square + i, mask=inside, other=0.0) + (1 - beta2) * g * g
    tl.store(mean + i, m, mask=inside)
    tl.store(square + i, v, mask=inside)
    m = m / (1 - tl.exp(steps * log_beta1))
    v = v / (1 - tl.exp(steps * log_beta2))
    before = tl.load(parameter + i, mask=inside, other=0.0)
    tl.store(parameter + i, before - rate * tl.load(factor) * m / (tl.sqrt(v) + eps), mask=inside)


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
            _paint_kernel[(triton.cdiv(n, _BLOCK),)](
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
            _paint_backward_kernel[(triton.cdiv(n, _BLOCK),)](slope, keep, out, n, BLOCK=_BLOCK)
        return out, None, None, None, None, None, None


def picture_loss(
    painted: Tensor, target: Tensor, count: Tensor, photo: float, silhouette: float
) -> tuple[Tensor, Tensor]:
    """See `photometric.picture_loss`."""
    slope, value = torch.empty_like(painted), torch.zeros((), device=painted.device)
    n = painted.numel() // 4
    scale = 1.0 if target.is_floating_point() else 1 / 255
    with torch.cuda.device(painted.device):
        _picture_loss_kernel[(triton.cdiv(n, _BLOCK),)](
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
        _variation_kernel[(triton.cdiv(texture.numel(), _BLOCK),)](
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
        _adam_kernel[(triton.cdiv(n, _BLOCK),)](
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
