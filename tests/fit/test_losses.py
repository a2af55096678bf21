"""Photometric losses, the perturbation by region, and robust kernels."""

import pytest
import torch
from torch import Tensor

from flame_fitting.fit.losses.photometric import ColorPools, color_pools, paint, picture_loss
from flame_fitting.fit.losses.robust import geman_mcclure, geman_mcclure_weight

SHAPE = (2, 40, 50)


@pytest.fixture
def regions() -> tuple[Tensor, Tensor]:
    """Clusters 0, 1, 2 and 3 (none) in stripes, and colours that say which cluster (red) and pixel (green) they are."""
    cluster = (torch.arange(SHAPE[2]) % 4).expand(SHAPE).contiguous()
    own = torch.arange(cluster.numel()).reshape(SHAPE) / cluster.numel()
    return cluster, torch.stack([cluster.float(), own, torch.zeros(SHAPE)], dim=-1)


NONE = 3
TABLE = torch.tensor([0, 2, NONE, 1], dtype=torch.int32)
"""Clusters of no triangle and of the triangles 1 to 3."""


def _triangles(cluster: Tensor) -> Tensor:
    """Triangle number at each pixel, by its cluster."""
    return torch.tensor([0.0, 3.0, 1.0, 2.0])[cluster]


def _pools(cluster: Tensor, color: Tensor, foreground=0.5, background=0.25, seed=0) -> ColorPools:
    return color_pools(cluster, color, NONE, foreground, background, torch.Generator().manual_seed(seed))


def _painted(cluster: Tensor, color: Tensor, foreground=0.5, background=0.25, seed=0) -> Tensor:
    pools = _pools(cluster, color, foreground, background, seed)
    return paint(color, color.detach(), _triangles(cluster), TABLE, pools, torch.tensor(seed + 1))


def test_colours_come_from_the_same_cluster(regions) -> None:
    cluster, color = regions
    out = _painted(cluster, color)[..., :3]
    torch.testing.assert_close(out[..., 0], cluster.float())
    taken = (out[..., 1] * cluster.numel()).round().long()
    torch.testing.assert_close(cluster.reshape(-1)[taken], cluster)


def test_alpha_is_where_the_head_is_drawn_and_the_background_behind(regions) -> None:
    cluster, color = regions
    drawn = cluster > 0
    out = paint(color, torch.full_like(color, 7.0), drawn.float())
    torch.testing.assert_close(out[..., 3], drawn.float())
    torch.testing.assert_close(out[..., :3], torch.where(drawn[..., None], color, torch.tensor(7.0)))


def test_rates_of_head_and_background_and_pixels_that_stay(regions) -> None:
    cluster, color = regions
    changed = (_painted(cluster, color)[..., :3] != color).any(-1)
    assert not changed[cluster == NONE].any()
    assert abs(changed[cluster == 0].float().mean() - 0.25) < 0.05
    assert abs(changed[(cluster > 0) & (cluster < NONE)].float().mean() - 0.5) < 0.05
    torch.testing.assert_close(_painted(cluster, color, 0.0, 0.0)[..., :3], color)


def test_clusters_without_a_pool_stay_as_they_are(regions) -> None:
    cluster, color = regions
    pools = _pools(torch.where(cluster == 2, NONE, cluster), color, 1.0, 1.0)
    assert pools.thresholds.tolist() == [65536, 65536, 0, 0]
    out = paint(color, color, _triangles(cluster), TABLE, pools, torch.tensor(0))[..., :3]
    assert torch.equal(out[cluster == 2], color[cluster == 2])
    assert not torch.equal(out[cluster == 1], color[cluster == 1])


def test_donors_are_drawn_from_all_over_the_cluster(regions) -> None:
    cluster, color = regions
    inside = cluster == 1
    out = _painted(cluster, color, 1.0, 1.0)[..., :3]
    drawn = out[inside][:, 1]
    # uniform over both views: mean and spread of the donors' numbers are those of the cluster
    assert abs(drawn.mean() - color[inside][:, 1].mean()) < 0.03
    assert abs(drawn.std() - color[inside][:, 1].std()) < 0.03
    assert len(drawn.unique()) > 0.5 * inside.sum(), "each pixel draws for itself"


def test_the_generator_decides(regions) -> None:
    cluster, color = regions
    torch.testing.assert_close(_painted(cluster, color, seed=3), _painted(cluster, color, seed=3), rtol=0, atol=0)
    assert not torch.equal(_painted(cluster, color, seed=3), _painted(cluster, color, seed=4))


def test_replaced_pixels_carry_no_gradient(regions) -> None:
    cluster, color = regions
    pools = _pools(cluster, color + 5.0)  # no donor looks like a pixel
    color = color.clone().requires_grad_()
    drawn = cluster != 0
    out = paint(color, color.detach(), _triangles(cluster), TABLE, pools, torch.tensor(3))
    out.sum().backward()
    kept = (out[..., :3] == color).all(-1) & drawn  # the background is no colour of the head
    assert color.grad is not None and 0 < kept.sum() < drawn.sum()
    torch.testing.assert_close(color.grad[..., 0], kept.float())


def _loss_by_hand(painted: Tensor, target: Tensor, count: float, photo: float, silhouette: float) -> Tensor:
    mask = (painted[..., 3].detach() > 0).to(painted)
    pictures = ((painted - target)[..., :3].abs() * mask[..., None]).sum() / (3 * count)
    return photo * pictures + silhouette * (painted[..., 3] * (1 - target[..., 3])).sum() / count


def test_picture_loss_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    painted = torch.rand(2, 6, 7, 4, generator=generator, dtype=torch.float64)
    painted[0, :3, :, 3] = 0.0
    target = torch.rand(2, 6, 7, 4, generator=generator, dtype=torch.float64)
    count = torch.tensor(11.0, dtype=torch.float64)
    painted.requires_grad_()
    expected = _loss_by_hand(painted, target, 11.0, 30.0, 4.0)
    (slope,) = torch.autograd.grad(expected, painted)
    value, found = picture_loss(painted, target, count, 30.0, 4.0)
    torch.testing.assert_close(value.double(), expected.detach())
    torch.testing.assert_close(found, slope)
    parts = [picture_loss(painted[i : i + 1], target[i : i + 1], count, 30.0, 4.0) for i in range(2)]
    torch.testing.assert_close(parts[0][0] + parts[1][0], value), "chunks of views add up"
    torch.testing.assert_close(torch.cat([parts[0][1], parts[1][1]]), found)


def test_pictures_of_bytes_and_of_floats_are_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    painted = torch.rand(2, 6, 7, 4, generator=generator)
    stored = torch.randint(0, 256, (2, 6, 7, 4), dtype=torch.uint8, generator=generator)
    count = torch.tensor(11.0)
    for one, other in zip(
        picture_loss(painted, stored, count, 30.0, 4.0),
        picture_loss(painted, stored / 255, count, 30.0, 4.0),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    drawn = (painted[..., 3] > 0.5).float()
    torch.testing.assert_close(paint(painted[..., :3], stored, drawn), paint(painted[..., :3], stored / 255, drawn))


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
