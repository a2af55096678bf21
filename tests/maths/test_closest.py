"""Closest points against brute force."""

import numpy as np
import pytest
import trimesh

from flame_fitting.maths.closest import TriangleTree, nearest_on_surface


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


FAR = np.array([348211.0, 5412877.0, 112.0])


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1.0, 1e6, 1e9])
@pytest.mark.parametrize("place", [0.0, 1.0])
def test_any_unit_and_place(scale: float, place: float) -> None:
    rng = np.random.default_rng(3)
    vertices, faces = rng.normal(size=(60, 3)), rng.integers(0, 60, (200, 3))
    points = rng.normal(size=(150, 3)) * 1.5
    expected = TriangleTree(vertices, faces).closest(points)
    found = TriangleTree(scale * (vertices + place * FAR), faces).closest(scale * (points + place * FAR))
    np.testing.assert_allclose(found.distance / scale, expected.distance, atol=1e-12 if not place else 1e-8)
    np.testing.assert_allclose(found.point / scale - place * FAR, expected.point, atol=1e-12 if not place else 1e-7)


def test_triangles_that_rounding_has_made_points_and_lines() -> None:
    """Vertices on a coarse grid, as single precision leaves them far from the origin."""
    rng = np.random.default_rng(0)
    for grid in (0.5, 0.1, 1e-8):
        vertices = np.round(rng.uniform(0, 1, (80, 3)) / grid) * grid
        faces = rng.integers(0, 80, (300, 3))
        points = np.concatenate([vertices, rng.uniform(-0.5, 1.5, (200, 3))])
        found = TriangleTree(vertices, faces).closest(points)
        assert np.isfinite(found.distance).all() and (found.barycentric >= -1e-9).all()
        np.testing.assert_allclose(found.barycentric.sum(1), 1, atol=1e-9)
        used = np.unique(faces)
        assert found.distance[used].max() < 1e-9
        corners = np.linalg.norm(points[:, None] - vertices[used], axis=-1).min(1)
        assert (found.distance <= corners + 1e-12).all()


def test_points_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        TriangleTree(np.eye(3), np.array([[0, 1, 2]])).closest(np.array([[np.nan, 0, 0]]))


def test_the_exhaustive_search_finds_the_same() -> None:
    rng = np.random.default_rng(4)
    vertices, faces = rng.normal(size=(60, 3)), rng.integers(0, 60, (200, 3))  # some without area
    points = rng.normal(size=(50, 3))
    found = TriangleTree(vertices, faces).closest(points)
    face, barycentric, distance = nearest_on_surface(points, vertices, faces)
    np.testing.assert_allclose(distance, found.distance, atol=1e-12)
    np.testing.assert_allclose(np.einsum("nk,nkc->nc", barycentric, vertices[faces[face]]), found.point, atol=1e-9)


def test_the_exhaustive_search_keeps_to_the_triangles_that_are_allowed() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 2], [1, 0, 2], [0, 1, 2]])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    points = np.array([[0.2, 0.2, 0.1], [0.2, 0.2, 0.1], [np.nan, 0, 0], [0.2, 0.2, 0.1]])
    allowed = np.array([[True, True], [False, True], [True, True], [False, False]])
    face, _, distance = nearest_on_surface(points, vertices, faces, allowed)
    assert face.tolist() == [0, 1, -1, -1]
    np.testing.assert_allclose(distance[:2], [0.1, 1.9])
    assert nearest_on_surface(points, vertices, faces, np.array([[False, True]]))[0].tolist() == [1, 1, -1, 1]
