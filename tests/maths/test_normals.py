"""Normals in NumPy: against geometry, and against their differentiable twins."""

import numpy as np
import torch
import trimesh

from flame_fitting.maths.normals import area_vectors, face_normals, vertex_area_vectors, vertex_normals
from flame_fitting.render import shading


def sphere() -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions=3)
    return np.array(mesh.vertices), np.array(mesh.faces)


def test_a_sphere_turns_outward() -> None:
    vertices, faces = sphere()
    np.testing.assert_allclose(vertex_normals(vertices, faces), vertices, atol=0.02)
    normals, areas = face_normals(vertices, faces)
    assert (np.einsum("fc,fc->f", normals, vertices[faces].mean(1)) > 0.99).all()
    assert abs(areas.sum() - 4 * np.pi) < 0.1
    np.testing.assert_allclose(area_vectors(vertices, faces), 2 * areas[:, None] * normals, atol=1e-15)
    np.testing.assert_allclose(vertex_area_vectors(vertices, faces).sum(0), 0, atol=1e-12)  # a closed surface


def test_no_area_is_no_direction() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]])
    faces = np.array([[0, 1, 2]])
    normals, areas = face_normals(vertices, faces)
    assert not normals.any() and not areas.any()
    np.testing.assert_array_equal(vertex_normals(vertices, faces), np.tile([0.0, 0, 1], (4, 1)))


def test_the_differentiable_ones_are_the_same() -> None:
    rng = np.random.default_rng(0)
    vertices, faces = rng.normal(size=(50, 3)), rng.integers(0, 45, (80, 3))
    v, f = torch.as_tensor(vertices)[None], torch.as_tensor(faces)
    np.testing.assert_allclose(shading.face_normals(v, f)[0].numpy(), area_vectors(vertices, faces), atol=1e-13)
    np.testing.assert_allclose(shading.vertex_normals(v, f)[0].numpy(), vertex_normals(vertices, faces), atol=1e-12)
