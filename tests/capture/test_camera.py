"""Property tests of the camera maths: axes, projections and moved cameras."""

import numpy as np
import pytest

from flame_fitting.capture import camera


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, ::-1].copy()


def random_camera(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    K = np.array(
        [
            [rng.uniform(300, 900), 0, rng.uniform(100, 400)],
            [0, rng.uniform(300, 900), rng.uniform(100, 400)],
            [0, 0, 1],
        ]
    )
    w2c = np.eye(4)
    w2c[:3, :3] = random_rotation(rng)
    w2c[:3, 3] = rng.normal(size=3)
    return K, w2c


def points_in_front(rng: np.random.Generator, w2c: np.ndarray, n: int = 20) -> np.ndarray:
    local = rng.uniform([-1, -1, 1], [1, 1, 4], size=(n, 3))
    return camera.transform_points(np.linalg.inv(w2c), local)


@pytest.mark.parametrize("seed", range(5))
def test_opengl_matrix_is_its_own_way_back(seed: int) -> None:
    _, w2c = random_camera(np.random.default_rng(seed))
    c2w = camera.opengl_camera_to_world(w2c)
    np.testing.assert_allclose(camera.world_to_camera_from_opengl(c2w), w2c, atol=1e-12)


def test_opengl_matrix_has_back_and_up_axes() -> None:
    w2c = camera.look_at([0, 0, 2], [0, 0, 0], [0, 1, 0])
    c2w = camera.opengl_camera_to_world(w2c)
    # a camera on +z that looks at the origin with +y up has the world's own axes in OpenGL's convention
    np.testing.assert_allclose(c2w, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]], atol=1e-12)


def test_point_above_the_target_is_in_the_upper_half() -> None:
    K = camera.intrinsics_from_fov(30.0, 200, 100)
    w2c = camera.look_at([0, 0, 2], [0, 0, 0], [0, 1, 0])
    x, y, depth = camera.project(np.array([[0.1, 0.2, 0.0]]), K, w2c)[0]
    assert x > 100 and y < 50 and depth == pytest.approx(2)


@pytest.mark.parametrize("seed", range(5))
def test_unproject_inverts_project(seed: int) -> None:
    rng = np.random.default_rng(seed)
    K, w2c = random_camera(rng)
    points = points_in_front(rng, w2c)
    pixels = camera.project(points, K, w2c)
    np.testing.assert_allclose(camera.unproject(pixels[:, :2], pixels[:, 2], K, w2c), points, atol=1e-10)
    origin, direction = camera.pixel_rays(pixels[:, :2], K, w2c)
    along = points - origin
    np.testing.assert_allclose(np.cross(along, direction), 0, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_clip_space_agrees_with_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    K, w2c = random_camera(rng)
    points = points_in_front(rng, w2c)
    clip = np.c_[points, np.ones(len(points))] @ camera.clip_from_world(K, w2c, 640, 480, 0.5, 10.0).T
    ndc = clip[:, :3] / clip[:, 3:]
    pixels = camera.project(points, K, w2c)
    np.testing.assert_allclose((ndc[:, 0] + 1) * 320, pixels[:, 0], atol=1e-9)
    np.testing.assert_allclose((ndc[:, 1] + 1) * 240, pixels[:, 1], atol=1e-9)
    assert (np.abs(ndc[:, 2]) < 1).all()


@pytest.mark.parametrize("scale", [0.001, 1.0, 73.0])
def test_camera_moved_by_a_similarity_sees_the_same_pixels(scale: float) -> None:
    rng = np.random.default_rng(1)
    K, w2c = random_camera(rng)
    points = points_in_front(rng, w2c)
    similarity = np.eye(4)
    similarity[:3, :3] = scale * random_rotation(rng)
    similarity[:3, 3] = rng.normal(size=3)
    moved = camera.move_camera(w2c, similarity)
    np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-9)
    before = camera.project(points, K, w2c)
    after = camera.project(camera.transform_points(similarity, points), K, moved)
    np.testing.assert_allclose(after[:, :2], before[:, :2], atol=1e-7)
    np.testing.assert_allclose(after[:, 2], before[:, 2] * scale, rtol=1e-9)
