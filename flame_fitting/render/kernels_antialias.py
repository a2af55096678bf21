"""Numba kernels: silhouette antialiasing and its gradients (Laine et al. 2020, section 3.5)."""

import math
from typing import no_type_check

import numpy as np

from flame_fitting.render.jit import inline, kernel

_SLACK = 1.0 / 16.0  # snapping moves edges by up to this many pixels


@kernel
@no_type_check
def screen_positions(first, last, pos, height, width, out):
    """Vertices in pixels from the picture's centre: out (B, V, 2) float64. Tasks are vertices, over all views."""
    for task in range(first, last):
        b, i = task // pos.shape[1], task % pos.shape[1]
        inv = 1.0 / np.float64(pos[b, i, 3])
        out[b, i, 0] = pos[b, i, 0] * inv * (0.5 * width)
        out[b, i, 1] = pos[b, i, 1] * inv * (0.5 * height)


@inline
@no_type_check
def _left_of(screen, b, i, j, k):
    """Whether vertex i lies left of the line from j to k."""
    jx, jy = screen[b, j, 0] - screen[b, i, 0], screen[b, j, 1] - screen[b, i, 1]
    kx, ky = screen[b, k, 0] - screen[b, i, 0], screen[b, k, 1] - screen[b, i, 1]
    return jx * ky - kx * jy < 0.0


@kernel
@no_type_check
def silhouette_edges(first, last, screen, tri, opposite, out):
    """Bit k of out (B, F) uint8: the edge opposite corner k is a silhouette. Tasks are faces, over all views."""
    n_faces = tri.shape[0]
    for task in range(first, last):
        b, f = task // n_faces, task % n_faces
        i0, i1, i2 = tri[f, 0], tri[f, 1], tri[f, 2]
        side = _left_of(screen, b, i0, i1, i2)
        code = 0
        if opposite[f, 0] < 0 or _left_of(screen, b, opposite[f, 0], i1, i2) == side:
            code |= 1
        if opposite[f, 1] < 0 or _left_of(screen, b, opposite[f, 1], i2, i0) == side:
            code |= 2
        if opposite[f, 2] < 0 or _left_of(screen, b, opposite[f, 2], i0, i1) == side:
            code |= 4
        out[b, f] = code


@inline
@no_type_check
def _front_face(id0, z0, id1, z1):
    """Of two neighbouring pixels with different faces: the nearer face and whether it is the second pixel's."""
    if id0 == 0.0 or (id1 != 0.0 and not z0 < z1):
        return np.int64(id1) - 1, True
    return np.int64(id0) - 1, False


