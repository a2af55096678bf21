"""Numba kernels: texture filtering and its gradients.

A mip pyramid is flat: texel (t, y, x) of level lv starts at offset[lv] + ((t * height[lv] + y) * width[lv] + x) * C.
Colours are not copied for it: level 0 is the texture itself, and the array `mips` begins with level 1. Gradients of all
levels are one array.

Gradients of texels: pixels are sorted by level and by band of texel rows, keeping their order, and each band is
summed by one task. A band's lower neighbour row is summed apart (its halo) and added afterwards. The order of every sum
is that of the pixels, whatever the number of threads, and no copy of the texture per thread is needed.
"""

import math
from typing import no_type_check

import numpy as np

from flame_fitting.render.jit import inline, kernel

NEAREST, LINEAR, MIPMAP = 0, 1, 2
CLAMP, WRAP, ZERO = 0, 1, 2
ACCUMULATE_TASKS = 64


@inline
@no_type_check
def _downsample_row(src, src_at, src_height, src_width, n_channels, y, dst, dst_at, dst_width):
    step_y = 2 if src_height > 1 else 1
    step_x = 2 if src_width > 1 else 1
    weight = np.float32(1.0 / (step_x * step_y))
    if n_channels == 3 and step_x == 2 and step_y == 2:  # unrolled: it is most of the work
        upper = src_at + 2 * y * src_width * 3
        lower = upper + src_width * 3
        to = dst_at + y * dst_width * 3
        for x in range(dst_width):
            a, b, c = upper + 6 * x, lower + 6 * x, to + 3 * x
            dst[c] = (src[a] + src[a + 3] + src[b] + src[b + 3]) * weight
            dst[c + 1] = (src[a + 1] + src[a + 4] + src[b + 1] + src[b + 4]) * weight
            dst[c + 2] = (src[a + 2] + src[a + 5] + src[b + 2] + src[b + 5]) * weight
        return
    for x in range(dst_width):
        to = dst_at + (y * dst_width + x) * n_channels
        for k in range(n_channels):
            total = np.float32(0.0)
            for sy in range(step_y):
                for sx in range(step_x):
                    total += src[src_at + ((y * step_y + sy) * src_width + x * step_x + sx) * n_channels + k]
            dst[to + k] = total * weight


@kernel
@no_type_check
def build_first_mip(first, last, tex, mips, heights, widths, n_channels):
    """Fills level 1 with 2x2 means (2x1 where an extent is 1) of the flat texture. Tasks are its rows, over all
    textures."""
    for row in range(first, last):
        t = row // heights[1]
        _downsample_row(
            tex, t * heights[0] * widths[0] * n_channels, heights[0], widths[0], n_channels, row % heights[1],
            mips, t * heights[1] * widths[1] * n_channels, widths[1],
        )  # fmt: skip


@kernel
@no_type_check
def build_small_mips(first, last, mips, heights, widths, offsets, n_channels):
    """Fills the levels from 2 on. Tasks are textures: these levels are not worth more."""
    for t in range(first, last):
        for lv in range(2, heights.shape[0]):
            src = offsets[lv - 1] - offsets[1] + t * heights[lv - 1] * widths[lv - 1] * n_channels
            dst = offsets[lv] - offsets[1] + t * heights[lv] * widths[lv] * n_channels
            for y in range(heights[lv]):
                _downsample_row(
                    mips, src, heights[lv - 1], widths[lv - 1], n_channels, y, mips, dst, widths[lv]
                )  # fmt: skip


@inline
@no_type_check
def _pull_row(src_at, src_width, n_channels, y, data, dst_at, dst_height, dst_width):
    step_y = 1 if dst_height > 1 else 0
    step_x = 1 if dst_width > 1 else 0
    weight = np.float32(0.5 ** (step_x + step_y))
    row = src_at + (y >> step_y) * src_width * n_channels
    if n_channels == 3 and step_x == 1:  # unrolled, as above
        to = dst_at + y * dst_width * 3
        for x in range(src_width):
            a, b, c = data[row + 3 * x], data[row + 3 * x + 1], data[row + 3 * x + 2]
            if a == 0.0 and b == 0.0 and c == 0.0:
                continue  # most of a texture is not in the picture
            a, b, c = weight * a, weight * b, weight * c
            at = to + 6 * x
            data[at] += a
            data[at + 1] += b
            data[at + 2] += c
            data[at + 3] += a
            data[at + 4] += b
            data[at + 5] += c
        return
    for x in range(dst_width):
        to = dst_at + (y * dst_width + x) * n_channels
        for k in range(n_channels):
            data[to + k] += weight * data[row + (x >> step_x) * n_channels + k]


