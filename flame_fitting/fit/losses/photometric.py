"""Losses of pictures, and the per-region perturbation that makes them see misalignment.

Each is written with its gradient beside its value: the tensors are as large as all pictures together, and every pass
over them that autograd would add costs time.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from flame_fitting.fit.losses.texture import add_total_variation as add_total_variation
from flame_fitting.fusion import fused_kernels


def root_with_slopes(outputs: list[Tensor], slopes: list[Tensor]) -> Float[Tensor, ""]:
    """A scalar, 0, whose backward pass gives `outputs` these gradients.

    The same as to hand them to `torch.autograd.grad`, which at the first such call imports a symbolic algebra system.
    """
    return _RootWithSlopes.apply(len(outputs), *outputs, *slopes)


class _RootWithSlopes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[count:])
        return tensors[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return None, *ctx.saved_tensors, *[None for _ in ctx.saved_tensors]


@torch.no_grad()
def picture_loss(
    painted: Float[Tensor, "B H W 4"],
    target: Shaped[Tensor, "B H W 4"],
    count: Float[Tensor, ""],
    photo: float,
    silhouette: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, "B H W 4"]]:
    """Photometric L1 in sRGB where the head is drawn, and the head's area outside the avatar's alpha.

    With the alpha of `backgrounds.outline_targets`, which exceeds 1, the second term also pulls outward.
    Both are sums over `count`, the head's pixels in all views of a step, so that chunks of views add up to the whole
    (VHAP normalises by the drawn foreground too). Channel 3 is alpha. A target of whole numbers is in 0..255.

    Returns:
        The value, and its gradient to start the backward pass with.
    """
    fused = kernels(painted)
    if fused is not None:
        return fused.picture_loss(painted, target, count, photo, silhouette)
    top = 1.0 if target.is_floating_point() else 255.0
    difference = torch.add(target, painted, alpha=-top)  # one pass, whatever the target is stored as
    slope = torch.sign(difference)
    drawn = painted[..., 3:] > 0
    slope *= drawn * (-photo / (3 * count))
    outside = (top - target[..., 3].float()) * (silhouette / (top * count))
    value = (slope[..., :3] * difference[..., :3]).sum() * (-1 / top) + (outside * painted[..., 3]).sum()
    slope[..., 3] = outside
    return value, slope


@dataclass(eq=False)
class ColorPools:
    """Colours of each cluster, drawn from all views at once: what `perturb_by_region` replaces pixels by."""

    colors: Float[Tensor, "K P 3"]
    """P a power of two."""
    thresholds: Int[Tensor, " K_and_1"]
    """Rate at which pixels of a cluster are replaced, in 2^-16; 0 for one without colours and for the last, "none"."""


def color_pools(
    cluster: Int[Tensor, "*pixels"],
    donors: Float[Tensor, "*pixels 3"],
    n_clusters: int,
    rate_foreground: float,
    rate_background: float,
    generator: torch.Generator,
    size: int = 4096,
) -> ColorPools:
    """`size` random colours of each cluster 0..n_clusters-1; 0 is the background, `n_clusters` stands for none.

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
    thresholds = torch.where(counts > 0, rate, 0).int()
    return ColorPools(colors, torch.cat([thresholds, thresholds.new_zeros(1)]))


def paint(
    color: Float[Tensor, "B H W 3"],
    background: Shaped[Tensor, "B H W C"],
    triangle: Float[Tensor, "B H W"],
    clusters: Int[Tensor, " F_and_1"] | None = None,
    pools: ColorPools | None = None,
    seed: Int[Tensor, ""] | None = None,
) -> Float[Tensor, "B H W 4"]:
    """The head's colours over the background, with alpha, before antialiasing.

    `triangle` is the number of the triangle at each pixel from 1, 0 for none; `clusters` the cluster of each number,
    one of the pools or the number after the last for none.
    `background` may have more channels than three, of which the first three count; whole numbers are in 0..255.
    With pools, random pixels take a random colour of their cluster instead. It makes silhouette gradients depend on
    the colours of a region rather than on the one texel at hand (VHAP's adaptive appearance prior). Replaced pixels
    carry no gradient. `seed` lies on the device (a CUDA graph cannot hold a number that changes).
    """
    fused = kernels(color)
    if fused is not None:
        thresholds, colors = (None, None) if pools is None else (pools.thresholds, pools.colors)
        return fused.Paint.apply(color, background, triangle, clusters, thresholds, colors, seed)
    instead = background[..., :3].float()
    if not background.is_floating_point():
        instead = instead * (1 / 255)
    drawn = triangle > 0
    keep = drawn
    if pools is not None and clusters is not None and seed is not None:
        colors, size = pools.colors, pools.colors.shape[1]
        generator = torch.Generator(color.device).manual_seed(int(seed))
        noise = torch.randint(0, 2**31 - 1, triangle.shape, dtype=torch.int32, generator=generator, device=color.device)
        row = clusters.index_select(0, triangle.detach().int().reshape(-1))
        replaced = (noise >> 15) < pools.thresholds.index_select(0, row).reshape(triangle.shape)
        pick = row.clamp_max(len(colors) - 1) * size + (noise & (size - 1)).reshape(-1)
        donors = colors.reshape(-1, 3).index_select(0, pick).reshape(color.shape)
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


def kernels(tensor: Tensor) -> ModuleType | None:
    """The fused kernels of this module for a tensor, where they run."""
    return fused_kernels(tensor, "flame_fitting.fit.losses.fused")
