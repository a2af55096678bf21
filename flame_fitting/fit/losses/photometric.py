"""Photometric losses and the per-region perturbation that makes them see misalignment."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def photometric_l1(
    rendered: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"], mask: Float[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """Mean absolute difference in sRGB over the pixels of `mask` (VHAP normalises by the predicted foreground)."""
    return ((rendered - target).abs() * mask[..., None]).sum() / (3 * mask.sum().clamp_min(1.0))


def perturb_by_region(
    color: Float[Tensor, "B H W 3"],
    cluster: Int[Tensor, "B H W"],
    donors: Float[Tensor, "B H W 3"],
    rate_foreground: float,
    rate_background: float,
    generator: torch.Generator,
) -> Float[Tensor, "B H W 3"]:
    """Replaces random pixels by random colours of the same cluster, pooled over all views.

    Drawn before antialiasing, it makes silhouette gradients depend on the colours of a region rather than on the one
    texel at hand (VHAP's adaptive appearance prior). `cluster` is 0 for the background, -1 for pixels that stay, and
    from 1 for regions; `donors` are the pictures that colours are drawn from (detached). No loop over regions: pixels
    are sorted by cluster once, and each draws an index within its own run.
    """
    flat = cluster.reshape(-1)
    order = torch.argsort(flat, stable=True)
    labels, counts = torch.unique_consecutive(flat[order], return_counts=True)
    starts = torch.cumsum(counts, 0) - counts
    row = torch.searchsorted(labels, flat)
    draw = torch.rand(flat.shape, generator=generator, device=color.device)
    pick = order[starts[row] + (draw * counts[row]).long().clamp_max(counts[row] - 1)]
    rate = torch.where(flat > 0, rate_foreground, torch.where(flat == 0, rate_background, 0.0))
    replaced = torch.rand(flat.shape, generator=generator, device=color.device) < rate
    colors = torch.where(replaced[:, None], donors.detach().reshape(-1, 3)[pick], color.reshape(-1, 3))
    return colors.reshape(color.shape)
