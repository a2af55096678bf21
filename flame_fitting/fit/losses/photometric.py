"""Losses of pictures, and the per-region perturbation that makes them see misalignment.

Each is written with its gradient beside its value: the tensors are as large as all pictures together, and every pass
over them that autograd would add costs time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def picture_loss(
    painted: Float[Tensor, "B H W 4"],
    target: Float[Tensor, "B H W 4"],
    count: Float[Tensor, ""],
    photo: float,
    silhouette: float,
) -> Float[Tensor, ""]:
    """Photometric L1 in sRGB where the head is drawn, and the head's area outside the avatar's alpha.

    Both are sums over `count`, the head's pixels in all views of a step, so that chunks of views add up to the whole
    (VHAP normalises by the drawn foreground too). Channel 3 is alpha.
    """
    return _PictureLoss.apply(painted, target, count, photo, silhouette)


class _PictureLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, painted: Tensor, target: Tensor, count: Tensor, photo: float, silhouette: float) -> Tensor:
        difference = painted - target
        gradient = torch.sign(difference)
        gradient[..., :3] *= (painted[..., 3:] > 0) * (photo / (3 * count))
        value = (gradient[..., :3] * difference[..., :3]).sum()
        outside = torch.sub(1.0, target[..., 3]).mul_(silhouette / count)
        gradient[..., 3] = outside
        ctx.save_for_backward(gradient)
        return value + (outside * painted[..., 3]).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None, None, None


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
    background: Float[Tensor, "B H W 3"],
    drawn: Tensor,
    cluster: Int[Tensor, "B H W"] | None = None,
    pools: ColorPools | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B H W 4"]:
    """The head's colours over the background, with alpha, before antialiasing; `drawn` (B, H, W) is bool.

    With pools, random pixels take a random colour of their cluster instead. It makes silhouette gradients depend on
    the colours of a region rather than on the one texel at hand (VHAP's adaptive appearance prior). Replaced pixels
    carry no gradient. Clusters without a pool (-1, or beyond the last) are left as they are.
    """
    keep, instead = drawn, background
    if pools is not None and cluster is not None:
        clusters, size = pools.colors.shape[:2]
        noise = torch.randint(0, 2**31 - 1, cluster.shape, dtype=torch.int32, generator=generator, device=color.device)
        known = (cluster >= 0) & (cluster < clusters)
        row = cluster.int().clamp(0, clusters - 1)
        limit = pools.thresholds.index_select(0, row.reshape(-1)).reshape(row.shape)
        replaced = ((noise >> 15) < limit) & known
        pick = row * size + (noise & (size - 1))
        donors = pools.colors.reshape(-1, 3).index_select(0, pick.reshape(-1)).reshape(color.shape)
        instead = torch.where(replaced[..., None], donors, background)
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
