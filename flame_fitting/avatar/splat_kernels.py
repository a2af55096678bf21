"""Numba kernels that draw splats as gsplat does: projection with a pixel filter (EWA), tiles, sorted alpha blending.

Zwicker et al., "EWA Splatting", 2002; Kerbl et al. 2023; constants and culling as in gsplat 1.5 (mode `classic`).
Camera axes are OpenCV's. Every kernel works on the tasks first <= task < last (`render.jit.run`).
"""

import math
from typing import no_type_check

import numpy as np

from flame_fitting.render.jit import inline, kernel

TILE = 16
DILATION = 0.3
"""Variance (px^2) that the pixel's own extent adds."""
LEAST_ALPHA = 1.0 / 255.0
MOST_ALPHA = 0.999
LEAST_TRANSMITTANCE = 1e-4
_EXTENT = 3.33  # standard deviations, as far as an opaque splat reaches LEAST_ALPHA
_EDGE = 1.3  # Jacobians are taken at most so far outside, in halves of the picture


@inline
@no_type_check
def _color(sh, x, y, z, channel):
    """0.5 + spherical harmonics of one splat (K, 3) in the unit direction x, y, z; not below 0."""
    count = sh.shape[0]
    value = 0.28209479177387814 * sh[0, channel]
    if count > 1:
        value += 0.4886025119029199 * (z * sh[2, channel] - y * sh[1, channel] - x * sh[3, channel])
    if count > 4:
        xx, yy, zz = x * x, y * y, z * z
        value += 1.0925484305920792 * (x * y * sh[4, channel] - y * z * sh[5, channel] - x * z * sh[7, channel])
        value += 0.31539156525252005 * (2.0 * zz - xx - yy) * sh[6, channel]
        value += 0.5462742152960396 * (xx - yy) * sh[8, channel]
        if count > 9:
            value += 0.5900435899266435 * (
                -y * (3.0 * xx - yy) * sh[9, channel] - x * (xx - 3.0 * yy) * sh[15, channel]
            )
            value += 2.890611442640554 * x * y * z * sh[10, channel]
            value -= 0.4570457994644658 * (4.0 * zz - xx - yy) * (y * sh[11, channel] + x * sh[13, channel])
            value += 0.3731763325901154 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy) * sh[12, channel]
            value += 1.445305721320277 * z * (xx - yy) * sh[14, channel]
    return max(value + 0.5, 0.0)


