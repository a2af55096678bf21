"""Joints, their regressor, skinning weights and the jaw's pose corrective."""

import numpy as np
from scipy.optimize import nnls

from open_head.lips import geodesic
from open_head.mesh import unique_edges

# Column of posedirs that holds R[2, 1] = sin(angle) of a jaw rotation about x: joint 1 of (neck, jaw, eyes), entry 7.
JAW_SIN_COLUMN = 9 * 1 + 7


def smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def fit_jaw(skin: np.ndarray, opened: np.ndarray) -> tuple[np.ndarray, float]:
    """Hinge (0, y, z) and angle about x of the best rigid motion of what moves most in opened (n, 3) displacements."""
    size = np.linalg.norm(opened, axis=1)
    big = size > 0.7 * size.max()
    start, end = skin[big, 1:], skin[big, 1:] + opened[big, 1:]
    a, b = start - start.mean(0), end - end.mean(0)
    angle = np.arctan2((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), (a * b).sum())
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    hinge = np.linalg.solve(np.eye(2) - turn, end.mean(0) - turn @ start.mean(0))
    return np.array([0.0, *hinge]), float(angle)


def about_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def jaw_share(skin: np.ndarray, faces: np.ndarray, opened: np.ndarray, hinge: np.ndarray, angle: float) -> np.ndarray:
    """Share (n,) of the rigid jaw rotation in opened, smoothed a little along the surface."""
    rigid = (skin - hinge) @ (about_x(angle) - np.eye(3)).T
    share = np.clip((opened * rigid).sum(1) / ((rigid**2).sum(1) + 0.002**2), 0, 1)
    edges = unique_edges(faces)
    both = np.concatenate([edges, edges[:, ::-1]])
    degree = np.bincount(both[:, 0], minlength=len(skin))
    for _ in range(4):
        mean = np.bincount(both[:, 0], share[both[:, 1]], minlength=len(skin)) / np.maximum(degree, 1)
        share = 0.5 * share + 0.5 * mean
    return share


def jaw_corrective(
    skin: np.ndarray, opened: np.ndarray, share: np.ndarray, hinge: np.ndarray, angle: float
) -> np.ndarray:
    """Rest-pose offset (n, 3) per unit of sin(angle) that makes the skinned jaw rotation reach opened."""
    blend = (1 - share)[:, None, None] * np.eye(3) + share[:, None, None] * about_x(angle)
    rest = np.linalg.solve(blend, (skin + opened - hinge)[..., None])[..., 0] + hinge
    return (rest - skin) / np.sin(angle)


def head_share(skin: np.ndarray, faces: np.ndarray, bottom: np.ndarray, eye_center: np.ndarray) -> np.ndarray:
    """Share (n,) of the neck joint: 1 on the head, a smooth ramp down the neck, 0 at the bottom line."""
    relative = skin - eye_center
    height = relative[:, 1] + 0.35 * (relative[:, 2] + 0.085)
    ramp = smoothstep((height + 0.175) / 0.075)
    return ramp * smoothstep(np.minimum(geodesic(skin, faces, bottom, 0.05), 0.05) / 0.02)


def regressor_row(points: np.ndarray, candidates: np.ndarray, target: np.ndarray, count: int) -> np.ndarray:
    """Non-negative weights (count,) over candidate vertices, sum 1, whose mean of points (n, 3) is target."""
    # the tiny last block spreads the weight over many vertices
    n = len(candidates)
    system = np.concatenate([points[candidates].T * 1e3, np.ones((1, n)) * 1e3, np.eye(n) * 1e-2])
    right = np.concatenate([target * 1e3, [1e3], np.zeros(n)])
    weights, _ = nnls(system, right, maxiter=20 * n)
    row = np.zeros(count)
    row[candidates] = weights / weights.sum()
    return row
