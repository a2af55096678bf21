"""Launches the Triton kernels of culling; `winding.py` and `culling.py` have the references."""

import torch
import triton
from torch import Tensor

from flame_fitting.kernels import culling

_BLOCK = 512


def front_faces(pos: Tensor, tri: Tensor) -> Tensor:
    """See `winding.front_faces`."""
    views, vertices = pos.shape[:2]
    out = torch.empty(views, len(tri), dtype=torch.bool, device=pos.device)
    with torch.cuda.device(pos.device):
        grid = (triton.cdiv(len(tri), _BLOCK), views)
        culling.front_kernel[grid](pos.contiguous(), tri.contiguous(), out, len(tri), vertices, BLOCK=_BLOCK)
    return out


def instanced_faces(tri: Tensor, face_mask: Tensor, n_vertices: int) -> Tensor:
    """See `culling.instanced_faces`."""
    views = len(face_mask)
    out = torch.empty(views * len(tri), 3, dtype=torch.int32, device=tri.device)
    with torch.cuda.device(tri.device):
        grid = (triton.cdiv(len(tri), _BLOCK), views)
        culling.instance_kernel[grid](tri.contiguous(), face_mask.contiguous(), out, len(tri), n_vertices, BLOCK=_BLOCK)
    return out


def local_triangle_ids(rast: Tensor, n_faces: int, out: Tensor | None) -> Tensor:
    """See `culling.local_triangle_ids`."""
    out, n = torch.empty_like(rast) if out is None else out, rast.numel() // 4
    with torch.cuda.device(rast.device):
        pixels = rast.shape[1] * rast.shape[2]
        culling.local_ids_kernel[(triton.cdiv(n, _BLOCK),)](rast.contiguous(), out, n, pixels, n_faces, BLOCK=_BLOCK)
    return out
