"""Texture filtering against a plain torch implementation, values and gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flame_fitting.render.cpu import CpuRasterizer
from flame_fitting.render.jit import set_threads

RASTERIZER = CpuRasterizer()


def bilinear(tex: Tensor, uv: Tensor, boundary: str) -> Tensor:
    """tex (B, Ht, Wt, C), uv (B, H, W, 2)."""
    height, width = tex.shape[1:3]
    view = torch.arange(tex.shape[0])[:, None, None]
    u, v = uv.unbind(-1)
    if boundary == "wrap":
        u, v = u - u.detach().floor(), v - v.detach().floor()
    x, y = u * width - 0.5, v * height - 0.5
    if boundary == "clamp":
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    x0, y0 = x.detach().floor(), y.detach().floor()
    wx, wy = (x - x0)[..., None], (y - y0)[..., None]

    def texel(dy: int, dx: int) -> Tensor:
        column, row = x0.long() + dx, y0.long() + dy
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        if boundary == "wrap":
            value = tex[view, row % height, column % width]
        else:
            value = tex[view, row.clamp(0, height - 1), column.clamp(0, width - 1)]
        return value * inside[..., None] if boundary == "zero" else value

    top = texel(0, 0) * (1 - wx) + texel(0, 1) * wx
    bottom = texel(1, 0) * (1 - wx) + texel(1, 1) * wx
    return top * (1 - wy) + bottom * wy


def box_mips(tex: Tensor, max_level: int | None) -> list[Tensor]:
    levels = [tex]
    while max(levels[-1].shape[1:3]) > 1 and (max_level is None or len(levels) <= max_level):
        size = (min(2, levels[-1].shape[1]), min(2, levels[-1].shape[2]))
        levels.append(F.avg_pool2d(levels[-1].permute(0, 3, 1, 2), size).permute(0, 2, 3, 1))
    return levels


def trilinear(tex: Tensor, uv: Tensor, uv_da: Tensor, boundary: str, max_level: int | None) -> Tensor:
    levels = box_mips(tex, max_level)
    scale = torch.tensor([tex.shape[2], tex.shape[2], tex.shape[1], tex.shape[1]], dtype=uv.dtype)
    jacobian = (uv_da * scale).unflatten(-1, (2, 2))  # rows s, t; columns X, Y
    gram = jacobian.transpose(-1, -2) @ jacobian
    # Larger eigenvalue in closed form.
    half_trace = 0.5 * (gram[..., 0, 0] + gram[..., 1, 1])
    root = (0.25 * (gram[..., 0, 0] - gram[..., 1, 1]).square() + gram[..., 0, 1].square()).sqrt()
    level = (0.5 * torch.log2(half_trace + root)).clamp(0, len(levels) - 1)
    samples = torch.stack([bilinear(t, uv, boundary) for t in levels])
    index = torch.arange(len(levels), dtype=uv.dtype)[:, None, None, None]
    weights = (1 - (level[None] - index).abs()).clamp(min=0)
    return (samples * weights[..., None]).sum(0)


def coordinates(n_views: int, height: int = 9, width: int = 11, seed: int = 0) -> tuple[Tensor, Tensor]:
    """uv beyond the unit square, and derivatives from magnification to the coarsest level."""
    generator = torch.Generator().manual_seed(seed)
    uv = torch.rand(n_views, height, width, 2, generator=generator) * 1.6 - 0.3
    size = 2.0 ** (torch.rand(n_views, height, width, 1, generator=generator) * 8 - 6.5)
    return uv, torch.randn(n_views, height, width, 4, generator=generator) * size


@pytest.mark.parametrize("boundary", ["clamp", "wrap", "zero"])
@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_bilinear_equals_the_reference(boundary: str, n_channels: int) -> None:
    torch.manual_seed(0)
    uv, _ = coordinates(2)
    tex = torch.randn(2, 10, 14, n_channels)
    weight = torch.randn(2, 9, 11, n_channels)
    tex_, uv_ = tex.clone().requires_grad_(True), uv.clone().requires_grad_(True)
    out = RASTERIZER.texture(tex_, uv_, boundary_mode=boundary)
    ours = torch.autograd.grad((out * weight).sum(), (tex_, uv_))
    tex_, uv_ = tex.double().requires_grad_(True), uv.double().requires_grad_(True)
    expected = bilinear(tex_, uv_, boundary)
    gradients = torch.autograd.grad((expected * weight).sum(), (tex_, uv_))
    torch.testing.assert_close(out, expected.float(), atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(ours, gradients, strict=True):
        torch.testing.assert_close(mine, theirs.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("boundary", ["clamp", "wrap", "zero"])
@pytest.mark.parametrize(("size", "max_level"), [((64, 32), None), ((48, 80), 3), ((96, 256), 2)])
@pytest.mark.parametrize("n_channels", [2, 3])
def test_trilinear_equals_the_reference(
    boundary: str, size: tuple[int, int], max_level: int | None, n_channels: int
) -> None:
    torch.manual_seed(1)
    uv, uv_da = coordinates(2, seed=1)
    tex = torch.randn(2, *size, n_channels)
    weight = torch.randn(2, 9, 11, n_channels)
    inputs = [t.clone().requires_grad_(True) for t in (tex, uv, uv_da)]
    out = RASTERIZER.texture(*inputs, boundary_mode=boundary, max_mip_level=max_level)
    ours = torch.autograd.grad((out * weight).sum(), inputs)
    inputs = [t.double().requires_grad_(True) for t in (tex, uv, uv_da)]
    expected = trilinear(*inputs, boundary, max_level)
    gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    torch.testing.assert_close(out, expected.float(), atol=2e-4, rtol=1e-4)
    for mine, theirs in zip(ours, gradients, strict=True):
        scale = float(theirs.abs().mean())
        torch.testing.assert_close(mine, theirs.float(), atol=2e-3 * scale + 1e-4, rtol=2e-3)


def test_mip_levels_are_box_filters() -> None:
    tex = torch.randn(1, 32, 16, 3)
    for level in range(6):
        mip = box_mips(tex, None)[level]
        height, width = mip.shape[1:3]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        uv = torch.stack([(x + 0.5) / width, (y + 0.5) / height], dim=-1)[None]
        footprint = 2.0**level
        uv_da = torch.tensor([footprint / 16, 0.0, 0.0, footprint / 32]).expand(1, height, width, 4)
        torch.testing.assert_close(RASTERIZER.texture(tex, uv, uv_da), mip, atol=1e-5, rtol=1e-5)


def test_nearest_takes_the_texel_and_sends_its_gradient_there() -> None:
    tex = torch.randn(1, 5, 7, 3, requires_grad=True)
    uv, _ = coordinates(1)
    out = RASTERIZER.texture(tex, uv, filter_mode="nearest")
    column = (uv[..., 0] * 7).floor().long().clamp(0, 6)
    row = (uv[..., 1] * 5).floor().long().clamp(0, 4)
    assert torch.equal(out, tex.detach()[0][row, column])
    weight = torch.randn_like(out)
    (gradient,) = torch.autograd.grad((out * weight).sum(), tex)
    expected = torch.zeros(35, 3).index_add(0, (row * 7 + column).reshape(-1), weight.reshape(-1, 3))
    torch.testing.assert_close(gradient.reshape(35, 3), expected)


def test_a_shared_texture_equals_copies() -> None:
    uv, uv_da = coordinates(3)
    weight = torch.randn(3, 9, 11, 3)
    tex = torch.randn(1, 64, 64, 3)
    one, many = tex.clone().requires_grad_(True), tex.expand(3, -1, -1, -1).clone().requires_grad_(True)
    out_one, out_many = RASTERIZER.texture(one, uv, uv_da), RASTERIZER.texture(many, uv, uv_da)
    assert torch.equal(out_one, out_many)
    (g_one,) = torch.autograd.grad((out_one * weight).sum(), one)
    (g_many,) = torch.autograd.grad((out_many * weight).sum(), many)
    torch.testing.assert_close(g_one, g_many.sum(0, keepdim=True), atol=1e-5, rtol=1e-5)


def test_texture_gradients_are_bit_equal_at_one_and_two_threads() -> None:
    uv, uv_da = coordinates(2, 40, 40)
    weight = torch.randn(2, 40, 40, 3)
    tex = torch.randn(1, 128, 128, 3)

    def run() -> tuple[Tensor, ...]:
        inputs = [t.clone().requires_grad_(True) for t in (tex, uv, uv_da)]
        out = RASTERIZER.texture(*inputs)
        return out.detach(), *torch.autograd.grad((out * weight).sum(), inputs)

    try:
        set_threads(1)
        one = run()
        set_threads(2)
        two = run()
    finally:
        set_threads(None)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)


def test_bad_coordinates_do_not_crash() -> None:
    bad = torch.tensor([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.5])
    uv = torch.stack(torch.meshgrid(bad, bad, indexing="ij"), dim=-1)[None]
    tex = torch.randn(1, 16, 16, 3, requires_grad=True)
    uv_da = torch.full((1, 6, 6, 4), np.nan)
    for boundary in ("clamp", "wrap", "zero"):
        for mode in ("nearest", "linear", "linear-mipmap-linear"):
            out = RASTERIZER.texture(tex, uv.clone().requires_grad_(True), uv_da, mode, boundary)
            out.sum().backward()
            assert out.isfinite().all()


def test_a_texture_that_cannot_be_halved_is_refused() -> None:
    uv, uv_da = coordinates(1)
    with pytest.raises(ValueError, match="max_mip_level to 2"):
        RASTERIZER.texture(torch.rand(1, 20, 20, 3), uv, uv_da)
    RASTERIZER.texture(torch.rand(1, 20, 20, 3), uv, uv_da, max_mip_level=2)
