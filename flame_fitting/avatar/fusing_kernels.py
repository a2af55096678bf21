"""Numba kernel that asks several depth maps where a surface is (Curless and Levoy 1996, at the pixels of one view).

The truncated signed distances that a grid would hold are taken at points on the rays of the pixels that are asked for:
no grid, no size of its cells, no triangles. The median takes the place of the mean, so that views which look through
a surface, or past its rim, have no say.
"""

import math
from typing import no_type_check

import numpy as np

from flame_fitting.render.jit import inline, kernel

SQUARE = 0.25
"""Cosine between a surface's normal and a ray below which a depth says nothing."""
_SHORT = 0.3  # cosine that steps along a ray are taken for at least


@inline
@no_type_check
def _depth_at(depth, x, y, most):
    """Depth (H, W) between pixels; 0 where any of the four shows nothing or they are a step of more than `most`."""
    column, row = math.floor(x - 0.5), math.floor(y - 0.5)
    if row < 0 or column < 0 or row + 1 >= depth.shape[0] or column + 1 >= depth.shape[1]:
        return 0.0
    a, b = depth[row, column], depth[row, column + 1]
    c, d = depth[row + 1, column], depth[row + 1, column + 1]
    least = min(min(a, b), min(c, d))
    if least <= 0.0 or max(max(a, b), max(c, d)) - least > most:
        return 0.0
    u, v = x - 0.5 - column, y - 0.5 - row
    return (a * (1.0 - u) + b * u) * (1.0 - v) + (c * (1.0 - u) + d * u) * v


@kernel
@no_type_check
def settle(
    first, last, depths, normals, lenses, cameras, eyes, reach, rounds,
    depth, normal, lens, camera, eye, settled, noise,
):  # fmt: skip
    """Rows of one view's depth (H, W), moved along its rays to where V other views have the surface.

    depths (V, H, W), normals (V, H, W, 3), lenses (V, 4): fx, fy, cx, cy, cameras (V, 3, 4), eyes (V, 3); `reach` is
    the farthest distance that counts as the same surface. settled (H, W): the new depth. noise (H, W): how far the
    views are apart, a standard deviation along the normal; `reach` where fewer than 3 have a say.
    """
    count = len(depths)
    apart = np.empty(count)
    for row in range(first, last):
        for column in range(depth.shape[1]):
            z = depth[row, column]
            settled[row, column], noise[row, column] = z, 0.0
            if z <= 0.0:
                continue
            u, v = (column + 0.5 - lens[2]) / lens[0], (row + 0.5 - lens[3]) / lens[1]
            dx = camera[0, 0] * u + camera[1, 0] * v + camera[2, 0]
            dy = camera[0, 1] * u + camera[1, 1] * v + camera[2, 1]
            dz = camera[0, 2] * u + camera[1, 2] * v + camera[2, 2]
            long = math.sqrt(dx * dx + dy * dy + dz * dz)
            nx, ny, nz = normal[row, column, 0], normal[row, column, 1], normal[row, column, 2]
            cosine = max(-(nx * dx + ny * dy + nz * dz) / long, _SHORT)
            noise[row, column] = reach
            for turn in range(rounds + 1):
                x, y, w = eye[0] + z * dx, eye[1] + z * dy, eye[2] + z * dz
                found = 0
                for k in range(count):
                    rx, ry, rz = eyes[k, 0] - x, eyes[k, 1] - y, eyes[k, 2] - w
                    away = math.sqrt(rx * rx + ry * ry + rz * rz)
                    if nx * rx + ny * ry + nz * rz < SQUARE * away:
                        continue
                    c = cameras[k]
                    at = c[2, 0] * x + c[2, 1] * y + c[2, 2] * w + c[2, 3]
                    if at <= 0.0:
                        continue
                    px = lenses[k, 0] * (c[0, 0] * x + c[0, 1] * y + c[0, 2] * w + c[0, 3]) / at + lenses[k, 2]
                    py = lenses[k, 1] * (c[1, 0] * x + c[1, 1] * y + c[1, 2] * w + c[1, 3]) / at + lenses[k, 3]
                    there = _depth_at(depths[k], px, py, 2.0 * reach)
                    if there <= 0.0:
                        continue
                    i, j = min(int(py), depths.shape[1] - 1), min(int(px), depths.shape[2] - 1)
                    turned = (normals[k, i, j, 0] * rx + normals[k, i, j, 1] * ry + normals[k, i, j, 2] * rz) / away
                    if turned < SQUARE:
                        continue
                    distance = (there - at) * turned * away / at
                    if distance < -reach:  # something else hides it there
                        continue
                    apart[found] = min(distance, reach)
                    found += 1
                if found == 0:
                    break
                shift = np.median(apart[:found])
                if turn < rounds:
                    z += shift / (cosine * long)
                elif found >= 3:
                    noise[row, column] = min(1.4826 * np.median(np.abs(apart[:found] - shift)), reach)
            if abs(z - depth[row, column]) * long <= 4.0 * reach:
                settled[row, column] = z
