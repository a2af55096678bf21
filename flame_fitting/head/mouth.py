"""Rings of edges around the mouth's inner opening, which FLAME's mesh is laid out in.

Counted from the open boundary inside the mouth (ring 0): 0 to 3 line the inside, 4 and 5 are the red of the lips, the
contour of the upper lip is ring 6 and that of the lower lip ring 7, and the skin around the lips ends with ring 9.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.head.mesh_graph import MeshGraph

INSIDE, RED, UPPER_CONTOUR, LOWER_CONTOUR, LIPS_FROM, LIPS_TO = 3, 5, 6, 7, 2, 9


@dataclass(frozen=True)
class MouthRings:
    """Ring of each vertex."""

    graph: MeshGraph
    vertices: Float[ndarray, "V 3"]
    ring: Int[ndarray, " V"]
    """Edges to the mouth's inner boundary; very large far from it."""

    def arcs(self, ring: int) -> tuple[Int[ndarray, " n"], Int[ndarray, " m"]] | None:
        """Upper and lower vertices of a ring between its corners, each from the subject's left to the right."""
        cycle = self.graph.cycle(self.ring == ring)
        if cycle is None:
            return None
        cycle = np.roll(cycle, -int(np.argmax(self.vertices[cycle, 0])))
        other = int(np.argmin(self.vertices[cycle, 0]))
        one, two = cycle[1:other], cycle[:other:-1]
        if len(one) == 0 or len(two) == 0:
            return None
        return (one, two) if self.vertices[one, 1].mean() > self.vertices[two, 1].mean() else (two, one)

    def contour_pairs(self) -> tuple[Int[ndarray, " n"], Int[ndarray, " n"]] | None:
        """Paired vertices of the upper and the lower lip's contour, from left to right; None on other meshes."""
        above, below = self.arcs(UPPER_CONTOUR), self.arcs(LOWER_CONTOUR)
        if above is None or below is None or len(above[0]) != len(below[1]):
            return None
        return above[0], below[1]


def mouth_loop(graph: MeshGraph, vertices: Float[ndarray, "V 3"]) -> Int[ndarray, " n"] | None:
    """The open boundary inside the mouth: the foremost one but the neck's; None where there is none."""
    loops = sorted(graph.boundary_loops, key=lambda loop: vertices[loop, 1].mean())
    return max(loops[1:], key=lambda loop: vertices[loop, 2].mean(), default=None)


def mouth_rings(graph: MeshGraph, vertices: Float[ndarray, "V 3"]) -> MouthRings | None:
    """Rings around the mouth, or None where the mesh is not open there."""
    loop = mouth_loop(graph, vertices)
    return None if loop is None else MouthRings(graph, vertices, graph.hops(loop, LIPS_TO + 1))