@kernel
@no_type_check
def find_candidates(first, last, rast, flags, n_bands, candidate, count):
    """Marks pixel pairs whose nearer face has a silhouette edge.

    candidate (B, H, W) uint8: bit 0 for the pair with the right, bit 1 for the pair with the lower neighbour; bits 2
    and 3 say that the neighbour's face is the nearer one. count (B * n_bands,) of pairs in each (view, band).
    """
    height, width = rast.shape[1], rast.shape[2]
    for task in range(first, last):
        b = task // n_bands
        band = task % n_bands
        found = 0
        for j in range(height * band // n_bands, height * (band + 1) // n_bands):
            down = min(j + 1, height - 1)
            for i in range(width):
                right = min(i + 1, width - 1)
                id0 = rast[b, j, i, 3]
                id_right = rast[b, j, right, 3]
                id_down = rast[b, down, i, 3]
                bits = 0
                if id0 != id_right:
                    face, second = _front_face(id0, rast[b, j, i, 2], id_right, rast[b, j, right, 2])
                    if flags[b, face] != 0:
                        bits |= 5 if second else 1
                        found += 1
                if id0 != id_down:
                    face, second = _front_face(id0, rast[b, j, i, 2], id_down, rast[b, down, i, 2])
                    if flags[b, face] != 0:
                        bits |= 10 if second else 2
                        found += 1
                candidate[b, j, i] = bits
        count[task] = found


@inline
@no_type_check
def _crossing(screen, b, ia, ib, fx, fy, down):
    """Where the edge a-b crosses the line through the pixel centre along the pair; -inf if it does not.

    Also the edge's steepness test: an edge flatter than 45 degrees belongs to the pairs of the other direction.
    """
    if down:
        xa, ya = screen[b, ia, 1] - fy, screen[b, ia, 0] - fx
        xb, yb = screen[b, ib, 1] - fy, screen[b, ib, 0] - fx
    else:
        xa, ya = screen[b, ia, 0] - fx, screen[b, ia, 1] - fy
        xb, yb = screen[b, ib, 0] - fx, screen[b, ib, 1] - fy
    if (ya < 0.0) == (yb < 0.0):
        return -math.inf, False
    dx, dy = xb - xa, yb - ya
    return (xa * dy - ya * dx) / dy, abs(dy) >= abs(dx)


@kernel
@no_type_check
def find_crossings(first, last, rast, screen, tri, flags, candidate, n_bands, start, pixel, code, alpha):
    """Fills the items of each (view, band) from start[task] on: pixel index in the view, code and alpha.

    code = 4 * neighbour's face + 8 * down + edge. alpha is the blending weight of Laine et al. 2020: positive blends
    the neighbour into the pixel, negative the pixel into the neighbour, 0 marks a candidate without a crossing.
    """
    height, width = rast.shape[1], rast.shape[2]
    for task in range(first, last):
        b = task // n_bands
        band = task % n_bands
        n = start[task]
        for j in range(height * band // n_bands, height * (band + 1) // n_bands):
            for i in range(width):
                bits = candidate[b, j, i]
                if bits == 0:
                    continue
                for d in range(2):
                    if not (bits >> d) & 1:
                        continue
                    down = d == 1
                    neighbour = ((bits >> (d + 2)) & 1) != 0
                    jf = j + 1 if neighbour and down else j
                    i_f = i + 1 if neighbour and not down else i
                    face = np.int64(rast[b, jf, i_f, 3]) - 1
                    fx = i_f + 0.5 - 0.5 * width
                    fy = jf + 0.5 - 0.5 * height
                    sign = -1.0 if neighbour else 1.0
                    # The edge through which the line leaves the face toward the other pixel.
                    best = -math.inf
                    best_edge = 0
                    best_steep = False
                    for e in range(3):
                        ia = tri[face, (e + 1) % 3]
                        ib = tri[face, (e + 2) % 3]
                        x, steep = _crossing(screen, b, ia, ib, fx, fy, down)
                        if x > -math.inf and sign * x > best:
                            best = sign * x
                            best_edge = e
                            best_steep = steep
                    weight = 0.0
                    if best_steep and (flags[b, face] >> best_edge) & 1 and -_SLACK < best < 1.0 + _SLACK:
                        weight = sign * (0.5 - min(max(best, 0.0), 1.0))
                    pixel[n] = j * width + i
                    code[n] = best_edge + (4 if neighbour else 0) + (8 if down else 0)
                    alpha[n] = weight
                    n += 1


@kernel
@no_type_check
def blend(first, last, color, start, pixel, code, alpha, width, out):
    """Adds the blends of view b, items start[b] to start[b + 1], to out (B, H * W, C), which holds a copy of color."""
    n_channels = color.shape[2]
    for b in range(first, last):
        for n in range(start[b], start[b + 1]):
            a = alpha[n]
            if a == 0.0:
                continue
            p0 = pixel[n]
            p1 = p0 + (width if code[n] & 8 else 1)
            target = p0 if a > 0.0 else p1
            for k in range(n_channels):
                out[b, target, k] += a * (color[b, p1, k] - color[b, p0, k])


@kernel
@no_type_check
def blend_backward(
    first, last, color, rast, pos, screen, tri, start, pixel, code, alpha, grad_out, grad_color, grad_pos, need_pos
):
    """Adds to grad_color (B, H * W, C), which holds a copy of grad_out, and to grad_pos (B, V, 4)."""
    height, width = rast.shape[1], rast.shape[2]
    n_channels = color.shape[2]
    for b in range(first, last):
        for n in range(start[b], start[b + 1]):
            a = alpha[n]
            if a == 0.0:
                continue
            down = (code[n] & 8) != 0
            p0 = np.int64(pixel[n])
            p1 = p0 + (width if down else 1)
            target = p0 if a > 0.0 else p1
            slope = 0.0
            for k in range(n_channels):
                g = grad_out[b, target, k]
                if g != 0.0:
                    slope += np.float64(g) * (color[b, p1, k] - color[b, p0, k])
                    grad_color[b, p0, k] -= a * g
                    grad_color[b, p1, k] += a * g
            if not need_pos or slope == 0.0 or abs(a) >= 0.5:
                continue
            own = p1 if code[n] & 4 else p0
            j, i = own // width, own % width
            face = np.int64(rast[b, j, i, 3]) - 1
            edge = code[n] & 3
            ia, ib = tri[face, (edge + 1) % 3], tri[face, (edge + 2) % 3]
            fx = i + 0.5 - 0.5 * width
            fy = j + 0.5 - 0.5 * height
            # Axis x runs along the pair, y across it.
            ax, ay = (1, 0) if down else (0, 1)
            half_x, half_y = (0.5 * height, 0.5 * width) if down else (0.5 * width, 0.5 * height)
            cx, cy = (fy, fx) if down else (fx, fy)
            xa, ya = screen[b, ia, ax] - cx, screen[b, ia, ay] - cy
            xb, yb = screen[b, ib, ax] - cx, screen[b, ib, ay] - cy
            dx, dy = xb - xa, yb - ya
            # nvdiffrast's guard against edges that are almost parallel to the pair.
            inv = 1.0 / (dy + math.copysign(1e-3, dy))
            cross = (xa * dy - ya * dx) * inv
            wa, wb = 1.0 / np.float64(pos[b, ia, 3]), 1.0 / np.float64(pos[b, ib, 3])
            # alpha = sign / 2 - crossing.
            gxa = -slope * inv * yb * half_x * wa
            gya = -slope * inv * (cross - xb) * half_y * wa
            gxb = slope * inv * ya * half_x * wb
            gyb = slope * inv * (cross - xa) * half_y * wb
            grad_pos[b, ia, ax] += gxa
            grad_pos[b, ia, ay] += gya
            grad_pos[b, ia, 3] -= (pos[b, ia, ax] * gxa + pos[b, ia, ay] * gya) * wa
            grad_pos[b, ib, ax] += gxb
            grad_pos[b, ib, ay] += gyb
            grad_pos[b, ib, 3] -= (pos[b, ib, ax] * gxb + pos[b, ib, ay] * gyb) * wb
