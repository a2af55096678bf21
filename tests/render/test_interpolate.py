"""Interpolation against the same formula in torch, values and gradients."""

import pytest
import torch
from torch import Tensor

from flame_fitting.render.cpu import CpuRasterizer

RASTERIZER = CpuRasterizer()


def scene(n_views: int) -> tuple[Tensor, Tensor, Tensor]:
    """A fan of triangles: rast, rast_db of `n_views` views and tri."""
    generator = torch.Generator().manual_seed(3)
    xy = torch.rand(n_views, 12, 2, generator=generator) * 2.4 - 1.2
    z = torch.rand(n_views, 12, 1, generator=generator)
    w = 0.8 + torch.rand(n_views, 12, 1, generator=generator)
    tri = torch.randint(0, 12, (14, 3), generator=generator, dtype=torch.int32)
    rast, rast_db = RASTERIZER.rasterize(torch.cat([xy * w, z * w, w], dim=-1), tri, (17, 23))
    assert 0.3 < (rast[..., 3] > 0).float().mean() < 1.0
    return rast, rast_db, tri


def reference(attr: Tensor, rast: Tensor, rast_db: Tensor, tri: Tensor, diff: list[int]) -> tuple[Tensor, Tensor]:
    attr = attr.expand(rast.shape[0], -1, -1)
    face = rast[..., 3].long() - 1
    drawn = (face >= 0)[..., None]
    corners = tri.long()[face.clamp(min=0)]
    a0, a1, a2 = (attr[torch.arange(rast.shape[0])[:, None, None], corners[..., k]] for k in range(3))
    u, v = rast[..., 0:1], rast[..., 1:2]
    out = (u * a0 + v * a1 + (1 - u - v) * a2) * drawn
    du, dv = (a0 - a2)[..., diff, None], (a1 - a2)[..., diff, None]
    out_da = (rast_db[..., None, 0:2] * du + rast_db[..., None, 2:4] * dv).flatten(-2) * drawn
    return out, out_da


@pytest.mark.parametrize("n_views", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_values_and_gradients_equal_the_reference(n_views: int, shared: bool) -> None:
    torch.manual_seed(0)
    rast, rast_db, tri = scene(n_views)
    attr = torch.randn(1 if shared else n_views, 12, 4)
    weight, weight_da = torch.randn(n_views, 17, 23, 4), torch.randn(n_views, 17, 23, 6)
    results = []
    for run in (
        lambda a, r, d: RASTERIZER.interpolate(a, r, tri, d, [2, 0, -1]),
        lambda a, r, d: reference(a, r, d, tri, [2, 0, 3]),
    ):
        inputs = [t.clone().requires_grad_(True) for t in (attr, rast, rast_db)]
        out, out_da = run(*inputs)
        gradients = torch.autograd.grad((out * weight).sum() + (out_da * weight_da).sum(), inputs)
        # Gradients of z/w and the index are not defined.
        results.append((out, out_da, gradients[0], gradients[1][..., :2], gradients[2]))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-4)


def test_one_attribute_batch_equals_copies() -> None:
    rast, _, tri = scene(3)
    attr = torch.randn(1, 12, 2)
    weight = torch.randn(3, 17, 23, 2)
    one, many = attr.clone().requires_grad_(True), attr.expand(3, -1, -1).clone().requires_grad_(True)
    out_one, _ = RASTERIZER.interpolate(one, rast, tri)
    out_many, _ = RASTERIZER.interpolate(many, rast, tri)
    assert torch.equal(out_one, out_many)
    (g_one,) = torch.autograd.grad((out_one * weight).sum(), one)
    (g_many,) = torch.autograd.grad((out_many * weight).sum(), many)
    torch.testing.assert_close(g_one, g_many.sum(0, keepdim=True), atol=1e-5, rtol=1e-5)


def test_other_index_list_interpolates_other_attributes() -> None:
    rast, rast_db, tri = scene(1)
    uv_tri = torch.arange(3 * len(tri), dtype=torch.int32).reshape(-1, 3)
    uv = torch.rand(1, 3 * len(tri), 2)
    out, out_da = RASTERIZER.interpolate(uv, rast, uv_tri, rast_db, "all")
    expected, expected_da = reference(uv, rast, rast_db, uv_tri, [0, 1])
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(out_da, expected_da, atol=1e-5, rtol=1e-4)


def test_without_diff_attrs_the_derivatives_are_empty() -> None:
    rast, _, tri = scene(1)
    _, out_da = RASTERIZER.interpolate(torch.rand(1, 12, 2), rast, tri)
    assert out_da.shape == (1, 17, 23, 0)
    with pytest.raises(ValueError, match="rast_db"):
        RASTERIZER.interpolate(torch.rand(1, 12, 2), rast, tri, None, "all")
