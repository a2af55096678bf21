"""A camera is placed by the points that it sees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from flame_fitting.maths.resection import resect


def scene(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points the size of a face, a camera half a metre to two metres away, and what it sees."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3)) * [0.05, 0.06, 0.03]
    camera = np.eye(4)
    camera[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * 0.5).as_matrix()
    camera[:3, 3] = [*rng.normal(size=2) * 0.1, rng.uniform(0.5, 2.0)]
    seen = points @ camera[:3, :3].T + camera[:3, 3]
    return points, seen[:, :2] / seen[:, 2:], camera


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_camera_comes_back(seed: int) -> None:
    points, rays, camera = scene(seed)
    found = resect(points, rays)
    assert found is not None
    np.testing.assert_allclose(found, camera, atol=1e-5)


def test_a_fifth_may_be_wrong() -> None:
    points, rays, camera = scene(1)
    rays[:8] += 0.2
    found = resect(points, rays)
    assert found is not None
    np.testing.assert_allclose(found, camera, atol=1e-5)


@pytest.mark.parametrize("count", [0, 5])
def test_few_points_place_nothing(count: int) -> None:
    points, rays, _ = scene(2)
    assert resect(points[:count], rays[:count]) is None


def test_noise_alone_places_nothing() -> None:
    rng = np.random.default_rng(0)
    assert resect(rng.normal(size=(40, 3)), rng.normal(size=(40, 2))) is None
