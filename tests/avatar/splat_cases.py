"""What splats are drawn from for comparisons with gsplat, here and in scripts/make_splat_golden.py."""

import numpy as np
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.splats import Splats
from flame_fitting.capture.camera import look_at

SIZE = (112, 80)
"""Width and height, px."""
BACKGROUND = (0.2, 0.5, 0.9)
NEAR = 0.2


def ball(count: int = 2000, degree: int = 3, seed: int = 3, thickness: float = 0.1, radius: float = 1.0) -> Splats:
    """Flat splats on a ball, evenly spread, of all colours and opacities above a half."""
    rng = np.random.default_rng(seed)
    k = np.arange(count) + 0.5
    height, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    across = np.sqrt(1 - height**2)
    normals = np.stack([across * np.cos(turn), height, across * np.sin(turn)], axis=1)
    side = np.cross(normals, [0.3, 0.5, 0.8])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    axes = np.stack([side, np.cross(normals, side), normals], axis=2)
    size = radius * np.sqrt(4 * np.pi / count)
    sh = rng.normal(0, 0.15, (count, (degree + 1) ** 2, 3))
    sh[:, 0] = rng.uniform(-1.5, 1.5, (count, 3))
    return Splats(
        radius * normals,
        np.tile(size * np.array([0.9, 0.6, thickness]), (count, 1)).astype(np.float32),
        Rotation.from_matrix(axes).as_quat()[:, [3, 0, 1, 2]].astype(np.float32),
        rng.uniform(0.5, 0.999, count).astype(np.float32),
        sh.astype(np.float32),
    )


def mixture(seed: int = 5) -> Splats:
    """A ball with splats of every shape around it: long, thick, faint, opaque, behind the camera."""
    rng = np.random.default_rng(seed)
    one = ball(400, seed=seed)
    count = 150
    quats = rng.normal(size=(count, 4))
    two = Splats(
        rng.normal(0, 1.5, (count, 3)),
        np.exp(rng.uniform(-5, -0.7, (count, 3))).astype(np.float32),
        (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        rng.uniform(0.0, 1.0, count).astype(np.float32),
        rng.normal(0, 0.3, (count, 16, 3)).astype(np.float32),
    )
    names = ("means", "scales", "quats", "opacities", "sh")
    return Splats(**{name: np.concatenate([getattr(one, name), getattr(two, name)]) for name in names})


def cameras() -> tuple[np.ndarray, np.ndarray]:
    """K (B, 3, 3) and world_to_camera (B, 4, 4): from three sides, one of them near and off its axis."""
    eyes = np.array([[0.5, 0.3, 5.0], [-4.0, 2.0, -1.0], [1.2, -0.5, 1.9]])
    focal = np.array([[160.0, 150.0, 60.0, 35.0], [140.0, 140.0, 56.0, 40.0], [90.0, 95.0, 50.0, 44.0]])
    K = np.zeros((3, 3, 3))
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = *focal.T, 1.0
    return K, look_at(eyes, np.zeros(3), np.broadcast_to([0.0, 1.0, 0.0], (3, 3)))
