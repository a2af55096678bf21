"""Light on the head by kind of model, and the regulariser that keeps it near white."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from flame_fitting.render.shading import sh_shading

LightingType = Literal["constant", "front", "front-range", "SH"]


def lighting(
    kind: LightingType, normals: Float[Tensor, "*pixels 3"], lights: Float[Tensor, "9 3"] | None = None
) -> Float[Tensor, "*pixels 3"]:
    """What albedo is multiplied by, per colour channel; not clamped.

    Args:
        kind: `constant`, 1 everywhere; `front`, a lamp on the z axis, n_z, and 0.3 |n_z| on what faces away from it;
            `front-range`, n_z + 0.75 in 0..1; `SH`, irradiance under spherical harmonics of order 2.
        normals: unit, in the frame of the light.
        lights: coefficients, for `SH` (see `shading.sh_basis`).
    """
    if kind == "SH":
        if lights is None:
            raise ValueError("SH lighting without coefficients")
        return sh_shading(normals, lights)
    if kind == "constant":
        return torch.ones_like(normals[..., :1]).expand(normals.shape)
    z = normals[..., 2:]
    if kind == "front":
        return torch.where(z < 0, -0.3 * z, z).expand(normals.shape)
    if kind == "front-range":
        return (z + 0.75).clamp(0.0, 1.0).expand(normals.shape)
    raise ValueError(f"unknown lighting: {kind}")


def diffuse_penalty(
    diffuse: Float[Tensor, "*pixels 3"], mask: Bool[Tensor, "*pixels"], count: Shaped[Tensor, ""] | None = None
) -> Float[Tensor, ""]:
    """relu(max diffuse - 1) + mean of the variance over rgb, over the masked pixels: near-white light, at most 1.

    It tells light from albedo, as in VHAP. `diffuse` is the `lighting` at normals that carry no gradient, else it would
    move the geometry. `count` is what the sum of variances is divided by, the number of masked pixels without it; with
    the number of all views' pixels the second term of chunks of views adds up. The first is then one of each chunk.
    """
    inside = mask[..., None]
    count = mask.sum() if count is None else count
    brightest = torch.where(inside, diffuse, 0.0).amax() if diffuse.numel() else diffuse.sum()
    variance = torch.where(inside, diffuse, 1.0).var(dim=-1)
    return torch.relu(brightest - 1.0) + variance.sum() / count.clamp_min(1)
