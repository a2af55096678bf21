"""Closest points against brute force."""

import numpy as np
import pytest
import trimesh

from flame_fitting.report.closest import TriangleTree


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vertices, faces = rng.normal(size=(60, 3)), rng.integers(0, 60, (200, 3))
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
    points = rng.normal(size=(150, 3)) * 1.5
    found = TriangleTree(vertices, faces).closest(points)
    triangles = vertices[faces]
    for point, distance in zip(points, found.distance, strict=True):
        closest = trimesh.triangles.closest_point(triangles, np.repeat(point[None], len(faces), 0))
        assert distance == pytest.approx(np.linalg.norm(closest - point, axis=1).min(), abs=1e-12)
    np.testing.assert_allclose(np.linalg.norm(points - found.point, axis=1), found.distance, atol=1e-12)
    np.testing.assert_allclose(found.barycentric.sum(1), 1, atol=1e-12)


def test_degenerate_triangles_and_equal_centres() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = np.array([[0, 1, 2]] * 20 + [[0, 0, 0], [0, 1, 1]])
    found = TriangleTree(vertices, faces).closest(np.array([[0.2, 0.2, 0.5], [-1.0, 0, 0]]))
    np.testing.assert_allclose(found.distance, [0.5, 1.0], atol=1e-12)
