"""Normals of triangle meshes in NumPy. `render/shading` has their differentiable twins."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


def area_vectors(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Float[ndarray, "F 3"]:
    """Normals of the triangles, twice their area long, outward for counter-clockwise ones."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def face_normals(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]
) -> tuple[Float[ndarray, "F 3"], Float[ndarray, " F"]]:
    """Unit normals (zero for triangles without area) and areas."""
    cross = area_vectors(vertices, faces)
    length = np.linalg.norm(cross, axis=1)
    return cross / np.where(length > 0, length, 1.0)[:, None], 0.5 * length


def vertex_area_vectors(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Float[ndarray, "V 3"]:
    """The sum of the `area_vectors` around each vertex."""
    total = np.zeros(vertices.shape, dtype=np.float64)
    vectors = area_vectors(vertices, faces)
    for k in range(3):
        np.add.at(total, faces[:, k], vectors)
    return total


def vertex_normals(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Float[ndarray, "V 3"]:
    """Unit normals, area-weighted means of the triangles around each vertex; (0, 0, 1) where there is no area.

    For meshes that are wound alike and share vertices, as head models; `avatar/normals` is for all others.
    """
    total = vertex_area_vectors(vertices, faces)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-20, total / np.maximum(length, 1e-20), np.array([0.0, 0.0, 1.0]))
