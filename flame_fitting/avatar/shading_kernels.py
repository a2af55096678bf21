"""Numba kernels that draw what `raster_kernels` has found: base colour and light, depth, normals.

`no_type_check` keeps the tests' run-time type checker from wrapping what Numba has to compile.
"""

import math
from typing import no_type_check

import numba
import numpy as np

from flame_fitting.avatar.lights import CLAY_GREY
from flame_fitting.avatar.raster_kernels import corner_edges, texel_at


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _mip_start(start, width, height, level):
    for _ in range(level):
        start += width * height
        width = max(1, (width + 1) // 2)
        height = max(1, (height + 1) // 2)
    return start, width, height


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _base_color(
    face, corner, edge, px, py, weights, part, part_table, part_factor, uv, vertex_colors, texels, sample, out
):
    """RGB of the surface at a pixel: factor x vertex colour x texture (trilinear)."""
    for k in range(3):
        out[k] = part_factor[part, k]
    if part_table[part, 7] != 0:
        for k in range(3):
            value = 0.0
            for m in range(3):
                value += weights[m] * vertex_colors[corner[m], k]
            out[k] *= value
    if part_table[part, 1] == 0:
        return
    width, height = part_table[part, 1], part_table[part, 2]
    u = v = 0.0
    for m in range(3):
        u += weights[m] * uv[corner[m], 0]
        v += weights[m] * uv[corner[m], 1]
    # Footprint of a pixel in texels, from the texture coordinates one pixel to the right and below.
    longest = 0.0
    for axis in range(2):
        total = nu = nv = 0.0
        for m in range(3):
            value = edge[m, 0] * (px + (1 - axis)) + edge[m, 1] * (py + axis) + edge[m, 2]
            total += value
            nu += value * uv[corner[m], 0]
            nv += value * uv[corner[m], 1]
        if total > 0.0:
            du = (nu / total - u) * width
            dv = (nv / total - v) * height
            longest = max(longest, du * du + dv * dv)
    level = 0.5 * math.log2(longest) if longest > 1.0 else 0.0
    level = min(level, part_table[part, 3] - 1.0)
    low = int(level)
    blend = level - low
    start, w, h = _mip_start(part_table[part, 0], width, height, low)
    texel_at(texels, start, w, h, u, v, part_table[part, 4], part_table[part, 5], sample)
    red, green, blue = sample[0], sample[1], sample[2]
    if blend > 0.0:
        start, w, h = _mip_start(start, w, h, 1)
        texel_at(texels, start, w, h, u, v, part_table[part, 4], part_table[part, 5], sample)
        red += blend * (sample[0] - red)
        green += blend * (sample[1] - green)
        blue += blend * (sample[2] - blue)
    out[0] *= red
    out[1] *= green
    out[2] *= blue


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _normal(vertices, normals, corner, weights, eye, position, out):
    """Unit normal that faces the camera: the smooth one where it agrees with the triangle's, else the triangle's."""
    a, b, c = corner[0], corner[1], corner[2]
    gx = gy = gz = 0.0
    ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
    vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
    gx, gy, gz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = math.sqrt(gx * gx + gy * gy + gz * gz)
    length = length if length > 0.0 else 1.0
    facing = gx * (eye[0] - position[0]) + gy * (eye[1] - position[1]) + gz * (eye[2] - position[2])
    length = -length if facing < 0.0 else length
    gx, gy, gz = gx / length, gy / length, gz / length
    nx = ny = nz = 0.0
    for m in range(3):
        # Each corner is turned to the triangle's side first: signs differ where the winding is mixed.
        i = corner[m]
        side = normals[i, 0] * gx + normals[i, 1] * gy + normals[i, 2] * gz
        weight = -weights[m] if side < 0.0 else weights[m]
        nx += weight * normals[i, 0]
        ny += weight * normals[i, 1]
        nz += weight * normals[i, 2]
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    if length < 1e-6 or nx * gx + ny * gy + nz * gz < 0.2 * length:
        out[0], out[1], out[2] = gx, gy, gz
    else:
        out[0], out[1], out[2] = nx / length, ny / length, nz / length


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _surface(points, faces, face, px, py, edge, corner, weights):
    """Corners, perspective-correct barycentric coordinates of a pixel; False where the face is edge-on."""
    for m in range(3):
        corner[m] = faces[face, m]
    if not corner_edges(points, corner[0], corner[1], corner[2], edge):
        return False
    total = 0.0
    for m in range(3):
        weights[m] = edge[m, 0] * px + edge[m, 1] * py + edge[m, 2]
        total += weights[m]
    for m in range(3):
        weights[m] /= total
    return True


@numba.njit(cache=True, error_model="numpy", parallel=True)
@no_type_check
def shade(
    points,
    vertices,
    normals,
    occlusion,
    faces,
    face_part,
    part_table,
    part_factor,
    uv,
    vertex_colors,
    texels,
    winner,
    supersample,
    eyes,
    lights,
    light_color,
    ambient,
    mode,
    background,
    image,
    alpha,
):
    """Averages `supersample`^2 samples per pixel into image (B, 3, H, W) over `background`, and alpha (B, H, W).

    mode 0: base colour; 1: base colour x light; 2: grey clay x light. lights (B, L, 3) are unit vectors in the world,
    the last one is the sky (wrapped around); light_color (L,), ambient: grey intensities.
    """
    views, height, width = alpha.shape
    for task in numba.prange(views * height):
        view = task // height
        y = task % height
        edge = np.empty((3, 3))
        corner = np.empty(3, np.int64)
        weights = np.empty(3)
        sample = np.empty(4)
        color = np.empty(3)
        normal = np.empty(3)
        position = np.empty(3)
        for x in range(width):
            red = green = blue = 0.0
            hits = 0
            for j in range(supersample):
                for i in range(supersample):
                    sy, sx = y * supersample + j, x * supersample + i
                    face = winner[view, sy, sx]
                    if face < 0:
                        continue
                    if not _surface(points[view], faces, face, sx + 0.5, sy + 0.5, edge, corner, weights):
                        continue
                    hits += 1
                    if mode == 2:
                        color[0] = color[1] = color[2] = CLAY_GREY
                    else:
                        _base_color(
                            face,
                            corner,
                            edge,
                            sx + 0.5,
                            sy + 0.5,
                            weights,
                            face_part[face],
                            part_table,
                            part_factor,
                            uv,
                            vertex_colors,
                            texels,
                            sample,
                            color,
                        )
                    light = 1.0
                    if mode != 0:
                        shadow = 0.0
                        for k in range(3):
                            position[k] = 0.0
                        for m in range(3):
                            shadow += weights[m] * occlusion[corner[m]]
                            for k in range(3):
                                position[k] += weights[m] * vertices[corner[m], k]
                        _normal(vertices, normals, corner, weights, eyes[view], position, normal)
                        light = ambient
                        last = lights.shape[1] - 1
                        for m in range(last + 1):
                            cosine = (
                                normal[0] * lights[view, m, 0]
                                + normal[1] * lights[view, m, 1]
                                + normal[2] * lights[view, m, 2]
                            )
                            light += light_color[m] * (0.5 + 0.5 * cosine if m == last else max(cosine, 0.0))
                        light *= shadow
                    red += min(color[0] * light, 1.0)
                    green += min(color[1] * light, 1.0)
                    blue += min(color[2] * light, 1.0)
            count = supersample * supersample
            rest = count - hits
            alpha[view, y, x] = hits / count
            image[view, 0, y, x] = (red + rest * background[0]) / count
            image[view, 1, y, x] = (green + rest * background[1]) / count
            image[view, 2, y, x] = (blue + rest * background[2]) / count


@numba.njit(cache=True, error_model="numpy", parallel=True)
@no_type_check
def geometry(points, vertices, normals, faces, inverse, winner, eyes, depth, normal_map):
    """Depth (B, H, W) and camera-facing normals (B, H, W, 3) at pixel centres; 0 outside."""
    views, height, width = depth.shape
    for task in numba.prange(views * height):
        view = task // height
        y = task % height
        edge = np.empty((3, 3))
        corner = np.empty(3, np.int64)
        weights = np.empty(3)
        normal = np.empty(3)
        position = np.empty(3)
        for x in range(width):
            face = winner[view, y, x]
            depth[view, y, x] = 0.0
            normal_map[view, y, x] = 0.0
            if face < 0:
                continue
            depth[view, y, x] = 1.0 / inverse[view, y, x]
            if not _surface(points[view], faces, face, x + 0.5, y + 0.5, edge, corner, weights):
                continue
            for k in range(3):
                position[k] = 0.0
                for m in range(3):
                    position[k] += weights[m] * vertices[corner[m], k]
            _normal(vertices, normals, corner, weights, eyes[view], position, normal)
            for k in range(3):
                normal_map[view, y, x, k] = normal[k]
