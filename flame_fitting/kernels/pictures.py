"""The per-pixel operations of a photometric step; launched by `fit/losses/fused.py`."""

import triton
import triton.language as tl

# Pixels are loaded as rows of four channels: whole 16-byte words, where one channel at a time would be four passes.


@triton.jit
def paint_kernel(
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
def paint_backward_kernel(slope, keep, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, 4)[None, :]
    inside = i < n
    kept = (tl.load(keep + i, mask=inside, other=0) != 0) & inside
    value = tl.load(slope + i[:, None] * 4 + channel, mask=kept[:, None] & (channel >= 0), other=0.0)
    tl.store(out + i[:, None] * 3 + channel, value, mask=inside[:, None] & (channel < 3))


@triton.jit
def picture_loss_kernel(painted, target, count, value, slope, n, target_scale, photo, silhouette, BLOCK: tl.constexpr):
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
def variation_kernel(
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
def adam_kernel(
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