@kernel
@no_type_check
def pull_small_gradients(first, last, data, heights, widths, offsets, n_channels):
    """Adjoint of `build_small_mips`: adds each level's gradient to the one below, coarsest first, down to level 1."""
    for t in range(first, last):
        for lv in range(heights.shape[0] - 1, 1, -1):
            for y in range(heights[lv - 1]):
                _pull_row(
                    offsets[lv] + t * heights[lv] * widths[lv] * n_channels, widths[lv], n_channels, y,
                    data, offsets[lv - 1] + t * heights[lv - 1] * widths[lv - 1] * n_channels,
                    heights[lv - 1], widths[lv - 1],
                )  # fmt: skip


@kernel
@no_type_check
def pull_first_gradient(first, last, data, heights, widths, offsets, n_channels):
    """Adjoint of `build_first_mip`. Tasks are the rows of level 0, over all textures."""
    for row in range(first, last):
        t = row // heights[0]
        _pull_row(
            offsets[1] + t * heights[1] * widths[1] * n_channels, widths[1], n_channels, row % heights[0],
            data, t * heights[0] * widths[0] * n_channels, heights[0], widths[0],
        )  # fmt: skip


@inline
@no_type_check
def _axis(t, n, boundary):
    """The two texels around coordinate t along an axis of n texels, and the weight of the second. -1 is outside.

    Non-finite coordinates go to the border: the kernels do no bounds checks.
    """
    size = np.float32(n)
    half = np.float32(0.5)
    if boundary == CLAMP:
        s = t * size - half
        if not s > np.float32(0.0):
            return np.int64(0), np.int64(0), np.float32(0.0)
        if s >= size - np.float32(1.0):
            return np.int64(n - 1), np.int64(n - 1), np.float32(0.0)
        i = np.int64(s)
        return i, i + 1, s - np.float32(i)
    if boundary == WRAP:
        t = t - np.float32(math.floor(t))
        if not (t >= np.float32(0.0) and t <= np.float32(1.0)):
            t = np.float32(0.0)
        s = t * size - half
        floor = np.float32(math.floor(s))
        i = np.int64(floor)
        j = i + 1
        if i < 0:
            i += n
        if j >= n:
            j -= n
        return min(i, np.int64(n - 1)), j, s - floor
    s = t * size - half
    if not (s > np.float32(-1.0) and s < size):
        return np.int64(-1), np.int64(-1), np.float32(0.0)
    floor = np.float32(math.floor(s))
    i = np.int64(floor)
    j = i + 1
    return i, (j if j < n else np.int64(-1)), s - floor


@inline
@no_type_check
def _axis_nearest(t, n, boundary):
    """The texel at coordinate t along an axis of n texels; -1 is outside."""
    if boundary == WRAP:
        t = t - np.float32(math.floor(t))
    s = t * np.float32(n)
    if boundary == ZERO and not (s >= np.float32(0.0) and s < np.float32(n)):
        return np.int64(-1)
    if not s > np.float32(0.0):
        return np.int64(0)
    if s >= np.float32(n):
        return np.int64(n - 1)
    return np.int64(s)


@inline
@no_type_check
def _footprint(uv_da, b, j, i, height, width):
    """The texel footprint J = d(texel)/d(pixel): its entries and the pieces of the eigenvalues of J^T J."""
    sx = uv_da[b, j, i, 0] * np.float32(width)
    sy = uv_da[b, j, i, 1] * np.float32(width)
    tx = uv_da[b, j, i, 2] * np.float32(height)
    ty = uv_da[b, j, i, 3] * np.float32(height)
    xx = sx * sx + tx * tx
    yy = sy * sy + ty * ty
    xy = sx * sy + tx * ty
    half = np.float32(0.5)
    mean = half * (xx + yy)
    diff = half * (xx - yy)
    radius2 = diff * diff + xy * xy
    return sx, sy, tx, ty, xy, mean, diff, radius2


