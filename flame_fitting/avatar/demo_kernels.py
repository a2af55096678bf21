"""Compiled loops of the demo avatar. `no_type_check` keeps run-time type checkers from wrapping what Numba compiles."""

from typing import no_type_check

import numpy as np
from numba import njit


@njit(cache=True)
@no_type_check
def value_noise(points: np.ndarray, wavelength: float, shift: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Lattice values (64, 64, 64) joined smoothly at points (N, 3) / wavelength + shift cells, times 1.6."""
    out = np.empty(len(points))
    for n in range(len(points)):
        x = points[n, 0] / wavelength + shift[0]
        y = points[n, 1] / wavelength + shift[1]
        z = points[n, 2] / wavelength + shift[2]
        i, j, k = np.floor(x), np.floor(y), np.floor(z)
        x, y, z = x - i, y - j, z - k
        x, y, z = x * x * (3 - 2 * x), y * y * (3 - 2 * y), z * z * (3 - 2 * z)
        i0, j0, k0 = np.int64(i) & 63, np.int64(j) & 63, np.int64(k) & 63
        i1, j1, k1 = (i0 + 1) & 63, (j0 + 1) & 63, (k0 + 1) & 63
        a = lattice[i0, j0, k0] * (1 - x) + lattice[i1, j0, k0] * x
        b = lattice[i0, j1, k0] * (1 - x) + lattice[i1, j1, k0] * x
        c = lattice[i0, j0, k1] * (1 - x) + lattice[i1, j0, k1] * x
        d = lattice[i0, j1, k1] * (1 - x) + lattice[i1, j1, k1] * x
        out[n] = 1.6 * ((a * (1 - y) + b * y) * (1 - z) + (c * (1 - y) + d * y) * z)
    return out


@njit(cache=True)
@no_type_check
def accept_spread(neighbours: np.ndarray, starts: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Takes points in order unless gone; those taken make their neighbours (rows of a CSR list) go."""
    taken = np.zeros(len(gone), np.bool_)
    for i in range(len(gone)):
        if not gone[i]:
            taken[i] = True
            for k in range(starts[i], starts[i + 1]):
                gone[neighbours[k]] = True
    return taken
