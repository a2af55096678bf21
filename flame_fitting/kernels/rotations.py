"""Axis-angle rotations, forward and backward; launched by `head/fused.py`."""

import triton
import triton.language as tl


@triton.jit
def forward_kernel(axis_angle, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    x = tl.load(axis_angle + i * 3 + 0, mask=inside, other=0.0)
    y = tl.load(axis_angle + i * 3 + 1, mask=inside, other=0.0)
    z = tl.load(axis_angle + i * 3 + 2, mask=inside, other=0.0)
    q = x * x + y * y + z * z
    small = q < 1e-8
    safe = tl.where(small, 1.0, q)
    angle = tl.sqrt(safe)
    s = tl.where(small, 1 - q / 6, tl.sin(angle) / angle)
    c = tl.where(small, 0.5 - q / 24, (1 - tl.cos(angle)) / safe)
    # I + s K + c K^2 with K^2 = r r^T - q I
    tl.store(out + i * 9 + 0, 1 + c * (x * x - q), mask=inside)
    tl.store(out + i * 9 + 1, c * x * y - s * z, mask=inside)
    tl.store(out + i * 9 + 2, c * x * z + s * y, mask=inside)
    tl.store(out + i * 9 + 3, c * x * y + s * z, mask=inside)
    tl.store(out + i * 9 + 4, 1 + c * (y * y - q), mask=inside)
    tl.store(out + i * 9 + 5, c * y * z - s * x, mask=inside)
    tl.store(out + i * 9 + 6, c * x * z - s * y, mask=inside)
    tl.store(out + i * 9 + 7, c * y * z + s * x, mask=inside)
    tl.store(out + i * 9 + 8, 1 + c * (z * z - q), mask=inside)


@triton.jit
def backward_kernel(axis_angle, slope, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    x = tl.load(axis_angle + i * 3 + 0, mask=inside, other=0.0)
    y = tl.load(axis_angle + i * 3 + 1, mask=inside, other=0.0)
    z = tl.load(axis_angle + i * 3 + 2, mask=inside, other=0.0)
    q = x * x + y * y + z * z
    small = q < 1e-4  # the derivatives cancel earlier than the functions do
    safe = tl.where(small, 1.0, q)
    angle = tl.sqrt(safe)
    s = tl.where(small, 1 - q / 6 + q * q / 120, tl.sin(angle) / angle)
    c = tl.where(small, 0.5 - q / 24 + q * q / 720, (1 - tl.cos(angle)) / safe)
    ds = tl.where(small, -1.0 / 6 + q / 60, (tl.cos(angle) - s) / (2 * safe))
    dc = tl.where(small, -1.0 / 24 + q / 360, (0.5 * s - c) / safe)
    g00 = tl.load(slope + i * 9 + 0, mask=inside, other=0.0)
    g01 = tl.load(slope + i * 9 + 1, mask=inside, other=0.0)
    g02 = tl.load(slope + i * 9 + 2, mask=inside, other=0.0)
    g10 = tl.load(slope + i * 9 + 3, mask=inside, other=0.0)
    g11 = tl.load(slope + i * 9 + 4, mask=inside, other=0.0)
    g12 = tl.load(slope + i * 9 + 5, mask=inside, other=0.0)
    g20 = tl.load(slope + i * 9 + 6, mask=inside, other=0.0)
    g21 = tl.load(slope + i * 9 + 7, mask=inside, other=0.0)
    g22 = tl.load(slope + i * 9 + 8, mask=inside, other=0.0)
    wx, wy, wz = g21 - g12, g02 - g20, g10 - g01
    xy, xz, yz = g01 + g10, g02 + g20, g12 + g21
    trace = g00 + g11 + g22
    # <G, K> and <G, K^2>
    along = wx * x + wy * y + wz * z
    square = g00 * x * x + g11 * y * y + g22 * z * z + xy * x * y + xz * x * z + yz * y * z - trace * q
    common = 2 * (ds * along + dc * square) - 2 * c * trace
    tl.store(out + i * 3 + 0, s * wx + c * (2 * g00 * x + xy * y + xz * z) + common * x, mask=inside)
    tl.store(out + i * 3 + 1, s * wy + c * (2 * g11 * y + xy * x + yz * z) + common * y, mask=inside)
    tl.store(out + i * 3 + 2, s * wz + c * (2 * g22 * z + xz * x + yz * y) + common * z, mask=inside)
