"""Numba kernels: scan conversion in exact integers, barycentrics, and their gradients.

Vertices are snapped to 1/16 pixel and coverage is decided by integer edge functions, as CudaRaster does (Laine and
Karras 2011, "High-Performance Software Rasterization on GPUs"), so that shared edges neither leak nor overlap. What is
written out is computed from the unsnapped positions.

Work is cut into bands of rows whose number depends on the number of views alone, never on the number of threads.
"""

import math
from typing import no_type_check

import numpy as np

from flame_fitting.render.jit import inline, kernel

_SUBPIXELS = 16
_LIMIT = 1 << 26  # snapped coordinates up to here keep 64-bit edge functions exact
_NEAR = 1
_LEFT = 2
_RIGHT = 4
_TOP = 8
_BOTTOM = 16
_FAR = 32
_UNSNAPPED = 64


@inline
@no_type_check
def _snap(x, y, w, half_w, half_h):
    """Clip-space x, y, w to 1/16 pixel, origin at the outer corner of pixel (0, 0)."""
    inv = np.float32(1.0) / np.float32(w)
    sx = np.rint(np.float32(x) * inv * np.float32(half_w))
    sy = np.rint(np.float32(y) * inv * np.float32(half_h))
    return np.int64(sx) + half_w, np.int64(sy) + half_h


