"""Culling as Triton kernels; `winding.py` and `culling.py` have the references."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 512


@triton.jit
def _front_kernel(pos, tri, out, n_faces, n_vertices, BLOCK: tl.constexpr):
    view = tl.program_id(1).to(tl.int64)
    face = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = face < n_faces
    i = tl.load(tri + face * 3 + 0, mask=inside, other=0)
    j = tl.load(tri + face * 3 + 1, mask=inside, other=0)
    k = tl.load(tri + face * 3 + 2, mask=inside, other=0)
    points = pos + view * n_vertices * 4
    x0, y0, w0 = tl.load(points + i * 4), tl.load(points + i * 4 + 1), tl.load(points + i * 4 + 3)
    x1, y1, w1 = tl.load(points + j * 4), tl.load(points + j * 4 + 1), tl.load(points + j * 4 + 3)
    x2, y2, w2 = tl.load(points + k * 4), tl.load(points + k * 4 + 1), tl.load(points + k * 4 + 3)
    ax, ay, aw = x1 - x0, y1 - y0, w1 - w0
    bx, by, bw = x2 - x0, y2 - y0, w2 - w0
    determinant = x0 * (ay * bw - aw * by) + y0 * (aw * bx - ax * bw) + w0 * (ax * by - ay * bx)
    tl.store(out + view * n_faces + face, determinant < 0, mask=inside)


@triton.jit
def _instance_kernel(tri, front, out, n_faces, n_vertices, BLOCK: tl.constexpr):
    view = tl.program_id(1)
    face = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = face < n_faces
    row = view.to(tl.int64) * n_faces + face
    shown = tl.load(front + row, mask=inside, other=0) != 0
    start = view * n_vertices
    for corner in tl.static_range(3):
        vertex = tl.load(tri + face * 3 + corner, mask=inside, other=0)
        tl.store(out + row * 3 + corner, start + tl.where(shown, vertex, 0), mask=inside)


@triton.jit
def _local_ids_kernel(rast, out, n, pixels, n_faces, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, 4)
    at = i[:, None] * 4 + channel[None, :]
    inside = (i < n)[:, None] & (channel >= 0)[None, :]
    value = tl.load(rast + at, mask=inside, other=0.0)
    start = ((i // pixels) * n_faces).to(tl.float32)[:, None]
    is_id = (channel == 3)[None, :]
    tl.store(out + at, tl.where(is_id, tl.maximum(value - start, 0.0), value), mask=inside)


def front_faces(pos: Tensor, tri: Tensor) -> Tensor:
    """See `winding.front_faces`."""
    views, vertices = pos.shape[:2]
    out = torch.empty(views, len(tri), dtype=torch.bool, device=pos.device)
    with torch.cuda.device(pos.device):
        grid = (triton.cdiv(len(tri), _BLOCK), views)
        _front_kernel[grid](pos.contiguous(), tri.contiguous(), out, len(tri), vertices, BLOCK=_BLOCK)
    return out


def instanced_faces(tri: Tensor, face_mask: Tensor, n_vertices: int) -> Tensor:
    """See `culling.instanced_faces`."""
    views = len(face_mask)
    out = torch.empty(views * len(tri), 3, dtype=torch.int32, device=tri.device)
    with torch.cuda.device(tri.device):
        grid = (triton.cdiv(len(tri), _BLOCK), views)
        _instance_kernel[grid](tri.contiguous(), face_mask.contiguous(), out, len(tri), n_vertices, BLOCK=_BLOCK)
    return out


def local_triangle_ids(rast: Tensor, n_faces: int, out: Tensor | None) -> Tensor:
    """See `culling.local_triangle_ids`."""
    out, n = torch.empty_like(rast) if out is None else out, rast.numel() // 4
    with torch.cuda.device(rast.device):
        pixels = rast.shape[1] * rast.shape[2]
        _local_ids_kernel[(triton.cdiv(n, _BLOCK),)](rast.contiguous(), out, n, pixels, n_faces, BLOCK=_BLOCK)
    return out
