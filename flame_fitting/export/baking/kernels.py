"""Numba kernels that look up texels in pictures.

Places are homogeneous pixel coordinates of vertices (x w, y w, w), w the depth along the camera's z: those of a texel
are their mean by its barycentric coordinates, exactly. `no_type_check` keeps the tests' run-time type checker from
wrapping what Numba has to compile.
"""

import math
from typing import no_type_check

import numba
import numpy as np


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _four(x, y, width, height):
    """Columns, rows and shares of the four pixels around a place (px); the outermost pixels repeat."""
    x -= 0.5
    y -= 0.5
    left = math.floor(x)
    top = math.floor(y)
    right = min(max(left + 1, 0), width - 1)
    bottom = min(max(top + 1, 0), height - 1)
    return min(max(left, 0), width - 1), min(max(top, 0), height - 1), right, bottom, x - left, y - top


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def sample(places, normals, positions, eye, faces, face, barycentric, picture, own, avatar, color, geometry):
    """What one picture shows of n texels.

    Args:
        places, normals, positions: (V, 3) of the head's vertices; eye (3,) of the camera in the positions' frame.
        face, barycentric: (n,) and (n, 3) of the texels.
        picture: (H, W, 4) uint8, colour and alpha.
        own: (H, W) depth (m) of the head itself, large where it is not drawn.
        avatar: (H, W) depth (m) of what the picture shows, 0 where it shows nothing; (0, 0) where it is not known.
        color: (n, 3) is filled with sRGB 0..1.
        geometry: (n, 5) is filled with the cosine between normal and ray (0: the texel is not in the picture), pixels a
            metre, least alpha around, how far the head itself lies before the texel (m, along the ray), and how far
            the avatar lies before it (m, along the normal; NaN where it is not known, -1 where there is nothing).
    """
    height, width = picture.shape[:2]
    known = avatar.shape[0] > 0
    for k in range(len(face)):
        geometry[k, :] = 0.0
        color[k, :] = 0.0
        x = y = w = nx = ny = nz = rx = ry = rz = 0.0
        for c in range(3):
            v = faces[face[k], c]
            b = barycentric[k, c]
            x += b * places[v, 0]
            y += b * places[v, 1]
            w += b * places[v, 2]
            nx += b * normals[v, 0]
            ny += b * normals[v, 1]
            nz += b * normals[v, 2]
            rx += b * (eye[0] - positions[v, 0])
            ry += b * (eye[1] - positions[v, 1])
            rz += b * (eye[2] - positions[v, 2])
        if w <= 0.0:
            continue
        size = math.sqrt((nx * nx + ny * ny + nz * nz) * (rx * rx + ry * ry + rz * rz))
        cosine = (nx * rx + ny * ry + nz * rz) / max(size, 1e-20)
        x /= w
        y /= w
        if cosine <= 0.0 or x < 0.5 or y < 0.5 or x > width - 0.5 or y > height - 0.5:
            continue
        left, top, right, bottom, fx, fy = _four(x, y, width, height)
        alpha = 255.0
        before = 0.0
        shown = 0.0
        empty = False
        for j in range(2):
            row = bottom if j == 1 else top
            for i in range(2):
                column = right if i == 1 else left
                share = (fy if j == 1 else 1.0 - fy) * (fx if i == 1 else 1.0 - fx)
                for c in range(3):
                    color[k, c] += share * picture[row, column, c] / 255.0
                alpha = min(alpha, picture[row, column, 3])
                before += share * (w - own[row, column])
                if known:
                    depth = avatar[row, column]
                    empty = empty or depth <= 0.0
                    shown += share * depth
        geometry[k, 0] = cosine
        geometry[k, 2] = alpha / 255.0
        geometry[k, 3] = before
        if not known:
            geometry[k, 4] = np.nan
        elif empty:
            geometry[k, 4] = -1.0
        else:
            # along the ray a step of depth is as much longer than along z as the ray is
            ray = math.sqrt(rx * rx + ry * ry + rz * rz) / w
            geometry[k, 4] = (w - shown) * ray * cosine
        geometry[k, 1] = 1.0 / w


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def consensus(color, weight, sigma, rounds, mean, agrees):
    """Weighted mean colours (n, 3) of texels in B views, robust by Cauchy's weights of `sigma` (sRGB).

    `color` (B, n, 3) float16 or float32, `weight` (B, n). `agrees` (B, n) is filled with what each view counts for.
    """
    views, texels = weight.shape
    for k in range(texels):
        for b in range(views):
            agrees[b, k] = 1.0
        for _ in range(rounds + 1):
            total = red = green = blue = 0.0
            for b in range(views):
                share = weight[b, k] * agrees[b, k]
                if share > 0.0:
                    total += share
                    red += share * color[b, k, 0]
                    green += share * color[b, k, 1]
                    blue += share * color[b, k, 2]
            if total <= 0.0:
                mean[k, :] = 0.0
                break
            mean[k, 0] = red / total
            mean[k, 1] = green / total
            mean[k, 2] = blue / total
            for b in range(views):
                if weight[b, k] > 0.0:
                    apart = 0.0
                    for c in range(3):
                        apart += (color[b, k, c] - mean[k, c]) ** 2
                    agrees[b, k] = 1.0 / (1.0 + apart / (sigma * sigma))


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def add_view(places, faces, face, barycentric, picture, weight, shift, cells, ratio, total):
    """Adds one picture to a texture, at full size.

    Args:
        places: (V, 3) of the head's vertices.
        face, barycentric: (R, R) and (R, R, 3) of the texels, face -1 where there is none.
        picture: (H, W, 3) uint8.
        weight, shift: (C, C) and (C, C, 3) of a coarse texture, R = ratio C: what the picture counts for, and what is
            added to its colours (sRGB); both are read between their texels.
        cells: (m, 2) rows and columns of the coarse texels that have a weight, or are next to one that has.
        total: (R, R, 4) weighted colours and weights are added to.
    """
    height, width = picture.shape[:2]
    coarse = weight.shape[0]
    for m in range(len(cells)):
        for j in range(ratio):
            row = cells[m, 0] * ratio + j
            for i in range(ratio):
                column = cells[m, 1] * ratio + i
                f = face[row, column]
                if f < 0:
                    continue
                left, top, right, bottom, fx, fy = _four((column + 0.5) / ratio, (row + 0.5) / ratio, coarse, coarse)
                a = (1.0 - fy) * (1.0 - fx)
                b = (1.0 - fy) * fx
                c = fy * (1.0 - fx)
                d = fy * fx
                share = (
                    a * weight[top, left]
                    + b * weight[top, right]
                    + c * weight[bottom, left]
                    + d * weight[bottom, right]
                )
                if share <= 0.0:
                    continue
                x = y = w = 0.0
                for corner in range(3):
                    v = faces[f, corner]
                    part = barycentric[row, column, corner]
                    x += part * places[v, 0]
                    y += part * places[v, 1]
                    w += part * places[v, 2]
                if w <= 0.0:
                    continue
                x0, y0, x1, y1, gx, gy = _four(x / w, y / w, width, height)
                for k in range(3):
                    color = (1.0 - gy) * ((1.0 - gx) * picture[y0, x0, k] + gx * picture[y0, x1, k]) + gy * (
                        (1.0 - gx) * picture[y1, x0, k] + gx * picture[y1, x1, k]
                    )
                    moved = (
                        a * shift[top, left, k]
                        + b * shift[top, right, k]
                        + c * shift[bottom, left, k]
                        + d * shift[bottom, right, k]
                    )
                    total[row, column, k] += share * (color / 255.0 + moved)
                total[row, column, 3] += share