@kernel
@no_type_check
def project(
    first, last, means, covariances, whitenings, opacities, sh, camera, eye, lens, size, planes, antialiased,
    flat, color, surface, box,
):  # fmt: skip
    """Fills in what one view sees of each splat.

    covariances (N, 6): xx, xy, xz, yy, yz, zz. whitenings (N, 3, 3): from the world into a splat's axes over its
    standard deviations. camera (3, 4), eye (3), lens: fx, fy, cx, cy; size: width, height; planes: near, far.

    flat (N, 8): x, y, conic a, b, c, opacity, depth, largest standard deviation along the ray. color (N, 3).
    surface (N, 12): numerator (3) and denominator (6) of the depth at which a ray meets the splat, normal (3), world.
    box (N, 4): first and last row and column of pixels, empty where nothing is seen.
    """
    fx, fy, cx, cy = lens
    width, height = size
    near, far = planes
    w = np.empty((3, 3))
    for n in range(first, last):
        box[n, 0], box[n, 1], box[n, 2], box[n, 3] = 1, 0, 1, 0
        x = camera[0, 0] * means[n, 0] + camera[0, 1] * means[n, 1] + camera[0, 2] * means[n, 2] + camera[0, 3]
        y = camera[1, 0] * means[n, 0] + camera[1, 1] * means[n, 1] + camera[1, 2] * means[n, 2] + camera[1, 3]
        z = camera[2, 0] * means[n, 0] + camera[2, 1] * means[n, 1] + camera[2, 2] * means[n, 2] + camera[2, 3]
        if not (near <= z <= far):
            continue
        # rows of the projection's Jacobian, taken into the world
        tan_x, tan_y = 0.5 * width / fx, 0.5 * height / fy
        u = min(max(x / z, -cx / fx - (_EDGE - 1.0) * tan_x), (width - cx) / fx + (_EDGE - 1.0) * tan_x)
        v = min(max(y / z, -cy / fy - (_EDGE - 1.0) * tan_y), (height - cy) / fy + (_EDGE - 1.0) * tan_y)
        a0 = fx / z * (camera[0, 0] - u * camera[2, 0])
        a1 = fx / z * (camera[0, 1] - u * camera[2, 1])
        a2 = fx / z * (camera[0, 2] - u * camera[2, 2])
        b0 = fy / z * (camera[1, 0] - v * camera[2, 0])
        b1 = fy / z * (camera[1, 1] - v * camera[2, 1])
        b2 = fy / z * (camera[1, 2] - v * camera[2, 2])
        c = covariances[n]
        s0 = c[0] * a0 + c[1] * a1 + c[2] * a2
        s1 = c[1] * a0 + c[3] * a1 + c[4] * a2
        s2 = c[2] * a0 + c[4] * a1 + c[5] * a2
        xx = a0 * s0 + a1 * s1 + a2 * s2
        xy = b0 * s0 + b1 * s1 + b2 * s2
        t0 = c[0] * b0 + c[1] * b1 + c[2] * b2
        t1 = c[1] * b0 + c[3] * b1 + c[4] * b2
        t2 = c[2] * b0 + c[4] * b1 + c[5] * b2
        yy = b0 * t0 + b1 * t1 + b2 * t2
        before = xx * yy - xy * xy
        xx += DILATION
        yy += DILATION
        determinant = xx * yy - xy * xy
        if not determinant > 0.0:
            continue
        opacity = float(opacities[n])
        if antialiased:
            opacity *= math.sqrt(max(before / determinant, 0.0))
        if opacity < LEAST_ALPHA:
            continue
        extent = min(_EXTENT, math.sqrt(2.0 * math.log(opacity / LEAST_ALPHA)))
        radius_x, radius_y = math.ceil(extent * math.sqrt(xx)), math.ceil(extent * math.sqrt(yy))
        px, py = fx * x / z + cx, fy * y / z + cy
        if px + radius_x <= 0 or px - radius_x >= width or py + radius_y <= 0 or py - radius_y >= height:
            continue
        box[n, 0] = max(0, math.ceil(max(py - radius_y, -1.0) - 0.5))
        box[n, 1] = min(height - 1, math.floor(min(py + radius_y, height + 1.0) - 0.5))
        box[n, 2] = max(0, math.ceil(max(px - radius_x, -1.0) - 0.5))
        box[n, 3] = min(width - 1, math.floor(min(px + radius_x, width + 1.0) - 0.5))
        flat[n, 0], flat[n, 1] = px, py
        flat[n, 2], flat[n, 3], flat[n, 4] = yy / determinant, -xy / determinant, xx / determinant
        flat[n, 5], flat[n, 6] = opacity, z
        dx, dy, dz = means[n, 0] - eye[0], means[n, 1] - eye[1], means[n, 2] - eye[2]
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        for channel in range(3):
            color[n, channel] = _color(sh[n], dx / length, dy / length, dz / length, channel)
        # in the splat's own axes the ray's points t w (u, v, 1) are nearest to the centre m at t = m.w / w.w
        m0 = m1 = m2 = 0.0
        for k in range(3):
            for j in range(3):
                w[k, j] = (
                    whitenings[n, k, 0] * camera[j, 0]
                    + whitenings[n, k, 1] * camera[j, 1]
                    + whitenings[n, k, 2] * camera[j, 2]
                )
        m0 = w[0, 0] * x + w[0, 1] * y + w[0, 2] * z
        m1 = w[1, 0] * x + w[1, 1] * y + w[1, 2] * z
        m2 = w[2, 0] * x + w[2, 1] * y + w[2, 2] * z
        for j in range(3):
            surface[n, j] = m0 * w[0, j] + m1 * w[1, j] + m2 * w[2, j]
        surface[n, 3] = w[0, 0] ** 2 + w[1, 0] ** 2 + w[2, 0] ** 2
        surface[n, 4] = w[0, 1] ** 2 + w[1, 1] ** 2 + w[2, 1] ** 2
        surface[n, 5] = w[0, 2] ** 2 + w[1, 2] ** 2 + w[2, 2] ** 2
        surface[n, 6] = 2.0 * (w[0, 0] * w[0, 1] + w[1, 0] * w[1, 1] + w[2, 0] * w[2, 1])
        surface[n, 7] = 2.0 * (w[0, 0] * w[0, 2] + w[1, 0] * w[1, 2] + w[2, 0] * w[2, 2])
        surface[n, 8] = 2.0 * (w[0, 1] * w[0, 2] + w[1, 1] * w[1, 2] + w[2, 1] * w[2, 2])
        # the surface that all rays are nearest at is square to this at the centre: a flat splat's own normal
        normal = 0.0
        for j in range(3):
            surface[n, 9 + j] = -(m0 * whitenings[n, 0, j] + m1 * whitenings[n, 1, j] + m2 * whitenings[n, 2, j])
            normal += surface[n, 9 + j] ** 2
        for j in range(3):
            surface[n, 9 + j] /= max(math.sqrt(normal), 1e-30)
        flat[n, 7] = math.sqrt(max(c[0], c[3], c[5]))


