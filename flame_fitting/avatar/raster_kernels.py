"""Numba kernels that find what a mesh shows at every pixel: visibility with alpha test.

Rasterization in homogeneous pixel coordinates (Olano and Greer, "Triangle Scan Conversion using 2D Homogeneous
Coordinates", 1997): no clipping, triangles behind the camera need no special case. Not differentiable; targets are
drawn once. Vertices are given as (x w, y w, w) with x, y in pixels and w the depth along the camera's z.

`no_type_check` keeps the tests' run-time type checker from wrapping what Numba has to compile.
"""

import math
from typing import no_type_check

import numba
import numpy as np

_EDGE = -1e-9  # pixels on a shared edge belong to both triangles, so that rounding leaves no crack


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _wrapped(value, mode):
    """A texture coordinate brought to 0..1: repeat (0), clamp (1), mirror (2)."""
    if mode == 1:
        return min(max(value, 0.0), 1.0)
    if mode == 2:
        turned = value - 2.0 * math.floor(0.5 * value)
        return turned if turned <= 1.0 else 2.0 - turned
    return value - math.floor(value)


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _neighbour(index, size, mode):
    if index < 0:
        return size - 1 if mode == 0 else 0
    if index >= size:
        return 0 if mode == 0 else size - 1
    return index


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def texel_at(texels, start, width, height, u, v, mode_u, mode_v, out):
    """Bilinear RGBA (0..1) at u, v (v up); colours are weighted by alpha, so hidden texels do not bleed."""
    x = _wrapped(u, mode_u) * width - 0.5
    y = _wrapped(1.0 - v, mode_v) * height - 0.5
    x0 = math.floor(x)
    y0 = math.floor(y)
    fx = x - x0
    fy = y - y0
    red = green = blue = alpha = 0.0
    for j in range(2):
        row = _neighbour(y0 + j, height, mode_v)
        wy = fy if j == 1 else 1.0 - fy
        for i in range(2):
            column = _neighbour(x0 + i, width, mode_u)
            texel = start + row * width + column
            weight = wy * (fx if i == 1 else 1.0 - fx) * texels[texel, 3]
            red += weight * texels[texel, 0]
            green += weight * texels[texel, 1]
            blue += weight * texels[texel, 2]
            alpha += weight
    scale = 1.0 / (255.0 * alpha) if alpha > 0.0 else 0.0
    out[0] = red * scale
    out[1] = green * scale
    out[2] = blue * scale
    out[3] = alpha / 255.0


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def corner_edges(points, a, b, c, edge):
    """Rows of the adjugate of the corner matrix, divided by its determinant; False for an edge-on triangle.

    `edge[k] @ (x, y, 1)` is then the k-th perspective-correct barycentric coordinate divided by the depth.
    """
    for k in range(3):
        i = b if k == 0 else (c if k == 1 else a)
        j = c if k == 0 else (a if k == 1 else b)
        edge[k, 0] = points[i, 1] * points[j, 2] - points[i, 2] * points[j, 1]
        edge[k, 1] = points[i, 2] * points[j, 0] - points[i, 0] * points[j, 2]
        edge[k, 2] = points[i, 0] * points[j, 1] - points[i, 1] * points[j, 0]
    determinant = edge[0, 0] * points[a, 0] + edge[0, 1] * points[a, 1] + edge[0, 2] * points[a, 2]
    if determinant == 0.0 or not math.isfinite(determinant):
        return False
    for k in range(3):
        for m in range(3):
            edge[k, m] /= determinant
    return True


@numba.njit(cache=True, error_model="numpy", parallel=True)
@no_type_check
def rasterize(
    points, faces, face_part, part_table, part_factor, uv, vertex_alpha, texels, near, bands, inverse, winner
):
    """Fills `inverse` (B, H, W) with 1/depth of the nearest surface (0 outside), `winner` (B, H, W) with its face (-1).

    part_table (P, 8): texture start, width, height, mips, wrap u, wrap v, alpha-tested, has vertex colours.
    part_factor (P, 5): base colour RGBA and alpha cutoff.
    """
    views, height, width = inverse.shape
    for task in numba.prange(views * bands):
        view = task // bands
        band = task % bands
        top = band * height // bands
        bottom = (band + 1) * height // bands
        depth = inverse[view]
        index = winner[view]
        corners = points[view]
        depth[top:bottom] = 0.0
        index[top:bottom] = -1
        edge = np.empty((3, 3))
        color = np.empty(4)
        limit = 1.0 / near
        for face in range(faces.shape[0]):
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            wa, wb, wc = corners[a, 2], corners[b, 2], corners[c, 2]
            if wa < near and wb < near and wc < near:
                continue
            x_low, x_high, y_low, y_high = 0, width - 1, top, bottom - 1
            if wa > near and wb > near and wc > near:
                ya, yb, yc = corners[a, 1] / wa, corners[b, 1] / wb, corners[c, 1] / wc
                y_low = max(top, math.ceil(max(min(ya, yb, yc), -1.0) - 0.5))
                y_high = min(bottom - 1, math.floor(min(max(ya, yb, yc), height + 1.0) - 0.5))
                if y_low > y_high:
                    continue
                xa, xb, xc = corners[a, 0] / wa, corners[b, 0] / wb, corners[c, 0] / wc
                x_low = max(0, math.ceil(max(min(xa, xb, xc), -1.0) - 0.5))
                x_high = min(width - 1, math.floor(min(max(xa, xb, xc), width + 1.0) - 0.5))
                if x_low > x_high:
                    continue
            if not corner_edges(corners, a, b, c, edge):
                continue
            part = face_part[face]
            tested = part_table[part, 6] != 0
            for y in range(y_low, y_high + 1):
                py = y + 0.5
                base0 = edge[0, 1] * py + edge[0, 2]
                base1 = edge[1, 1] * py + edge[1, 2]
                base2 = edge[2, 1] * py + edge[2, 2]
                for x in range(x_low, x_high + 1):
                    px = x + 0.5
                    e0 = edge[0, 0] * px + base0
                    e1 = edge[1, 0] * px + base1
                    e2 = edge[2, 0] * px + base2
                    total = e0 + e1 + e2
                    if total <= 0.0 or total > limit:
                        continue
                    low = _EDGE * total
                    if e0 < low or e1 < low or e2 < low or total <= depth[y, x]:
                        continue
                    if tested:
                        alpha = part_factor[part, 3]
                        if part_table[part, 7] != 0:
                            alpha *= (e0 * vertex_alpha[a] + e1 * vertex_alpha[b] + e2 * vertex_alpha[c]) / total
                        if part_table[part, 1] > 0:
                            u = (e0 * uv[a, 0] + e1 * uv[b, 0] + e2 * uv[c, 0]) / total
                            v = (e0 * uv[a, 1] + e1 * uv[b, 1] + e2 * uv[c, 1]) / total
                            texel_at(
                                texels,
                                part_table[part, 0],
                                part_table[part, 1],
                                part_table[part, 2],
                                u,
                                v,
                                part_table[part, 4],
                                part_table[part, 5],
                                color,
                            )
                            alpha *= color[3]
                        if alpha < part_factor[part, 4]:
                            continue
                    depth[y, x] = total
                    index[y, x] = face
