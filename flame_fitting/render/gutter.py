"""A gutter around UV islands: texels outside repeat the nearest one inside, so that filtering and mip levels do not mix
in the background at seams."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor


def gutter_sources(covered: Bool[Tensor, "Ht Wt"], pixels: int | None = None) -> Int[Tensor, "Ht Wt"]:
    """For each texel the flat index of the texel it takes its colour from: itself inside the islands (and farther than
    `pixels` from them), else the nearest one inside. None fills the whole picture. Compute once per UV layout."""
    height, width = covered.shape
    own = np.arange(height * width).reshape(height, width)
    inside = covered.detach().cpu().numpy().astype(bool)
    if not inside.any():
        return torch.from_numpy(own).to(covered.device)
    distance, (row, column) = distance_transform_edt(~inside, return_indices=True)
    sources = row.astype(np.int64) * width + column
    if pixels is not None:
        sources = np.where(distance <= pixels, sources, own)
    return torch.from_numpy(sources).to(covered.device)


def fill_gutter(tex: Float[Tensor, "*batch Ht Wt C"], sources: Int[Tensor, "Ht Wt"]) -> Float[Tensor, "*batch Ht Wt C"]:
    """The texture with its gutter; differentiable, a gutter texel's gradient goes to its source."""
    flat = tex.reshape(*tex.shape[:-3], -1, tex.shape[-1])
    return flat.index_select(-2, sources.reshape(-1)).reshape(tex.shape)
