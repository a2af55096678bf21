"""Whether a rig tears an avatar: told from its own mesh, knowing nothing of which lip or lid a vertex was taken for."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.export.rigging.rig import Rig
from flame_fitting.head.actions import BLINK, JAW

_TIMES, _LONGER = 4.0, 0.2
"""An edge that grows by that factor, and by so much of how far the opening moves, goes across it."""
POSES = (JAW, f"{BLINK}Left", f"{BLINK}Right")


def torn_edges(rig: Rig) -> dict[str, int]:
    """By morph target: edges at mouth and eyes that it draws across the opening.

    A vertex of one lip that follows the other one does that. None are looked for where there is no opening.
    """
    at = np.zeros(len(rig.surface.vertices), dtype=bool)
    for name, side in rig.match.side.items():
        if name not in rig.match.closed:
            at |= side != 0
    edges = rig.surface.graph.edges
    edges = edges[at[edges].all(axis=1)]
    before = _lengths(rig.surface.vertices, edges)
    out = {}
    for name in POSES:
        if name in rig.displacements:
            moved = rig.displacements[name]
            after = _lengths(rig.surface.vertices + moved, edges)
            far = np.linalg.norm(moved[at], axis=1).max(initial=0.0)
            out[name] = int(((after > _TIMES * before) & (after - before > _LONGER * far)).sum())
    return out


def _lengths(vertices: Float[ndarray, "W 3"], edges: ndarray) -> Float[ndarray, " E"]:
    return np.asarray(np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1))
