"""How deep parts of a mesh have passed through each other."""

import numpy as np
import pytest
import trimesh

from flame_fitting.fit.intersections import crossing_pairs
from flame_fitting.fit.penetration import passed_through

BALL = trimesh.creation.icosphere(subdivisions=4, radius=1.0)


def ball_and_sheet(height: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A ball of radius 1 below an open sheet that faces down at `height` and is 0.8 wide."""
    line = np.linspace(-0.4, 0.4, 17)
    x, y = np.meshgrid(line, line, indexing="ij")
    corner = (np.arange(16)[:, None] * 17 + np.arange(16)).reshape(-1)
    lower = np.stack([corner, corner + 1, corner + 17], axis=1)
    sheet = np.concatenate([lower, np.stack([corner + 1, corner + 18, corner + 17], axis=1)])
    count = len(BALL.vertices)
    vertices = np.concatenate([BALL.vertices, np.stack([x, y, np.full_like(x, height)], axis=-1).reshape(-1, 3)])
    faces = np.concatenate([BALL.faces, sheet + count])
    return vertices, faces, np.arange(len(BALL.faces)), np.arange(len(BALL.faces), len(faces))


def test_a_ball_that_goes_through_a_sheet() -> None:
    vertices, faces, ball, sheet = ball_and_sheet(0.95)
    pairs = crossing_pairs(vertices, faces, ball, sheet)
    ids, depth = passed_through(vertices, faces, ball, sheet, pairs)
    np.testing.assert_allclose(depth, vertices[ids, 2] - 0.95, atol=1e-12)
    assert depth.max() == pytest.approx(0.05, abs=1e-3)
    # all of the cap, and nothing that the sheet only stands beside: behind it in front of its rim is the whole ball
    assert set(ids) == set(np.flatnonzero(BALL.vertices[:, 2] > 0.95))
    ids, depth = passed_through(vertices, faces, sheet, ball, pairs)
    inside = np.linalg.norm(vertices[ids], axis=1)
    assert len(ids) > 40 and (inside < 1).all()
    np.testing.assert_allclose(depth, 1 - inside, atol=2e-3)  # a ball of flat triangles


def test_what_lies_behind_without_crossing_has_not_passed_through() -> None:
    vertices, faces, ball, sheet = ball_and_sheet(-1.05)
    pairs = crossing_pairs(vertices, faces, ball, sheet)
    assert not len(pairs) and not len(passed_through(vertices, faces, ball, sheet, pairs)[0])