@kernel
@no_type_check
def count_tiles(first, last, order, box, across, counts):
    """Adds each seen splat to the counts (tiles) of the tiles it reaches; one task, since it adds."""
    for k in range(first, last):
        n = order[k]
        for row in range(box[n, 0] // TILE, box[n, 1] // TILE + 1):
            for column in range(box[n, 2] // TILE, box[n, 3] // TILE + 1):
                counts[row * across + column] += 1


@kernel
@no_type_check
def fill_tiles(first, last, order, box, across, starts, members):
    """Writes splats in the order given into the lists of their tiles, whose `starts` move on; one task."""
    for k in range(first, last):
        n = order[k]
        for row in range(box[n, 0] // TILE, box[n, 1] // TILE + 1):
            for column in range(box[n, 2] // TILE, box[n, 3] // TILE + 1):
                tile = row * across + column
                members[starts[tile]] = n
                starts[tile] += 1


@inline
@no_type_check
def _columns(flat, n, row, low, high, least):
    """First and last column of a row of pixels, within low..high, in which a splat covers `least` of a pixel."""
    dy = row + 0.5 - flat[n, 1]
    a, b, c = flat[n, 2], flat[n, 3], flat[n, 4]
    most = 2.0 * math.log(flat[n, 5] / least) + 1e-6
    inside = (b * dy) ** 2 - a * (c * dy * dy - most)
    if inside < 0.0:
        return 1, 0
    half = math.sqrt(inside) / a
    middle = flat[n, 0] - b * dy / a - 0.5
    return max(low, math.ceil(max(middle - half, low - 1.0))), min(high, math.floor(min(middle + half, high + 1.0)))


@kernel
@no_type_check
def blend(first, last, across, bounds, members, flat, color, box, background, least, enough, image, alpha, share):
    """Image (3, H, W) and alpha (H, W) of tiles. Less than `least` of a pixel is not drawn, nor what lies behind where
    only `enough` of the light is left. `share` (N,), where it has a length, gets each splat's largest weight
    in any pixel (then on one thread only)."""
    height, width = alpha.shape
    left = np.empty((TILE, TILE))
    total = np.empty((TILE, TILE, 3))
    open_ = np.empty((TILE, TILE), dtype=np.bool_)
    for tile in range(first, last):
        top, start = tile // across * TILE, tile % across * TILE
        bottom, end = min(top + TILE, height), min(start + TILE, width)
        left[:] = 1.0
        total[:] = 0.0
        open_[:] = True
        waiting = (bottom - top) * (end - start)
        for k in range(bounds[tile], bounds[tile + 1]):
            if waiting == 0:
                break
            n = members[k]
            x, y, a, b, c, opacity = flat[n, 0], flat[n, 1], flat[n, 2], flat[n, 3], flat[n, 4], flat[n, 5]
            red, green, blue = color[n, 0], color[n, 1], color[n, 2]
            for row in range(max(top, box[n, 0]), min(bottom - 1, box[n, 1]) + 1):
                low, high = _columns(flat, n, row, max(start, box[n, 2]), min(end - 1, box[n, 3]), least)
                dy = row + 0.5 - y
                for column in range(low, high + 1):
                    i, j = row - top, column - start
                    if not open_[i, j]:
                        continue
                    dx = column + 0.5 - x
                    power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
                    covered = min(MOST_ALPHA, opacity * math.exp(-power))
                    if power < 0.0 or covered < least:
                        continue
                    after = left[i, j] * (1.0 - covered)
                    if after <= LEAST_TRANSMITTANCE:
                        open_[i, j] = False
                        waiting -= 1
                        continue
                    weight = covered * left[i, j]
                    total[i, j, 0] += weight * red
                    total[i, j, 1] += weight * green
                    total[i, j, 2] += weight * blue
                    left[i, j] = after
                    if share.size:
                        share[n] = max(share[n], weight)
                    if after <= enough:
                        open_[i, j] = False
                        waiting -= 1
        for row in range(top, bottom):
            for column in range(start, end):
                i, j = row - top, column - start
                alpha[row, column] = 1.0 - left[i, j]
                for channel in range(3):
                    value = total[i, j, channel] + left[i, j] * background[channel]
                    image[channel, row, column] = min(value, 1.0)


@inline
@no_type_check
def _meets(surface, flat, n, u, v):
    """Depth at which the ray through (u, v, 1) meets a splat: where its density along the ray is largest."""
    top = surface[n, 0] * u + surface[n, 1] * v + surface[n, 2]
    under = surface[n, 3] * u * u + surface[n, 4] * v * v + surface[n, 5]
    under += surface[n, 6] * u * v + surface[n, 7] * u + surface[n, 8] * v
    reach = 3.0 * flat[n, 7]  # a ray beside an edge-on splat meets its plane anywhere
    return min(max(top / max(under, 1e-300), flat[n, 6] - reach), flat[n, 6] + reach)


@kernel
@no_type_check
def meet(
    first, last, across, bounds, members, flat, surface, box, means, camera, eye, lens, level, half, depth, normal
):  # fmt: skip
    """Depth (H, W) and normal (H, W, 3, world) of tiles; 0 where less than `half` of a pixel is covered.

    The splat at which `level` (at most `half`) of the light is gone says which surface is seen. The surface is then
    the average over all splats that the ray meets there, hidden ones too: to count those in front for more would pull
    it to the camera. A tangent plane lies outside a bulging surface by as much as the mean of the centres lies inside,
    so the middle of both is taken.
    """
    height, width = depth.shape
    fx, fy, cx, cy = lens
    left = np.empty((TILE, TILE))
    seen = np.empty((TILE, TILE))
    reach = np.empty((TILE, TILE))
    solid = np.empty((TILE, TILE), dtype=np.bool_)
    sums = np.empty((TILE, TILE, 8))
    for tile in range(first, last):
        top, start = tile // across * TILE, tile % across * TILE
        bottom, end = min(top + TILE, height), min(start + TILE, width)
        left[:] = 1.0
        seen[:] = 0.0
        solid[:] = False
        sums[:] = 0.0
        waiting = (bottom - top) * (end - start)
        farthest = 0.0
        for sweep in range(2):
            for k in range(bounds[tile], bounds[tile + 1]):
                n = members[k]
                if (sweep == 0 and waiting == 0) or (sweep == 1 and flat[n, 6] - 3.0 * flat[n, 7] > farthest):
                    if sweep == 0:
                        break
                    continue
                x, y, a, b, c, opacity = flat[n, 0], flat[n, 1], flat[n, 2], flat[n, 3], flat[n, 4], flat[n, 5]
                for row in range(max(top, box[n, 0]), min(bottom - 1, box[n, 1]) + 1):
                    low, high = _columns(flat, n, row, max(start, box[n, 2]), min(end - 1, box[n, 3]), LEAST_ALPHA)
                    dy = row + 0.5 - y
                    v = (row + 0.5 - cy) / fy
                    for column in range(low, high + 1):
                        i, j = row - top, column - start
                        if (sweep == 0) == solid[i, j]:
                            continue
                        dx = column + 0.5 - x
                        power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
                        covered = min(MOST_ALPHA, opacity * math.exp(-power))
                        if power < 0.0 or covered < LEAST_ALPHA:
                            continue
                        u = (column + 0.5 - cx) / fx
                        if sweep == 0:
                            left[i, j] *= 1.0 - covered
                            if seen[i, j] == 0.0 and left[i, j] <= 1.0 - level:
                                under = surface[n, 3] * u * u + surface[n, 4] * v * v + surface[n, 5]
                                under += surface[n, 6] * u * v + surface[n, 7] * u + surface[n, 8] * v
                                seen[i, j] = _meets(surface, flat, n, u, v)
                                # its own extent along the ray, and how far tangent planes lie apart
                                reach[i, j] = min(3.0 / math.sqrt(under) + 0.25 * flat[n, 7], 3.0 * flat[n, 7])
                                farthest = max(farthest, seen[i, j] + reach[i, j])
                            if left[i, j] <= 1.0 - half:
                                solid[i, j] = True
                                waiting -= 1
                            continue
                        met = _meets(surface, flat, n, u, v)
                        if abs(met - seen[i, j]) <= reach[i, j]:
                            sums[i, j, 0] += covered
                            sums[i, j, 1] += covered * met
                            for m in range(3):
                                sums[i, j, 2 + m] += covered * (means[n, m] - eye[m])
                                sums[i, j, 5 + m] += covered * surface[n, 9 + m]
        for row in range(top, bottom):
            for column in range(start, end):
                i, j = row - top, column - start
                depth[row, column] = 0.0
                for m in range(3):
                    normal[row, column, m] = 0.0
                length = math.sqrt(sums[i, j, 5] ** 2 + sums[i, j, 6] ** 2 + sums[i, j, 7] ** 2)
                if sums[i, j, 0] <= 0.0 or length <= 0.0:
                    continue
                u, v = (column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy
                along = 0.0
                height_ = 0.0
                for m in range(3):
                    normal[row, column, m] = sums[i, j, 5 + m] / length
                    along += normal[row, column, m] * (camera[0, m] * u + camera[1, m] * v + camera[2, m])
                    height_ += normal[row, column, m] * sums[i, j, 2 + m] / sums[i, j, 0]
                met = sums[i, j, 1] / sums[i, j, 0]
                other = height_ / along if along < -0.05 else met
                depth[row, column] = 0.5 * (met + other) if abs(other - met) <= reach[i, j] else met
