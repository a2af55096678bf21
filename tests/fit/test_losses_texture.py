"""Total variation and residual penalty of textures, and masks of regions on them."""

import pytest
import torch
from torch import Tensor

from flame_fitting.fit.losses.texture import add_residual_penalty, add_total_variation, texel_region_mask
from flame_fitting.fit.texture import texel_map
from flame_fitting.render.backend import make_rasterizer
from tests.toy import toy_head


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_hand(texture: Tensor, mask: Tensor, count: float) -> Tensor:
    rows, columns, _ = texture.shape
    total = torch.zeros((), dtype=texture.dtype)
    for r in range(rows):
        for c in range(columns):
            if r + 1 < rows:
                step = (texture[r + 1, c] - texture[r, c]) * rows / 2048
                total = total + mask[r + 1, c] * mask[r, c] * step.square().mean()
            if c + 1 < columns:
                step = (texture[r, c + 1] - texture[r, c]) * columns / 2048
                total = total + mask[r, c + 1] * mask[r, c] * step.square().mean()
    return total / count


def test_total_variation_of_the_full_picture_and_its_gradient() -> None:
    texture = _random(6, 5, 3).requires_grad_()
    down, right = (texture[1:] - texture[:-1]) * 6 / 2048, (texture[:, 1:] - texture[:, :-1]) * 5 / 2048
    expected = 7 * (down.square().mean() + right.square().mean())
    (slope,) = torch.autograd.grad(expected, texture)
    found = torch.ones_like(slope)
    torch.testing.assert_close(add_total_variation(texture.detach(), 7.0, found), expected.detach())
    torch.testing.assert_close(found - 1, slope, rtol=1e-6, atol=1e-14)
    flat = torch.full((4, 4, 3), 0.3)
    assert add_total_variation(flat, 1.0, torch.zeros_like(flat)) == 0


@pytest.mark.parametrize("counted", [False, True])
def test_total_variation_inside_a_mask_and_its_gradient(counted: bool) -> None:
    texture, mask = _random(6, 5, 3).requires_grad_(), _random(6, 5, seed=1)
    mask[2:4] = 0.0
    count = mask.sum() if counted else None
    expected = 7e6 * _by_hand(texture, mask, float(mask.sum()) if counted else 30.0)
    (slope,) = torch.autograd.grad(expected, texture)
    found = torch.ones_like(slope)
    torch.testing.assert_close(add_total_variation(texture.detach(), 7e6, found, mask, count), expected.detach())
    torch.testing.assert_close(found - 1, slope, rtol=1e-6, atol=1e-12)
    assert (found[2:4] == 1).all() and (found[:2] != 1).any(), "masked texels are not pulled"


def test_what_lies_between_the_islands_and_the_size_of_the_texture_do_not_matter() -> None:
    """A slope in colour over one island, beside a hole of another colour."""
    values = []
    for size, islands in ((64, 1), (128, 1), (64, 2)):
        ramp = torch.arange(size, dtype=torch.float64) / size
        texture = torch.zeros(size, size, 3, dtype=torch.float64)
        mask = torch.zeros(size, size, dtype=torch.float64)
        for island in range(islands):
            rows = slice(island * size // 2, island * size // 2 + size // 4)
            texture[rows], mask[rows] = ramp[:, None], 1.0
        values.append(float(add_total_variation(texture, 1.0, torch.zeros_like(texture), mask, mask.sum())))
        # an island is all across: its only differences are those of the ramp
        assert values[-1] == pytest.approx((1 / 2048) ** 2 * (size - 1) / size)
    assert values[0] == pytest.approx(values[2])
    assert values[0] == pytest.approx(values[1], rel=0.02)


def test_residual_penalty_and_its_gradient() -> None:
    residual, mask = (_random(6, 5, 3) - 0.5).requires_grad_(), (_random(6, 5, seed=1) > 0.5).double()
    expected = 10 * (residual.square() * mask[..., None]).mean()
    (slope,) = torch.autograd.grad(expected, residual)
    found = torch.ones_like(slope)
    torch.testing.assert_close(add_residual_penalty(residual.detach(), mask, 10.0, found), expected.detach())
    torch.testing.assert_close(found - 1, slope, rtol=1e-6, atol=1e-12)


def test_mask_of_regions_is_where_their_triangles_lie() -> None:
    head = toy_head()
    texels = texel_map(make_rasterizer("cpu"), head, 64)
    mask = texel_region_mask(head, texels, ("neck", "scalp", "no such region"))
    inside = head.face_mask("neck", "scalp")
    assert mask.shape == (64, 64) and 0 < mask.sum() < texels.covered.sum()
    for row, column in [(2, 30), (30, 30), (61, 10), (45, 3)]:
        face = int(texels.face[row, column])
        assert bool(mask[row, column]) == (face >= 0 and bool(inside[face]))
    assert (texel_region_mask(head, texels, ("no such region",)) == 0).all()
