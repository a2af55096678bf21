"""Dropping faces per view with shapes that do not depend on how many are dropped (for nvdiffrast's range mode).

All views share one list of B x F index triples into their stacked vertices. A dropped face is a degenerate triple,
which no rasterizer draws. Triangle numbers in the result count through the list and are brought back to 0..F
afterwards.
"""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flame_fitting.fusion import fused_kernels

MAX_INSTANCED_FACES = 2**24
"""Triangle numbers are stored as float32, exact up to here."""


def instanced_faces(
    tri: Int[Tensor, "F 3"], face_mask: Bool[Tensor, "B F"], n_vertices: int
) -> Int[Tensor, "B_times_F 3"]:
    """Index triples of all views into vertices stacked to (B * V, ...); False in the mask gives a degenerate triple."""
    fused = fused_kernels(tri, "flame_fitting.render.fused")
    if fused is not None:
        return fused.instanced_faces(tri.int(), face_mask, n_vertices)
    start = torch.arange(face_mask.shape[0], dtype=torch.int32, device=tri.device)[:, None, None] * n_vertices
    return torch.where(face_mask[..., None], tri.int()[None] + start, start).reshape(-1, 3).contiguous()


@lru_cache(maxsize=32)
def view_ranges(n_views: int, n_faces: int) -> Int[Tensor, "B 2"]:
    """First triple and number of triples of each view; in CPU memory, as nvdiffrast wants them."""
    return torch.tensor([[view * n_faces, n_faces] for view in range(n_views)], dtype=torch.int32)


@torch.no_grad()
def local_triangle_ids(
    rast: Float[Tensor, "B H W 4"], n_faces: int, out: Float[Tensor, "B H W 4"] | None = None
) -> Float[Tensor, "B H W 4"]:
    """`rast` with the triangle numbers of a shared list counted from 1 within each view; 0 stays 0."""
    fused = fused_kernels(rast, "flame_fitting.render.fused")
    if fused is not None:
        return fused.local_triangle_ids(rast, n_faces, out)
    start = torch.arange(rast.shape[0], dtype=rast.dtype, device=rast.device)[:, None, None] * n_faces
    out = rast.clone() if out is None else out.copy_(rast)
    out[..., 3] = (rast[..., 3] - start).clamp_min(0)
    return out


@torch.no_grad()
def shared_triangle_ids(rast: Float[Tensor, "B H W 4"], n_faces: int) -> Float[Tensor, "B H W 4"]:
    """`rast` with the triangle numbers of each view counted through a list shared by all; 0 stays 0."""
    if len(rast) == 1:
        return rast.contiguous()
    start = torch.arange(rast.shape[0], dtype=rast.dtype, device=rast.device)[:, None, None] * n_faces
    out = rast.clone(memory_format=torch.contiguous_format)
    out[..., 3] += start * (rast[..., 3] > 0)
    return out
