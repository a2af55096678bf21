"""How far lips pass through each other."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

if TYPE_CHECKING:
    from flame_fitting.head.model import HeadModel

_REACH = 0.010
"""Metres up to which a lip may lie in the other one."""
_ALONG = 0.7
"""Share of the way to the other lip's surface along its normal, at least: what lies beside a lip is not in it."""


def lip_depths(head: "HeadModel", vertices: Float[ndarray, "V 3"]) -> Float[ndarray, " N"]:
    """How deep (metres) each vertex of the outer lips lies in the other lip, 0 outside. Upper and lower by the jaw."""
    from flame_fitting.maths.closest import TriangleTree
    from flame_fitting.maths.normals import vertex_normals

    faces = head.faces.numpy()
    lips = head.region_mask("lips", "lips_tight").numpy()
    lower = head.weights[:, 2].numpy() > 0.5
    normals = vertex_normals(vertices, faces)
    out = []
    for own, other in ((lips & ~lower, lips & lower), (lips & lower, lips & ~lower)):
        patch = faces[other[faces].all(1)]
        found = TriangleTree(vertices, patch).closest(vertices[own])
        normal = np.einsum("nk,nkc->nc", found.barycentric, normals[patch[found.face]])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        depth = ((found.point - vertices[own]) * normal).sum(1)
        out.append(np.where((found.distance < _REACH) & (depth > _ALONG * found.distance), depth, 0.0))
    return np.concatenate(out)


def crossing_triangles(head: "HeadModel", vertices: Float[ndarray, "V 3"], region: str) -> int:
    """Triangles of a region that pass through any other one."""
    from flame_fitting.fit.intersections import self_intersections

    inside = np.flatnonzero(head.face_mask(region).numpy())
    return int(self_intersections(vertices, head.faces.numpy(), inside).sum())
