"""Losses of pictures, and the per-region perturbation that makes them see misalignment.

Each is written with its gradient beside its value: the tensors are as large as all pictures together, and every pass
over them that autograd would add costs time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@torch.no_grad()
def picture_loss(
    painted: Float[Tensor, "B H W 4"],
    target: Shaped[Tensor, "B H W 4"],
    count: Float[Tensor, ""],
    photo: float,
    silhouette: float,
    with_value: bool = True,
) -> tuple[Float[Tensor, ""], Float[Tensor, "B H W 4"]]:
    """Photometric L1 in sRGB where the head is drawn, and the head's area outside the avatar's alpha.

    Both are sums over `count`, the head's pixels in all views of a step, so that chunks of views add up to the whole
    (VHAP normalises by the drawn foreground too). Channel 3 is alpha. A target of whole numbers is in 0..255.

    Returns:
        The value (0 without `with_value`: it costs as much again) and its gradient, to start the backward pass with.
    """
    top = 1.0 if target.is_floating_point() else 255.0
    difference = torch.add(target, painted, alpha=-top)  # one pass, whatever the target is stored as
    slope = torch.sign(difference)
    drawn = painted[..., 3:] > 0
    slope *= drawn * (-photo / (3 * count))
    outside = (top - target[..., 3]) * (silhouette / (top * count))
    value = torch.zeros((), device=painted.device)
    if with_value:
        pictures = (slope[..., :3] * difference[..., :3]).sum() * (-1 / top)
        value = pictures + (outside * painted[..., 3]).sum()
    slope[..., 3] = outside
    return value, slope


def total_variation(texture: Float[Tensor, "R C 3"]) -> Float[Tensor, ""]:
    """Mean squared difference of neighbouring texels, rows and columns."""
    return _TotalVariation.apply(texture)


class _TotalVariation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, texture: Tensor) -> Tensor:
        down, right = texture[1:] - texture[:-1], texture[:, 1:] - texture[:, :-1]
        gradient = torch.zeros_like(texture)
        gradient[1:].add_(down, alpha=2 / down.numel())
        gradient[:-1].sub_(down, alpha=2 / down.numel())
        gradient[:, 1:].add_(right, alpha=2 / right.numel())
        gradient[:, :-1].sub_(right, alpha=2 / right.numel())
        ctx.save_for_backward(gradient)
        return down.square_().mean() + right.square_().mean()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0]


@dataclass(eq=False)
class ColorPools:
    """Colours of each cluster, drawn from all views at once: what `perturb_by_region` replaces pixels by."""

    colors: Float[Tensor, "K P 3"]
    """P a power of two."""
    thresholds: Int[Tensor, " K"]
    """Rate at which pixels of the cluster are replaced, in 2^-16; 0 for a cluster without colours."""


def color_pools(
    cluster: Int[Tensor, "*pixels"],
    donors: Float[Tensor, "*pixels 3"],
    n_clusters: int,
    rate_foreground: float,
    rate_background: float,
    generator: torch.Generator,
    size: int = 4096,
) -> ColorPools:
    """`size` random colours of each cluster 0..n_clusters-1; 0 is the background. Pixels of another number give none.

    No loop over clusters and no synchronisation: pixels are sorted by cluster once, and each entry of a pool draws an
    index within the cluster's run.
    """
    flat = cluster.reshape(-1)
    ordered, order = torch.sort(flat, stable=True)
    labels = torch.arange(n_clusters, dtype=flat.dtype, device=flat.device)
    starts = torch.searchsorted(ordered, labels)
    counts = torch.searchsorted(ordered, labels, right=True) - starts
    draw = torch.rand(n_clusters, size, generator=generator, device=flat.device)
    row = starts[:, None] + (draw * counts[:, None]).long().clamp_max((counts[:, None] - 1).clamp_min(0))
    colors = donors.detach().reshape(-1, 3)[order[row.clamp_max(len(order) - 1)]]
    rate = torch.where(labels > 0, round(rate_foreground * 65536), round(rate_background * 65536))
    return ColorPools(colors, torch.where(counts > 0, rate, 0).int())


def paint(
    color: Float[Tensor, "B H W 3"],
    background: Shaped[Tensor, "B H W C"],
    drawn: Bool[Tensor, "B H W"],
    cluster: Int[Tensor, "B H W"] | None = None,
    pools: ColorPools | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B H W 4"]:
    """The head's colours over the background, with alpha, before antialiasing.

    `background` may have more channels than three, of which the first three count; whole numbers are in 0..255.
    With pools, random pixels take a random colour of their cluster instead. It makes silhouette gradients depend on
    the colours of a region rather than on the one texel at hand (VHAP's adaptive appearance prior). Replaced pixels
    carry no gradient. Clusters without a pool (-1, or beyond the last) are left as they are.
    """
    instead = background[..., :3].float()
    if not background.is_floating_point():
        instead = instead * (1 / 255)
    keep = drawn
    if pools is not None and cluster is not None:
        clusters, size = pools.colors.shape[:2]
        noise = torch.randint(0, 2**31 - 1, cluster.shape, dtype=torch.int32, generator=generator, device=color.device)
        # clusters without a pool take a row whose rate is 0
        thresholds = torch.cat([pools.thresholds, pools.thresholds.new_zeros(1)])
        row = torch.where((cluster >= 0) & (cluster < clusters), cluster, clusters).int()
        replaced = (noise >> 15) < thresholds.index_select(0, row.reshape(-1)).reshape(row.shape)
        pick = row.clamp_max(clusters - 1) * size + (noise & (size - 1))
        donors = pools.colors.reshape(-1, 3).index_select(0, pick.reshape(-1)).reshape(color.shape)
        instead = torch.where(replaced[..., None], donors, instead)
        keep = drawn & ~replaced
    return _Paint.apply(color, instead, keep[..., None], drawn)


class _Paint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, color: Tensor, instead: Tensor, keep: Tensor, drawn: Tensor) -> Tensor:
        out = color.new_empty(*color.shape[:3], 4)
        out[..., :3] = torch.where(keep, color, instead)
        out[..., 3] = drawn
        ctx.save_for_backward(keep)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (keep,) = ctx.saved_tensors
        return grads[0][..., :3] * keep, None, None, None