@inline
@no_type_check
def _mip_level(uv_da, b, j, i, height, width, max_level):
    """log2 of the footprint's major axis in texels, within 0 and max_level (nan and inf too)."""
    _, _, _, _, _, mean, _, radius2 = _footprint(uv_da, b, j, i, height, width)
    level = np.float32(0.5) * np.float32(math.log2(mean + np.float32(math.sqrt(radius2))))
    if not level > np.float32(0.0):
        return np.float32(0.0)
    return min(level, np.float32(max_level))


@inline
@no_type_check
def _fetch(data, base, y, x, width, n_channels, k):
    if y < 0 or x < 0:
        return np.float32(0.0)
    return data[base + (y * width + x) * n_channels + k]


@inline
@no_type_check
def _sample(data, base, height, width, n_channels, u, v, boundary, scale, out, b, j, i, add):
    """out[b, j, i] = (or +=) scale * bilinear sample of the texture that starts at data[base]."""
    x0, x1, wx = _axis(u, width, boundary)
    y0, y1, wy = _axis(v, height, boundary)
    w11 = wx * wy
    w10 = wx - w11
    w01 = wy - w11
    w00 = np.float32(1.0) - wx - w01
    if x0 >= 0 and y0 >= 0 and x1 >= 0 and y1 >= 0:
        w00, w10, w01, w11 = scale * w00, scale * w10, scale * w01, scale * w11
        p00 = base + (y0 * width + x0) * n_channels
        p10 = base + (y0 * width + x1) * n_channels
        p01 = base + (y1 * width + x0) * n_channels
        p11 = base + (y1 * width + x1) * n_channels
        if n_channels == 3:  # unrolled: a loop of unknown length costs more than its work
            r = w00 * data[p00] + w10 * data[p10] + w01 * data[p01] + w11 * data[p11]
            g = w00 * data[p00 + 1] + w10 * data[p10 + 1] + w01 * data[p01 + 1] + w11 * data[p11 + 1]
            c = w00 * data[p00 + 2] + w10 * data[p10 + 2] + w01 * data[p01 + 2] + w11 * data[p11 + 2]
            if add:
                r += out[b, j, i, 0]
                g += out[b, j, i, 1]
                c += out[b, j, i, 2]
            out[b, j, i, 0] = r
            out[b, j, i, 1] = g
            out[b, j, i, 2] = c
            return
        for k in range(n_channels):
            value = w00 * data[p00 + k] + w10 * data[p10 + k] + w01 * data[p01 + k] + w11 * data[p11 + k]
            out[b, j, i, k] = out[b, j, i, k] + value if add else value
        return
    for k in range(n_channels):
        value = w00 * _fetch(data, base, y0, x0, width, n_channels, k)
        value += w10 * _fetch(data, base, y0, x1, width, n_channels, k)
        value += w01 * _fetch(data, base, y1, x0, width, n_channels, k)
        value += w11 * _fetch(data, base, y1, x1, width, n_channels, k)
        out[b, j, i, k] = out[b, j, i, k] + scale * value if add else scale * value


@inline
@no_type_check
def _same_footprint(uv_da, mode, b, j, i):
    if mode != MIPMAP:
        return True
    same = uv_da[b, j, i, 0] == uv_da[b, j, i - 1, 0] and uv_da[b, j, i, 1] == uv_da[b, j, i - 1, 1]
    return same and uv_da[b, j, i, 2] == uv_da[b, j, i - 1, 2] and uv_da[b, j, i, 3] == uv_da[b, j, i - 1, 3]


@kernel
@no_type_check
def texture_forward(
    first, last, tex, mips, heights, widths, offsets, n_textures, uv, uv_da, mode, boundary, out, level
):
    """Fills out (B, H, W, C), and in MIPMAP mode level (B, H, W), the fractional mip level."""
    height, width, n_channels = out.shape[1], out.shape[2], out.shape[3]
    max_level = heights.shape[0] - 1
    h0, w0 = heights[0], widths[0]
    one = np.float32(1.0)
    for row in range(first, last):
        b = row // height
        j = row % height
        t = 0 if n_textures == 1 else b
        tex_at = t * h0 * w0 * n_channels
        for i in range(width):
            u, v = uv[b, j, i, 0], uv[b, j, i, 1]
            # Empty parts of pictures have one coordinate: repeat the pixel before.
            if i > 0 and u == uv[b, j, i - 1, 0] and v == uv[b, j, i - 1, 1] and _same_footprint(uv_da, mode, b, j, i):
                for k in range(n_channels):
                    out[b, j, i, k] = out[b, j, i - 1, k]
                if mode == MIPMAP:
                    level[b, j, i] = level[b, j, i - 1]
                continue
            if mode == NEAREST:
                x = _axis_nearest(u, w0, boundary)
                y = _axis_nearest(v, h0, boundary)
                for k in range(n_channels):
                    out[b, j, i, k] = _fetch(tex, tex_at, y, x, w0, n_channels, k)
                continue
            l0 = 0
            fraction = np.float32(0.0)
            if mode == MIPMAP:
                fine = _mip_level(uv_da, b, j, i, h0, w0, max_level)
                level[b, j, i] = fine
                l0 = np.int64(fine)
                fraction = fine - np.float32(l0)
            for step in range(2 if fraction > 0.0 else 1):
                lv = l0 + step
                weight = fraction if step else one - fraction
                if lv == 0:
                    _sample(tex, tex_at, h0, w0, n_channels, u, v, boundary, weight, out, b, j, i, False)
                    continue
                at = offsets[lv] - offsets[1] + t * heights[lv] * widths[lv] * n_channels
                _sample(mips, at, heights[lv], widths[lv], n_channels, u, v, boundary, weight, out, b, j, i, step > 0)


