"""Photometric losses, the perturbation by region, and robust kernels."""

import pytest
import torch
from torch import Tensor

from flame_fitting.fit.losses.photometric import perturb_by_region, photometric_l1
from flame_fitting.fit.losses.robust import geman_mcclure, geman_mcclure_weight

SHAPE = (2, 40, 50)


@pytest.fixture
def regions() -> tuple[Tensor, Tensor]:
    """Clusters -1, 0, 1, 2 in stripes, and colours that say which cluster (red) and which pixel (green) they are."""
    cluster = (torch.arange(SHAPE[2]) % 4 - 1).expand(SHAPE).contiguous()
    own = torch.arange(cluster.numel()).reshape(SHAPE) / cluster.numel()
    return cluster, torch.stack([cluster.float(), own, torch.zeros(SHAPE)], dim=-1)


def _perturbed(cluster: Tensor, color: Tensor, foreground=0.5, background=0.25, seed=0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return perturb_by_region(color, cluster, color, foreground, background, generator)


def test_colours_come_from_the_same_cluster(regions) -> None:
    cluster, color = regions
    out = _perturbed(cluster, color)
    torch.testing.assert_close(out[..., 0], cluster.float())
    taken = (out[..., 1] * cluster.numel()).round().long()
    torch.testing.assert_close(cluster.reshape(-1)[taken], cluster)


def test_rates_of_head_and_background_and_pixels_that_stay(regions) -> None:
    cluster, color = regions
    changed = (_perturbed(cluster, color) != color).any(-1)
    assert not changed[cluster == -1].any()
    assert abs(changed[cluster == 0].float().mean() - 0.25) < 0.05
    assert abs(changed[cluster > 0].float().mean() - 0.5) < 0.05
    nothing = _perturbed(cluster, color, 0.0, 0.0)
    torch.testing.assert_close(nothing, color)


def test_donors_are_drawn_from_all_over_the_cluster(regions) -> None:
    cluster, color = regions
    out = _perturbed(cluster, color, 1.0, 1.0)
    inside = cluster == 1
    drawn = out[inside][:, 1]
    # uniform over both views: mean and spread of the donors' numbers are those of the cluster
    assert abs(drawn.mean() - color[inside][:, 1].mean()) < 0.03
    assert abs(drawn.std() - color[inside][:, 1].std()) < 0.03
    assert len(drawn.unique()) > 0.5 * inside.sum(), "each pixel draws for itself"


def test_the_generator_decides(regions) -> None:
    cluster, color = regions
    torch.testing.assert_close(_perturbed(cluster, color, seed=3), _perturbed(cluster, color, seed=3), rtol=0, atol=0)
    assert not torch.equal(_perturbed(cluster, color, seed=3), _perturbed(cluster, color, seed=4))


def test_replaced_pixels_carry_no_gradient(regions) -> None:
    cluster, color = regions
    color = color.clone().requires_grad_()
    out = _perturbed(cluster, color)
    out.sum().backward()
    kept = (out == color).all(-1)
    assert color.grad is not None
    torch.testing.assert_close(color.grad[..., 0], kept.float())


def test_l1_of_a_known_difference_counts_the_mask_only() -> None:
    target = torch.full((2, 8, 8, 3), 0.5)
    rendered, mask = target.clone(), torch.zeros(2, 8, 8)
    mask[0, :4], mask[1, :2] = 1.0, 1.0
    rendered[0, :4] += torch.tensor([0.1, -0.2, 0.3])
    rendered[mask == 0] = 9.0
    # 32 of the 48 pixels differ by 0.2 on average
    torch.testing.assert_close(photometric_l1(rendered, target, mask), torch.tensor(0.2 * 32 / 48))
    assert photometric_l1(rendered, target, torch.zeros(2, 8, 8)) == 0


def test_robust_weight_is_the_slope_of_the_kernel() -> None:
    distance = torch.tensor([0.0, 0.1, 1.0, 2.0, 5.0, 40.0], dtype=torch.float64)
    squared = (distance**2).requires_grad_()
    geman_mcclure(squared, 2.0).sum().backward()
    torch.testing.assert_close(squared.grad, geman_mcclure_weight(distance, 2.0))
    assert geman_mcclure_weight(torch.tensor(2.0), 2.0) == 0.25 and geman_mcclure_weight(torch.tensor(0.0), 2.0) == 1


def test_robust_kernel_is_quadratic_near_zero_and_bounded() -> None:
    torch.testing.assert_close(geman_mcclure(torch.tensor(1e-6), 3.0), torch.tensor(1e-6))
    far = geman_mcclure(torch.tensor([1e3, 1e6, 1e9]), 3.0)
    assert (far.diff() > 0).all() and far.max() <= 9.0
    scale = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(geman_mcclure(torch.tensor([1.0, 4.0]), scale), torch.tensor([0.5, 2.0]))