@kernel
@no_type_check
def project_vertices(first, last, pos, height, width, snapped, depth, outcode):
    """Snapped positions (B, V, 2) int32, depths z/w (B, V) float64 and outcodes (B, V) uint8 of pos (B, V, 4).

    Tasks are vertices, over all views.
    """
    half_w = width * (_SUBPIXELS // 2)
    half_h = height * (_SUBPIXELS // 2)
    for task in range(first, last):
        b, i = task // pos.shape[1], task % pos.shape[1]
        x, y, z, w = pos[b, i, 0], pos[b, i, 1], pos[b, i, 2], pos[b, i, 3]
        code = 0
        if not (z >= -w):  # also true of NaN
            code |= _NEAR
        if z > w:
            code |= _FAR
        if x < -w:
            code |= _LEFT
        if x > w:
            code |= _RIGHT
        if y < -w:
            code |= _TOP
        if y > w:
            code |= _BOTTOM
        limit = w * np.float32(_LIMIT)
        if w > 0 and abs(x) * half_w < limit and abs(y) * half_h < limit:
            sx, sy = _snap(x, y, w, half_w, half_h)
            snapped[b, i, 0] = sx
            snapped[b, i, 1] = sy
            depth[b, i] = np.float64(z) / np.float64(w)
        else:
            code |= _UNSNAPPED
            snapped[b, i, 0] = 0
            snapped[b, i, 1] = 0
            depth[b, i] = 0.0
        outcode[b, i] = code


@inline
@no_type_check
def _fill_triangle(x0, y0, z0, x1, y1, z1, x2, y2, z2, label, row0, row1, width, zbuffer, index):
    """Draws one snapped triangle into rows row0 <= j < row1; `zbuffer` and `index` hold these rows only."""
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    if area == 0:
        return
    if area < 0:
        x1, x2 = x2, x1
        y1, y2 = y2, y1
        z1, z2 = z2, z1
        area = -area
    i_min = max((min(x0, x1, x2) + 7) >> 4, 0)
    i_max = min((max(x0, x1, x2) - 8) >> 4, width - 1)
    j_min = max((min(y0, y1, y2) + 7) >> 4, row0)
    j_max = min((max(y0, y1, y2) - 8) >> 4, row1 - 1)
    if i_min > i_max or j_min > j_max:
        return
    dx01, dy01 = x1 - x0, y1 - y0
    dx12, dy12 = x2 - x1, y2 - y1
    dx20, dy20 = x0 - x2, y0 - y2
    cx = i_min * 16 + 8
    cy = j_min * 16 + 8
    # A centre on an edge belongs to the triangle on one side of it: subtracting 1 makes the edge exclusive.
    e01 = (x0 - cx) * dy01 - (y0 - cy) * dx01 - (1 if dy01 > 0 or (dy01 == 0 and dx01 <= 0) else 0)
    e12 = (x1 - cx) * dy12 - (y1 - cy) * dx12 - (1 if dy12 > 0 or (dy12 == 0 and dx12 <= 0) else 0)
    e20 = (x2 - cx) * dy20 - (y2 - cy) * dx20 - (1 if dy20 > 0 or (dy20 == 0 and dx20 <= 0) else 0)
    step_x01, step_x12, step_x20 = 16 * dy01, 16 * dy12, 16 * dy20
    inv_area = 1.0 / area
    zx = ((z1 - z0) * -dy20 - (z2 - z0) * dy01) * inv_area
    zy = ((z2 - z0) * dx01 + (z1 - z0) * dx20) * inv_area
    for j in range(j_min, j_max + 1):
        f01, f12, f20 = e01, e12, e20
        r = j - row0
        # Anchored at the vertex, so that the depth does not depend on the band.
        z_row = z0 + zy * (j * 16 + 8 - y0) + zx * (8 - x0)
        for i in range(i_min, i_max + 1):
            if (f01 | f12 | f20) >= 0:
                z = z_row + zx * (16 * i)
                if z <= zbuffer[r, i]:
                    zbuffer[r, i] = z
                    index[r, i] = label
            f01 -= step_x01
            f12 -= step_x12
            f20 -= step_x20
        e01 += 16 * dx01
        e12 += 16 * dx12
        e20 += 16 * dx20


@inline
@no_type_check
def _clip_plane(src, n, dst, a, b, c, d):
    """Keeps the part of the polygon src (n, 4) with a x + b y + c z + d w >= 0. Returns the new corner count."""
    m = 0
    for i in range(n):
        k = i + 1 if i + 1 < n else 0
        di = a * src[i, 0] + b * src[i, 1] + c * src[i, 2] + d * src[i, 3]
        dk = a * src[k, 0] + b * src[k, 1] + c * src[k, 2] + d * src[k, 3]
        if di >= 0:
            for q in range(4):
                dst[m, q] = src[i, q]
            m += 1
        if (di >= 0) != (dk >= 0):
            # From the kept corner to the dropped one, so that both triangles at an edge get the same point.
            if di >= 0:
                t = di / (di - dk)
                for q in range(4):
                    dst[m, q] = src[i, q] + t * (src[k, q] - src[i, q])
            else:
                t = dk / (dk - di)
                for q in range(4):
                    dst[m, q] = src[k, q] + t * (src[i, q] - src[k, q])
            m += 1
    return m


@inline
@no_type_check
def _fill_clipped(pos, b, i0, i1, i2, label, row0, row1, height, width, zbuffer, index):
    """Clips a triangle to the view frustum and draws the pieces."""
    poly = np.empty((10, 4), np.float64)
    temp = np.empty((10, 4), np.float64)
    for q in range(4):
        poly[0, q] = pos[b, i0, q]
        poly[1, q] = pos[b, i1, q]
        poly[2, q] = pos[b, i2, q]
    for i in range(3):
        for q in range(4):
            if not math.isfinite(poly[i, q]):
                return
    # CudaRaster's order; the corners are snapped again, so it matters.
    n = _clip_plane(poly, 3, temp, 1.0, 0.0, 0.0, 1.0)
    n = _clip_plane(temp, n, poly, -1.0, 0.0, 0.0, 1.0)
    n = _clip_plane(poly, n, temp, 0.0, 1.0, 0.0, 1.0)
    n = _clip_plane(temp, n, poly, 0.0, -1.0, 0.0, 1.0)
    n = _clip_plane(poly, n, temp, 0.0, 0.0, 1.0, 1.0)
    n = _clip_plane(temp, n, poly, 0.0, 0.0, -1.0, 1.0)
    half_w = width * (_SUBPIXELS // 2)
    half_h = height * (_SUBPIXELS // 2)
    if n < 3 or not poly[0, 3] > 0:
        return
    x0, y0 = _snap(poly[0, 0], poly[0, 1], poly[0, 3], half_w, half_h)
    z0 = poly[0, 2] / poly[0, 3]
    for k in range(1, n - 1):
        if not (poly[k, 3] > 0 and poly[k + 1, 3] > 0):
            continue
        x1, y1 = _snap(poly[k, 0], poly[k, 1], poly[k, 3], half_w, half_h)
        x2, y2 = _snap(poly[k + 1, 0], poly[k + 1, 1], poly[k + 1, 3], half_w, half_h)
        z1 = poly[k, 2] / poly[k, 3]
        z2 = poly[k + 1, 2] / poly[k + 1, 3]
        _fill_triangle(x0, y0, z0, x1, y1, z1, x2, y2, z2, label, row0, row1, width, zbuffer, index)


@inline
@no_type_check
def _edge_functions(pos, b, i0, i1, i2, fx, fy):
    """Corner positions relative to the ray through ndc (fx, fy), times w, and the three edge functions there."""
    x0 = pos[b, i0, 0] - fx * pos[b, i0, 3]
    y0 = pos[b, i0, 1] - fy * pos[b, i0, 3]
    x1 = pos[b, i1, 0] - fx * pos[b, i1, 3]
    y1 = pos[b, i1, 1] - fy * pos[b, i1, 3]
    x2 = pos[b, i2, 0] - fx * pos[b, i2, 3]
    y2 = pos[b, i2, 1] - fy * pos[b, i2, 3]
    return x0, y0, x1, y1, x2, y2, x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1


@kernel
@no_type_check
def face_rows(first, last, tri, face_mask, snapped, outcode, height, rows):
    """First and last pixel row that a face may touch: rows (B, F, 2) int32; 0 and -1 for faces that are not drawn.

    `face_mask` is (B, F), or (0, 0) for none. Tasks are faces, over all views.
    """
    n_faces = tri.shape[0]
    for task in range(first, last):
        b, f = task // n_faces, task % n_faces
        i0, i1, i2 = tri[f, 0], tri[f, 1], tri[f, 2]
        c0, c1, c2 = outcode[b, i0], outcode[b, i1], outcode[b, i2]
        row0, row1 = 0, -1
        if face_mask.shape[0] > 0 and not face_mask[b, f]:
            pass
        elif c0 & c1 & c2 & ~_UNSNAPPED:
            pass  # beyond one plane of the frustum
        elif (c0 | c1 | c2) & _UNSNAPPED:
            row1 = height - 1
        else:
            y0, y1, y2 = snapped[b, i0, 1], snapped[b, i1, 1], snapped[b, i2, 1]
            # Of the bounding box, with a row's slack: clipping snaps corners again.
            row0 = max((min(y0, y1, y2) >> 4) - 1, 0)
            row1 = min((max(y0, y1, y2) >> 4) + 1, height - 1)
        rows[b, f, 0] = row0
        rows[b, f, 1] = row1


@kernel
@no_type_check
def rasterize_forward(first, last, pos, tri, rows, snapped, depth, outcode, n_bands, rast, rast_db):
    """Fills rast and rast_db, each (B, H, W, 4). `rows` (B, F, 2) is of `face_rows`."""
    n_faces = tri.shape[0]
    height, width = rast.shape[1], rast.shape[2]
    for task in range(first, last):
        b = task // n_bands
        band = task % n_bands
        row0 = height * band // n_bands
        row1 = height * (band + 1) // n_bands
        zbuffer = np.full((row1 - row0, width), 1.0, np.float64)
        index = np.zeros((row1 - row0, width), np.int32)
        for f in range(n_faces):
            if rows[b, f, 0] >= row1 or rows[b, f, 1] < row0:
                continue
            i0, i1, i2 = tri[f, 0], tri[f, 1], tri[f, 2]
            if outcode[b, i0] | outcode[b, i1] | outcode[b, i2]:
                _fill_clipped(pos, b, i0, i1, i2, f + 1, row0, row1, height, width, zbuffer, index)
                continue
            _fill_triangle(
                np.int64(snapped[b, i0, 0]), np.int64(snapped[b, i0, 1]), depth[b, i0],
                np.int64(snapped[b, i1, 0]), np.int64(snapped[b, i1, 1]), depth[b, i1],
                np.int64(snapped[b, i2, 0]), np.int64(snapped[b, i2, 1]), depth[b, i2],
                f + 1, row0, row1, width, zbuffer, index,
            )  # fmt: skip
        scale_x = 2.0 / width
        scale_y = 2.0 / height
        for j in range(row0, row1):
            fy = scale_y * (j + 0.5) - 1.0
            for i in range(width):
                label = index[j - row0, i]
                if label == 0:
                    for q in range(4):
                        rast[b, j, i, q] = 0.0
                        rast_db[b, j, i, q] = 0.0
                    continue
                i0, i1, i2 = tri[label - 1, 0], tri[label - 1, 1], tri[label - 1, 2]
                fx = scale_x * (i + 0.5) - 1.0
                x0, y0f, x1, y1f, x2, y2f, a0, a1, a2 = _edge_functions(pos, b, i0, i1, i2, fx, fy)
                w0, w1, w2 = np.float64(pos[b, i0, 3]), np.float64(pos[b, i1, 3]), np.float64(pos[b, i2, 3])
                inv = 1.0 / (a0 + a1 + a2)
                u = a0 * inv
                v = a1 * inv
                z = pos[b, i0, 2] * a0 + pos[b, i1, 2] * a1 + pos[b, i2, 2] * a2
                w = w0 * a0 + w1 * a1 + w2 * a2
                # Snapping may draw a pixel whose centre is slightly outside the unsnapped triangle.
                u = min(max(u, 0.0), 1.0)
                v = min(max(v, 0.0), 1.0)
                over = max(u + v, 1.0)
                u /= over
                v /= over
                rast[b, j, i, 0] = u
                rast[b, j, i, 1] = v
                rast[b, j, i, 2] = min(max(z / w, -1.0), 1.0)
                rast[b, j, i, 3] = label
                # x_k = X_k - fx w_k, so d x_k / d fx = -w_k.
                a0x = y1f * w2 - y2f * w1
                a1x = y2f * w0 - y0f * w2
                a2x = y0f * w1 - y1f * w0
                a0y = x2 * w1 - x1 * w2
                a1y = x0 * w2 - x2 * w0
                a2y = x1 * w0 - x0 * w1
                sx = a0x + a1x + a2x
                sy = a0y + a1y + a2y
                rast_db[b, j, i, 0] = scale_x * inv * (a0x - u * sx)
                rast_db[b, j, i, 1] = scale_y * inv * (a0y - u * sy)
                rast_db[b, j, i, 2] = scale_x * inv * (a1x - v * sx)
                rast_db[b, j, i, 3] = scale_y * inv * (a1y - v * sy)


@kernel
@no_type_check
def rasterize_backward(first, last, pos, tri, rast, grad_rast, grad_db, n_bands, grad):
    """Adds to zeroed grad (B * n_bands, V, 4), parts to be added up in order.

    `grad_rast` and `grad_db` are (B, H, W, 4) or empty. With the edge functions a_k (Laine et al. 2020, section 3.2),
    S = a_0 + a_1 + a_2: u = a_0 / S, du/dX = c (a_0' - u S') / S with c = d fx / dX, and likewise v.
    """
    height, width = rast.shape[1], rast.shape[2]
    use_rast = grad_rast.shape[0] > 0
    use_db = grad_db.shape[0] > 0
    scale_x = 2.0 / width
    scale_y = 2.0 / height
    for task in range(first, last):
        b = task // n_bands
        band = task % n_bands
        for j in range(height * band // n_bands, height * (band + 1) // n_bands):
            fy = scale_y * (j + 0.5) - 1.0
            for i in range(width):
                face = np.int64(rast[b, j, i, 3]) - 1
                if face < 0:
                    continue
                gu = gv = gux = guy = gvx = gvy = 0.0
                if use_rast:
                    gu = np.float64(grad_rast[b, j, i, 0])
                    gv = np.float64(grad_rast[b, j, i, 1])
                if use_db:
                    gux = np.float64(grad_db[b, j, i, 0]) * scale_x
                    guy = np.float64(grad_db[b, j, i, 1]) * scale_y
                    gvx = np.float64(grad_db[b, j, i, 2]) * scale_x
                    gvy = np.float64(grad_db[b, j, i, 3]) * scale_y
                second = gux != 0.0 or guy != 0.0 or gvx != 0.0 or gvy != 0.0
                if gu == 0.0 and gv == 0.0 and not second:
                    continue
                i0, i1, i2 = tri[face, 0], tri[face, 1], tri[face, 2]
                fx = scale_x * (i + 0.5) - 1.0
                x0, y0, x1, y1, x2, y2, a0, a1, a2 = _edge_functions(pos, b, i0, i1, i2, fx, fy)
                total = a0 + a1 + a2
                # nvdiffrast damps the gradients of triangles of about a pixel and smaller in this way.
                inv = 1.0 / (total + math.copysign(1e-6, total))
                u = a0 * inv
                v = a1 * inv
                # Adjoints of the edge functions and of their sum.
                g_total = -(gu * u + gv * v) * inv
                g0 = gu * inv
                g1 = gv * inv
                gx0 = gy0 = gw0 = gx1 = gy1 = gw1 = gx2 = gy2 = gw2 = 0.0
                if second:
                    w0, w1, w2 = np.float64(pos[b, i0, 3]), np.float64(pos[b, i1, 3]), np.float64(pos[b, i2, 3])
                    a0x = y1 * w2 - y2 * w1
                    a1x = y2 * w0 - y0 * w2
                    a0y = x2 * w1 - x1 * w2
                    a1y = x0 * w2 - x2 * w0
                    sx = a0x + a1x + y0 * w1 - y1 * w0
                    sy = a0y + a1y + x1 * w0 - x0 * w1
                    ux = (a0x - u * sx) * inv
                    uy = (a0y - u * sy) * inv
                    vx = (a1x - v * sx) * inv
                    vy = (a1y - v * sy) * inv
                    g_u = -(gux * sx + guy * sy) * inv  # through the u in (a_0' - u S')
                    g_v = -(gvx * sx + gvy * sy) * inv
                    g0 += g_u * inv
                    g1 += g_v * inv
                    g_total -= (g_u * u + g_v * v) * inv
                    g_total -= (gux * ux + guy * uy + gvx * vx + gvy * vy) * inv
                    # Adjoints of a_k' along x: k = 2 enters through S' only.
                    gsx = -(gux * u + gvx * v) * inv
                    gsy = -(guy * u + gvy * v) * inv
                    h0x, h1x, h2x = gux * inv + gsx, gvx * inv + gsx, gsx
                    h0y, h1y, h2y = guy * inv + gsy, gvy * inv + gsy, gsy
                    gy0 += h2x * w1 - h1x * w2
                    gy1 += h0x * w2 - h2x * w0
                    gy2 += h1x * w0 - h0x * w1
                    gx0 += h1y * w2 - h2y * w1
                    gx1 += h2y * w0 - h0y * w2
                    gx2 += h0y * w1 - h1y * w0
                    gw0 += h1x * y2 - h2x * y1 + h2y * x1 - h1y * x2
                    gw1 += h2x * y0 - h0x * y2 + h0y * x2 - h2y * x0
                    gw2 += h0x * y1 - h1x * y0 + h1y * x0 - h0y * x1
                g0 += g_total
                g1 += g_total
                g2 = g_total
                gx0 += g2 * y1 - g1 * y2
                gy0 += g1 * x2 - g2 * x1
                gx1 += g0 * y2 - g2 * y0
                gy1 += g2 * x0 - g0 * x2
                gx2 += g1 * y0 - g0 * y1
                gy2 += g0 * x1 - g1 * x0
                # x_k = X_k - fx W_k.
                grad[task, i0, 0] += gx0
                grad[task, i0, 1] += gy0
                grad[task, i0, 3] += gw0 - fx * gx0 - fy * gy0
                grad[task, i1, 0] += gx1
                grad[task, i1, 1] += gy1
                grad[task, i1, 3] += gw1 - fx * gx1 - fy * gy1
                grad[task, i2, 0] += gx2
                grad[task, i2, 1] += gy2
                grad[task, i2, 3] += gw2 - fx * gx2 - fy * gy2