@inline
@no_type_check
def _sample_gradient(data, base, height, width, n_channels, u, v, boundary, grad, b, j, i):
    """For the bilinear sample s and the incoming gradient g: (g . ds/du, g . ds/dv, g . s)."""
    x0, x1, wx = _axis(u, width, boundary)
    y0, y1, wy = _axis(v, height, boundary)
    gu = np.float32(0.0)
    gv = np.float32(0.0)
    gs = np.float32(0.0)
    if n_channels == 3 and x0 >= 0 and y0 >= 0 and x1 >= 0 and y1 >= 0:
        p00 = base + (y0 * width + x0) * 3
        p10 = base + (y0 * width + x1) * 3
        p01 = base + (y1 * width + x0) * 3
        p11 = base + (y1 * width + x1) * 3
        g0, g1, g2 = grad[b, j, i, 0], grad[b, j, i, 1], grad[b, j, i, 2]
        # The sample is linear in the texels: weigh the channels first.
        t00 = g0 * data[p00] + g1 * data[p00 + 1] + g2 * data[p00 + 2]
        t10 = g0 * data[p10] + g1 * data[p10 + 1] + g2 * data[p10 + 2]
        t01 = g0 * data[p01] + g1 * data[p01 + 1] + g2 * data[p01 + 2]
        t11 = g0 * data[p11] + g1 * data[p11 + 1] + g2 * data[p11 + 2]
        mixed = t11 + t00 - t10 - t01
        gu = t10 - t00 + wy * mixed
        gv = t01 - t00 + wx * mixed
        gs = t00 + wx * (t10 - t00) + wy * gv
        return gu * np.float32(width), gv * np.float32(height), gs
    for k in range(n_channels):
        g = grad[b, j, i, k]
        t00 = _fetch(data, base, y0, x0, width, n_channels, k)
        t10 = _fetch(data, base, y0, x1, width, n_channels, k)
        t01 = _fetch(data, base, y1, x0, width, n_channels, k)
        t11 = _fetch(data, base, y1, x1, width, n_channels, k)
        mixed = t11 + t00 - t10 - t01
        gu += g * (t10 - t00 + wy * mixed)
        gv += g * (t01 - t00 + wx * mixed)
        gs += g * (t00 + wx * (t10 - t00) + wy * (t01 - t00 + wx * mixed))
    return gu * np.float32(width), gv * np.float32(height), gs


@inline
@no_type_check
def _row_bin(v, height, boundary, mode, shift):
    """The band of texel rows that a sample at v writes to, by its upper row."""
    y = _axis_nearest(v, height, boundary) if mode == NEAREST else _axis(v, height, boundary)[0]
    return max(y, 0) >> shift


@inline
@no_type_check
def _any(grad, b, j, i):
    for k in range(grad.shape[3]):  # noqa: SIM110 (Numba has no generators)
        if grad[b, j, i, k] != 0.0:
            return True
    return False


