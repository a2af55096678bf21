"""Losses of the texture itself: total variation and the penalty of the residual map, each with its gradient.

The gradient is added to a tensor of the caller's in place: a texture is as large as all pictures of a step, and every
pass over it that autograd would add costs time.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fusion import fused_kernels
from flame_fitting.head.model import HeadModel
from flame_fitting.render.texturing import TexelMap

REFERENCE_SIZE = 2048
"""Texels along an edge of the texture in which differences of neighbours are measured."""


@torch.no_grad()
def add_total_variation(
    texture: Float[Tensor, "R C 3"],
    weight: float,
    slope: Float[Tensor, "R C 3"],
    mask: Float[Tensor, "R C"] | None = None,
    count: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Squared differences of neighbouring texels, down and across.

        weight * sum_pairs m_a m_b mean_rgb (s (t_a - t_b))^2 / count,    s = R / 2048 (C / 2048 across)

    With s a picture costs the same at every size of the texture: halving it doubles the differences of neighbours.
    Without a mask it is VHAP's: the mean over the pairs of the full picture, down and across.

    Args:
        texture: sRGB.
        weight: of the whole.
        slope: the gradient is added to it in place.
        mask: weight of each texel; 0 outside the islands of the UV layout keeps pairs across their borders out.
        count: texels to divide by, on the device: their number on the islands (the sum of the mask) makes one weight
            suit every UV layout, and the number of texels that some view shows every number of views. All texels of
            the picture without it. Counts only with a mask.

    Returns:
        The value.
    """
    along, across, total = variation_shares(texture, weight, mask, count)
    fused = fused_kernels(texture, "flame_fitting.fit.losses.fused")
    if fused is not None:
        return fused.add_total_variation(texture, along, across, slope, mask, total)
    value = torch.zeros((), dtype=texture.dtype, device=texture.device)
    for axis, share in ((0, along), (1, across)):
        size = texture.shape[axis] - 1
        before, after = texture.narrow(axis, 0, size), texture.narrow(axis, 1, size)
        difference = after - before
        pull = (2 * share) * difference
        if mask is not None and total is not None:
            pull *= (mask.narrow(axis, 0, size) * mask.narrow(axis, 1, size) / total)[..., None]
        slope.narrow(axis, 1, size).add_(pull)
        slope.narrow(axis, 0, size).sub_(pull)
        value += 0.5 * (pull * difference).sum()
    return value


def variation_shares(
    texture: Tensor, weight: float, mask: Tensor | None, count: Tensor | None
) -> tuple[float, float, Tensor | None]:
    """What a squared difference down and one across are multiplied by, and what else divides them with a mask."""
    rows, columns, channels = texture.shape
    down, right = weight * (rows / REFERENCE_SIZE) ** 2, weight * (columns / REFERENCE_SIZE) ** 2
    if mask is None:
        return down / max((rows - 1) * columns * channels, 1), right / max(rows * (columns - 1) * channels, 1), None
    if count is None:
        count = torch.full((), float(rows * columns), dtype=texture.dtype, device=texture.device)
    return down / channels, right / channels, count


@torch.no_grad()
def add_residual_penalty(
    residual: Float[Tensor, "R C 3"], mask: Float[Tensor, "R C"], weight: float, slope: Float[Tensor, "R C 3"]
) -> Float[Tensor, ""]:
    """Keeps a residual map small where colours are known: `weight` * mean over all texels and rgb of mask * residual^2.

    VHAP uses it on sclerae and teeth, which take the shading of their surroundings otherwise. The gradient is added to
    `slope` in place.
    """
    share = weight / max(residual.numel(), 1)
    pull = residual * mask[..., None]
    slope.add_(pull, alpha=2 * share)
    return share * pull.mul_(residual).sum()


def texel_region_mask(head: HeadModel, texels: TexelMap, names: tuple[str, ...]) -> Float[Tensor, "R C"]:
    """1 on texels whose triangle lies in one of the named regions, else 0; names that the head lacks are empty."""
    inside = head.face_mask(*names).to(texels.face.device).index_select(0, texels.face.clamp_min(0).reshape(-1))
    return (inside.reshape(texels.face.shape) & texels.covered).float()
