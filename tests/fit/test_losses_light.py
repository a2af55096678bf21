"""Kinds of light and the regulariser of diffuse shading."""

import pytest
import torch
from torch import Tensor

from flame_fitting.fit.losses.light import diffuse_penalty, lighting
from flame_fitting.render.shading import ambient_light, sh_basis


@pytest.fixture
def normals() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    found = torch.nn.functional.normalize(torch.randn(2, 5, 6, 3, generator=generator), dim=-1)
    found[0, 0, 0], found[0, 0, 1] = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, -1.0])
    return found


def test_light_without_coefficients(normals) -> None:
    for kind in ("constant", "front", "front-range"):
        found = lighting(kind, normals)
        assert found.shape == normals.shape and (found[..., :1] == found).all()
        for value, normal in zip(found.reshape(-1, 3)[:, 0].tolist(), normals.reshape(-1, 3).tolist(), strict=True):
            z = normal[2]
            expected = {
                "constant": 1.0,
                "front": z if z >= 0 else 0.3 * abs(z),
                "front-range": min(max(z + 0.75, 0.0), 1.0),
            }[kind]
            assert value == pytest.approx(expected, abs=1e-6)


def test_spherical_harmonics_are_linear_in_the_light(normals) -> None:
    lights = torch.randn(9, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = lighting("SH", normals, lights)
    expected = torch.stack([(sh_basis(normals) * lights[:, k]).sum(-1) for k in range(3)], dim=-1)
    torch.testing.assert_close(found, expected)
    (slope,) = torch.autograd.grad(found[..., 1].sum(), lights)
    torch.testing.assert_close(slope[:, 1], sh_basis(normals).sum((0, 1, 2)))
    torch.testing.assert_close(lighting("SH", normals, ambient_light()), torch.ones_like(normals))
    with pytest.raises(ValueError, match="coefficients"):
        lighting("SH", normals)


def _by_hand(diffuse: Tensor, mask: Tensor) -> Tensor:
    inside = diffuse[mask]
    return torch.relu(inside.max() - 1) + ((inside - inside.mean(-1, keepdim=True)).square().sum(-1) / 2).mean()


@pytest.mark.parametrize("bright", [0.2, 2.0])
def test_diffuse_penalty_and_its_gradient(bright: float) -> None:
    generator = torch.Generator().manual_seed(0)
    diffuse = (bright * torch.rand(2, 5, 6, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    mask = torch.rand(2, 5, 6, generator=generator) > 0.4
    with torch.no_grad():
        diffuse[~mask] += 5.0  # what is not drawn does not count
    found, expected = diffuse_penalty(diffuse, mask), _by_hand(diffuse, mask)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(value, diffuse)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes)
    if bright < 1:
        # chunks of views add up where nothing is too bright
        parts = [diffuse_penalty(diffuse[i : i + 1], mask[i : i + 1], mask.sum()) for i in range(2)]
        torch.testing.assert_close(sum(parts), expected)


def test_nothing_drawn_and_white_light_cost_nothing() -> None:
    diffuse = torch.full((1, 4, 4, 3), 3.0, requires_grad=True)
    value = diffuse_penalty(diffuse, torch.zeros(1, 4, 4, dtype=torch.bool))
    (slope,) = torch.autograd.grad(value, diffuse)
    assert value == 0 and (slope == 0).all()
    white = diffuse_penalty(torch.full((4, 3), 0.8), torch.ones(4, dtype=torch.bool))
    assert white == pytest.approx(0.0, abs=1e-12)