@kernel
@no_type_check
def coordinate_gradients(
    first, last, tex, mips, heights, widths, offsets, n_textures, uv, uv_da, level, mode, boundary, grad,
    grad_uv, grad_da,
):  # fmt: skip
    """Gradients of the texture coordinates (B, H, W, 2) and, unless empty, of their derivatives (B, H, W, 4).

    With the level lv = log2(m + r) / 2, m the mean and r the half difference of the eigenvalues of J^T J.
    """
    height, width, n_channels = grad.shape[1], grad.shape[2], grad.shape[3]
    h0, w0 = heights[0], widths[0]
    half_log2e = np.float32(0.5 / math.log(2.0))
    one = np.float32(1.0)
    need_da = grad_da.shape[0] > 0
    for row in range(first, last):
        b = row // height
        j = row % height
        t = 0 if n_textures == 1 else b
        for i in range(width):
            gu = np.float32(0.0)
            gv = np.float32(0.0)
            g0 = g1 = g2 = g3 = np.float32(0.0)
            if mode != NEAREST and _any(grad, b, j, i):
                u, v = uv[b, j, i, 0], uv[b, j, i, 1]
                l0 = 0
                fraction = np.float32(0.0)
                if mode == MIPMAP:
                    l0 = np.int64(level[b, j, i])
                    fraction = level[b, j, i] - np.float32(l0)
                slope = np.float32(0.0)
                for step in range(2 if fraction > 0.0 else 1):
                    lv = l0 + step
                    if lv == 0:
                        du, dv, value = _sample_gradient(
                            tex, t * h0 * w0 * n_channels, h0, w0, n_channels, u, v, boundary, grad, b, j, i
                        )
                    else:
                        at = offsets[lv] - offsets[1] + t * heights[lv] * widths[lv] * n_channels
                        du, dv, value = _sample_gradient(
                            mips, at, heights[lv], widths[lv], n_channels, u, v, boundary, grad, b, j, i
                        )
                    weight = fraction if step else one - fraction
                    gu += weight * du
                    gv += weight * dv
                    slope = value - slope
                if fraction > 0.0 and need_da:
                    sx, sy, tx, ty, xy, mean, diff, radius2 = _footprint(uv_da, b, j, i, h0, w0)
                    radius = np.float32(math.sqrt(radius2))
                    # d lv / d(m + r) = 1 / (2 ln 2 (m + r)); r has no derivative where the footprint is round.
                    if radius > 0.0:
                        c = slope * half_log2e / (radius2 + radius * mean)
                        g0 = c * np.float32(w0) * (sx * (radius + diff) + sy * xy)
                        g1 = c * np.float32(w0) * (sy * (radius - diff) + sx * xy)
                        g2 = c * np.float32(h0) * (tx * (radius + diff) + ty * xy)
                        g3 = c * np.float32(h0) * (ty * (radius - diff) + tx * xy)
                        if not (math.isfinite(g0) and math.isfinite(g1) and math.isfinite(g2 + g3)):
                            g0 = g1 = g2 = g3 = np.float32(0.0)
            grad_uv[b, j, i, 0] = gu
            grad_uv[b, j, i, 1] = gv
            if need_da:
                grad_da[b, j, i, 0] = g0
                grad_da[b, j, i, 1] = g1
                grad_da[b, j, i, 2] = g2
                grad_da[b, j, i, 3] = g3


