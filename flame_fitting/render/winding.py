"""The one place that says which winding faces the camera.

Meshes are wound counter-clockwise seen from outside. Pictures have row 0 at ndc y = -1 and at the top, so such a
triangle has negative area in (ndc x, ndc y) where it faces the camera.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flame_fitting.fusion import fused_kernels


@torch.no_grad()
def front_faces(pos: Float[Tensor, "B V 4"], tri: Int[Tensor, "F 3"]) -> Bool[Tensor, "B F"]:
    """Whether each face turns its outer side to the camera; degenerate faces do not.

    The determinant of the corners' (x, y, w) has the sign of the area times w0 w1 w2 (Olano and Greer 1997, "Triangle
    Scan Conversion using 2D Homogeneous Coordinates"), so it is right for triangles that reach behind the camera too.
    """
    fused = fused_kernels(pos, "flame_fitting.render.fused")
    if fused is not None:
        return fused.front_faces(pos.float(), tri.int())
    x, y, w = pos[..., 0], pos[..., 1], pos[..., 3]
    i, j, k = tri.long().unbind(1)
    x0, y0, w0 = x[:, i], y[:, i], w[:, i]
    x1, y1, w1 = x[:, j], y[:, j], w[:, j]
    x2, y2, w2 = x[:, k], y[:, k], w[:, k]
    # Of differences, which lose less to rounding where the triangle is small.
    ax, ay, aw = x1 - x0, y1 - y0, w1 - w0
    bx, by, bw = x2 - x0, y2 - y0, w2 - w0
    determinant = x0 * (ay * bw - aw * by) + y0 * (aw * bx - ax * bw) + w0 * (ax * by - ay * bx)
    return determinant < 0
