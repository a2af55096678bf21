"""Culling; launched by `render/fused.py`."""

import triton
import triton.language as tl


@triton.jit
def front_kernel(pos, tri, out, n_faces, n_vertices, BLOCK: tl.constexpr):
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
def instance_kernel(tri, front, out, n_faces, n_vertices, BLOCK: tl.constexpr):
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
def local_ids_kernel(rast, out, n, pixels, n_faces, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, 4)
    at = i[:, None] * 4 + channel[None, :]
    inside = (i < n)[:, None] & (channel >= 0)[None, :]
    value = tl.load(rast + at, mask=inside, other=0.0)
    start = ((i // pixels) * n_faces).to(tl.float32)[:, None]
    is_id = (channel == 3)[None, :]
    tl.store(out + at, tl.where(is_id, tl.maximum(value - start, 0.0), value), mask=inside)