@kernel
@no_type_check
def bin_pixels(
    first, last, heights, n_textures, uv, level, mode, boundary, grad, shifts, first_bin, n_bins, n_bands, cursor, items
):
    """Sorts pixels by the band of texel rows they write to.

    Run once with empty `items` to count into cursor (B * n_bands, n_textures * n_bins), and again with the start
    positions in `cursor` to fill `items` with pixel indices.
    """
    height, width = grad.shape[1], grad.shape[2]
    fill = items.shape[0] > 0
    for task in range(first, last):
        b = task // n_bands
        band = task % n_bands
        first = 0 if n_textures == 1 else b * n_bins
        for j in range(height * band // n_bands, height * (band + 1) // n_bands):
            for i in range(width):
                if not _any(grad, b, j, i):
                    continue
                v = uv[b, j, i, 1]
                l0 = 0
                fraction = np.float32(0.0)
                if mode == MIPMAP:
                    l0 = np.int64(level[b, j, i])
                    fraction = level[b, j, i] - np.float32(l0)
                q = first + first_bin[l0] + _row_bin(v, heights[l0], boundary, mode, shifts[l0])
                if fill:
                    items[cursor[task, q]] = (b * height + j) * width + i
                cursor[task, q] += 1
                if fraction > 0.0:
                    l1 = l0 + 1
                    q = first + first_bin[l1] + _row_bin(v, heights[l1], boundary, mode, shifts[l1])
                    if fill:
                        items[cursor[task, q]] = (b * height + j) * width + i
                    cursor[task, q] += 1


@inline
@no_type_check
def _add_texel(data, row_at, column, n_channels, weight, grad, p):
    """Adds weight * grad[p] to a texel of the row that starts at data[row_at]; negative is outside."""
    if row_at < 0 or column < 0:
        return
    at = row_at + column * n_channels
    if n_channels == 3:
        data[at] += weight * grad[p, 0]
        data[at + 1] += weight * grad[p, 1]
        data[at + 2] += weight * grad[p, 2]
        return
    for k in range(n_channels):
        data[at + k] += weight * grad[p, k]


@kernel
@no_type_check
def accumulate_texels(
    first, last, data, heights, widths, offsets, halo_offsets, n_channels, shifts, first_bin, n_bins, mode, boundary,
    uv, level, grad, items, starts,
):  # fmt: skip
    """Adds the pixels of every bin to its band of texel rows, or to the bin's halo row.

    data holds all levels and the halos; uv (P, 2), level (P,) and grad (P, C) are flat over pixels; starts (bins + 1,).
    Tasks are ACCUMULATE_TASKS groups of bins.
    """
    one = np.float32(1.0)
    n_total = starts.shape[0] - 1
    for task in range(first, last):
        # Bins in turn: the busy ones lie next to each other.
        for q in range(task, n_total, ACCUMULATE_TASKS):
            if starts[q] == starts[q + 1]:
                continue
            lv, row0, row1, base, halo = _bin_target(
                q, heights, widths, offsets, halo_offsets, n_channels, shifts, first_bin, n_bins
            )
            height, width = heights[lv], widths[lv]
            stride = width * n_channels
            for n in range(starts[q], starts[q + 1]):
                p = items[n]
                u, v = uv[p, 0], uv[p, 1]
                if mode == NEAREST:
                    y = _axis_nearest(v, height, boundary)
                    row = base + y * stride if y >= 0 else np.int64(-1)
                    _add_texel(data, row, _axis_nearest(u, width, boundary), n_channels, one, grad, p)
                    continue
                scale = one
                if mode == MIPMAP:
                    l0 = np.int64(level[p])
                    fraction = level[p] - np.float32(l0)
                    scale = one - fraction if lv == l0 else fraction
                x0, x1, wx = _axis(u, width, boundary)
                y0, y1, wy = _axis(v, height, boundary)
                w11 = wx * wy * scale
                w10 = wx * scale - w11
                w01 = wy * scale - w11
                w00 = scale - wx * scale - w01
                at0 = base + y0 * stride if y0 >= 0 else np.int64(-1)
                at1 = base + y1 * stride if y1 >= 0 else np.int64(-1)
                if y1 >= 0 and (y1 < row0 or y1 >= row1):
                    at1 = halo
                _add_texel(data, at0, x0, n_channels, w00, grad, p)
                _add_texel(data, at0, x1, n_channels, w10, grad, p)
                _add_texel(data, at1, x0, n_channels, w01, grad, p)
                _add_texel(data, at1, x1, n_channels, w11, grad, p)


@inline
@no_type_check
def _bin_target(q, heights, widths, offsets, halo_offsets, n_channels, shifts, first_bin, n_bins):
    """Of bin q: level, first row and row after the last, where the texture's level and where the halo row start."""
    t = q // n_bins
    local = q % n_bins
    lv = heights.shape[0] - 1
    while first_bin[lv] > local:
        lv -= 1
    row0 = (local - first_bin[lv]) << shifts[lv]
    row1 = min(row0 + (1 << shifts[lv]), heights[lv])
    return lv, row0, row1, offsets[lv] + t * heights[lv] * widths[lv] * n_channels, halo_offsets[q]


@kernel
@no_type_check
def add_halos(first, last, data, heights, widths, offsets, halo_offsets, n_channels, shifts, first_bin, n_bins, starts):
    """Adds each band's halo to the row below the band (to row 0 from the last band, for wrapping). Tasks are bins."""
    for q in range(first, last):
        if starts[q] == starts[q + 1]:
            continue
        lv, _, row1, base, halo = _bin_target(
            q, heights, widths, offsets, halo_offsets, n_channels, shifts, first_bin, n_bins
        )
        at = base + (row1 % heights[lv]) * widths[lv] * n_channels
        for k in range(widths[lv] * n_channels):
            data[at + k] += data[halo + k]
