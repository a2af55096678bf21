"""Lines of a mesh over a picture: antialiased, those behind a surface left out."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.report.posed_head import PosedHead

_FINER = 2
"""Samples along an edge of a pixel."""
_WIDTH = 0.9
"""Pixels of a line."""
_DENSE, _FAINTEST = 8.0, 0.15
"""Height in pixels below which the lines of triangles become fainter, and how faint: small ones would fill up."""


def wireframe(
    posed: PosedHead, K: Float[ndarray, "3 3"], world_to_camera: Float[ndarray, "4 4"], size: tuple[int, int]
) -> Float[ndarray, "H W"]:
    """How much of each pixel lines cover, 0..1, in a picture of `size` (width, height).

    A triangle that is in front of all others draws its own half of its three edges, by how far its pixels are from them
    (Bærentzen et al., "Single-pass wireframe rendering", 2006): what is hidden draws nothing.
    """
    places = posed.places(K, world_to_camera, _FINER)
    _, winner = posed.seen(places, _FINER * size[0], _FINER * size[1])
    corners = places[:, :2] / places[:, 2:]
    out = np.zeros((size[1], size[0]), dtype=np.float32)
    _draw(winner, corners, posed.faces, out)
    return out


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _draw(winner, corners, faces, out):
    half, share = 0.5 + 0.5 * _WIDTH * _FINER, 1.0 / (_FINER * _FINER)
    for row in range(winner.shape[0]):
        for column in range(winner.shape[1]):
            face = winner[row, column]
            if face < 0:
                continue
            nearest, longest, area = np.inf, 1e-9, 0.0
            for k in range(3):
                a, b = faces[face, k], faces[face, (k + 1) % 3]
                dx, dy = corners[b, 0] - corners[a, 0], corners[b, 1] - corners[a, 1]
                length = max(np.sqrt(dx * dx + dy * dy), 1e-9)
                x, y = column + 0.5 - corners[a, 0], row + 0.5 - corners[a, 1]
                cross = dx * y - dy * x
                nearest, longest, area = min(nearest, abs(cross) / length), max(longest, length), area + cross
            strength = min(max(abs(area) / longest / _FINER / _DENSE, _FAINTEST), 1.0)
            out[row // _FINER, column // _FINER] += share * strength * min(max(half - nearest, 0.0), 1.0)
