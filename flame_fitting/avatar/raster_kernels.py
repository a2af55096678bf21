"""Numba kernels that draw an avatar: visibility with alpha test, base colour, depth, normals.

Rasterization in homogeneous pixel coordinates (Olano and Greer, "Triangle Scan Conversion using 2D Homogeneous
Coordinates", 1997): no clipping, triangles behind the camera need no special case. Not differentiable; targets are
drawn once. Vertices are given as (x w, y w, w) with x, y in pixels and w the depth along the camera's z.

`no_type_check` keeps the tests' run-time type checker from wrapping what Numba has to compile.
"""

import math
from typing import no_type_check

import numba
import numpy as np

CLAY_GREY = 0.78
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
def _texel(texels, start, width, height, u, v, mode_u, mode_v, out):
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
def _edges(points, a, b, c, edge):
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
            if not _edges(corners, a, b, c, edge):
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
                            _texel(
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
    _texel(texels, start, w, h, u, v, part_table[part, 4], part_table[part, 5], sample)
    red, green, blue = sample[0], sample[1], sample[2]
    if blend > 0.0:
        start, w, h = _mip_start(start, w, h, 1)
        _texel(texels, start, w, h, u, v, part_table[part, 4], part_table[part, 5], sample)
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
    if not _edges(points, corner[0], corner[1], corner[2], edge):
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
