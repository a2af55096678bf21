"""Triangles that pass through each other."""

import numpy as np
import pytest
import trimesh

from flame_fitting.fit import intersections
from flame_fitting.fit.intersections import crossing_pairs, self_intersections

FLAT = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
APART = np.array([[0, 1, 2], [3, 4, 5]])


def crossing(other: np.ndarray, faces: np.ndarray = APART) -> bool:
    both = np.concatenate([FLAT, other])
    pairs = crossing_pairs(both, faces)
    assert pairs.tolist() in ([], [[0, 1]])
    swapped = crossing_pairs(both, faces[::-1])
    assert len(swapped) == len(pairs)
    return len(pairs) == 1


def test_one_that_pierces_another() -> None:
    pierces = np.array([[0.2, 0.2, -1], [0.3, 0.2, 1], [0.2, 0.3, 1]])
    assert crossing(pierces)
    assert not crossing(pierces + [0.0, 0.0, 1.5]), "the plane is passed, the triangle is not reached"
    assert not crossing(pierces + [0.7, 0.7, 0.0]), "beside it"


def test_one_edge_of_each_through_the_other() -> None:
    assert crossing(np.array([[-0.5, 0.3, -0.2], [0.5, 0.3, -0.2], [0.2, 0.3, 0.5]]))


def test_touching_and_lying_in_one_plane_do_not_count() -> None:
    assert not crossing(np.array([[0.2, 0.2, 0], [0.2, 0.2, 1], [0.3, 0.3, 1]])), "a corner on the other"
    assert not crossing(FLAT + [0.1, 0.1, 0.0]), "in one plane"
    assert not crossing(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 1]])), "an edge at the same place"


def test_neighbours_do_not_count() -> None:
    # the second triangle cuts through the first, and begins at its corner 0
    cuts = np.array([[0.6, 0.2, 0.4], [0.6, 0.2, -0.4]])
    vertices = np.concatenate([FLAT, cuts])
    assert len(crossing_pairs(vertices, np.array([[0, 1, 2], [0, 3, 4]]))) == 0
    apart = np.concatenate([vertices, FLAT[:1] - [0.1, 0.03, 0.0]])
    assert len(crossing_pairs(apart, np.array([[0, 1, 2], [5, 3, 4]]))) == 1


def test_a_triangle_without_area_crosses_nothing() -> None:
    assert not crossing(np.array([[0.2, 0.2, 0.0]] * 3))


@pytest.mark.parametrize("chunk", [2_000_000, 1_000])
def test_two_spheres_cross_along_a_circle(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intersections, "_CHUNK", chunk)
    ball = trimesh.creation.icosphere(subdivisions=3)
    turned = trimesh.transform_points(ball.vertices, trimesh.transformations.rotation_matrix(0.3, [1, 2, 3]))
    vertices = np.concatenate([ball.vertices, turned + [0.31, 1.17, 0.05]])
    count = len(ball.faces)
    faces = np.concatenate([ball.faces, ball.faces + len(ball.vertices)])
    first, second = np.arange(count), np.arange(count, 2 * count)
    found = self_intersections(vertices, faces)
    # a triangle crosses if it has corners in and out of the other ball, but for facets cut off at the rim
    inside = np.concatenate(
        [
            np.linalg.norm(vertices[: len(turned)] - [0.31, 1.17, 0.05], axis=1) < 1,
            np.linalg.norm(vertices[len(turned) :], axis=1) < 1,
        ]
    )[faces].sum(axis=1)
    expected = (inside > 0) & (inside < 3)
    assert found.sum() > 100 and (found != expected).sum() < 0.12 * expected.sum()
    # asked for from one side, only that side is marked; within one ball nothing crosses
    assert np.array_equal(self_intersections(vertices, faces, first, second)[:count], found[:count])
    assert not self_intersections(vertices, faces, first, second)[count:].any()
    assert not self_intersections(vertices, faces, first, first).any()
    brute = crossing_pairs(vertices, faces, np.flatnonzero(found)[:40], None)
    assert set(np.flatnonzero(found)[:40]) <= set(brute.ravel())
