"""Numba kernels: vertex attributes at pixels, and their gradients."""

from typing import no_type_check

import numpy as np

from flame_fitting.render.jit import kernel


@kernel
@no_type_check
def interpolate_forward(first, last, attr, rast, tri, out):
    """Fills out (B, H, W, A) from attr (1|B, V, A)."""
    height, width = rast.shape[1], rast.shape[2]
    n_attr = attr.shape[2]
    shared = attr.shape[0] == 1
    for row in range(first, last):
        b = row // height
        j = row % height
        ab = 0 if shared else b
        for i in range(width):
            face = np.int64(rast[b, j, i, 3]) - 1
            if face < 0:
                for k in range(n_attr):
                    out[b, j, i, k] = 0.0
                continue
            i0, i1, i2 = tri[face, 0], tri[face, 1], tri[face, 2]
            u, v = rast[b, j, i, 0], rast[b, j, i, 1]
            t = np.float32(1.0) - u - v
            for k in range(n_attr):
                out[b, j, i, k] = u * attr[ab, i0, k] + v * attr[ab, i1, k] + t * attr[ab, i2, k]


@kernel
@no_type_check
def interpolate_forward_da(first, last, attr, rast, rast_db, tri, diff, out):
    """Fills out (B, H, W, 2 D) with picture derivatives of the attributes listed in diff (D,): (dA/dX, dA/dY) each."""
    height, width = rast.shape[1], rast.shape[2]
    n_diff = diff.shape[0]
    shared = attr.shape[0] == 1
    for row in range(first, last):
        b = row // height
        j = row % height
        ab = 0 if shared else b
        for i in range(width):
            face = np.int64(rast[b, j, i, 3]) - 1
            if face < 0:
                for k in range(2 * n_diff):
                    out[b, j, i, k] = 0.0
                continue
            i0, i1, i2 = tri[face, 0], tri[face, 1], tri[face, 2]
            dudx, dudy = rast_db[b, j, i, 0], rast_db[b, j, i, 1]
            dvdx, dvdy = rast_db[b, j, i, 2], rast_db[b, j, i, 3]
            for d in range(n_diff):
                k = diff[d]
                dadu = attr[ab, i0, k] - attr[ab, i2, k]
                dadv = attr[ab, i1, k] - attr[ab, i2, k]
                out[b, j, i, 2 * d] = dudx * dadu + dvdx * dadv
                out[b, j, i, 2 * d + 1] = dudy * dadu + dvdy * dadv


@kernel
@no_type_check
def interpolate_backward(first, last, attr, rast, tri, grad_out, n_bands, grad_attr, grad_rast):
    """Adds to zeroed grad_attr (B * n_bands, V, A), parts to be added up in order, and to grad_rast (B, H, W, 4).

    Either may be empty where that gradient is not needed.
    """
    height, width = rast.shape[1], rast.shape[2]
    n_attr = attr.shape[2]
    shared = attr.shape[0] == 1
    need_attr, need_rast = grad_attr.shape[0] > 0, grad_rast.shape[0] > 0
    for task in range(first, last):
        b = task // n_bands
        band = task % n_bands
        ab = 0 if shared else b
        for j in range(height * band // n_bands, height * (band + 1) // n_bands):
            for i in range(width):
                face = np.int64(rast[b, j, i, 3]) - 1
                if face < 0:
                    continue
                i0, i1, i2 = tri[face, 0], tri[face, 1], tri[face, 2]
                u, v = rast[b, j, i, 0], rast[b, j, i, 1]
                t = np.float32(1.0) - u - v
                gu = np.float32(0.0)
                gv = np.float32(0.0)
                for k in range(n_attr):
                    g = grad_out[b, j, i, k]
                    if g == 0.0:
                        continue
                    if need_rast:
                        last = attr[ab, i2, k]
                        gu += g * (attr[ab, i0, k] - last)
                        gv += g * (attr[ab, i1, k] - last)
                    if need_attr:
                        grad_attr[task, i0, k] += u * g
                        grad_attr[task, i1, k] += v * g
                        grad_attr[task, i2, k] += t * g
                if need_rast:
                    grad_rast[b, j, i, 0] = gu
                    grad_rast[b, j, i, 1] = gv


@kernel
@no_type_check
def interpolate_backward_da(first, last, attr, rast, rast_db, tri, diff, grad_da, n_bands, grad_attr, grad_db):
    """As `interpolate_backward`, for the picture derivatives: attr parts and rast_db (B, H, W, 4)."""
    height, width = rast.shape[1], rast.shape[2]
    shared = attr.shape[0] == 1
    need_attr, need_db = grad_attr.shape[0] > 0, grad_db.shape[0] > 0
    for task in range(first, last):
        b = task // n_bands
        band = task % n_bands
        ab = 0 if shared else b
        for j in range(height * band // n_bands, height * (band + 1) // n_bands):
            for i in range(width):
                face = np.int64(rast[b, j, i, 3]) - 1
                if face < 0:
                    continue
                i0, i1, i2 = tri[face, 0], tri[face, 1], tri[face, 2]
                g0 = g1 = g2 = g3 = np.float32(0.0)
                for d in range(diff.shape[0]):
                    k = diff[d]
                    gx, gy = grad_da[b, j, i, 2 * d], grad_da[b, j, i, 2 * d + 1]
                    if gx == 0.0 and gy == 0.0:
                        continue
                    if need_db:
                        dadu = attr[ab, i0, k] - attr[ab, i2, k]
                        dadv = attr[ab, i1, k] - attr[ab, i2, k]
                        g0 += dadu * gx
                        g1 += dadu * gy
                        g2 += dadv * gx
                        g3 += dadv * gy
                    if need_attr:
                        du = gx * rast_db[b, j, i, 0] + gy * rast_db[b, j, i, 1]
                        dv = gx * rast_db[b, j, i, 2] + gy * rast_db[b, j, i, 3]
                        grad_attr[task, i0, k] += du
                        grad_attr[task, i1, k] += dv
                        grad_attr[task, i2, k] -= du + dv
                if need_db:
                    grad_db[b, j, i, 0] = g0
                    grad_db[b, j, i, 1] = g1
                    grad_db[b, j, i, 2] = g2
                    grad_db[b, j, i, 3] = g3


@kernel
@no_type_check
def sum_parts(first, last, parts, out):
    """Adds parts (G * n, V, A) within each of G groups, in order: out (G, V, A). Tasks are vertices, over groups."""
    n_vertices, n_attr = out.shape[1], out.shape[2]
    n = parts.shape[0] // out.shape[0]
    for task in range(first, last):
        g, i = task // n_vertices, task % n_vertices
        for k in range(n_attr):
            total = parts[g * n, i, k]
            for p in range(1, n):
                total += parts[g * n + p, i, k]
            out[g, i, k] = total
