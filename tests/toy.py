"""A tiny FLAME-format head, made from an ellipsoid, for tests that need any head model and no accuracy."""

import numpy as np
import trimesh

from flame_fitting.head.model import HeadData, HeadModel


def toy_head_data(n_shape: int = 6, n_expr: int = 4, seed: int = 0) -> HeadData:
    """An ellipsoid head of 642 vertices with smooth random bases, five joints and a few regions."""
    rng = np.random.default_rng(seed)
    sphere = trimesh.creation.icosphere(subdivisions=3)
    vertices = np.asarray(sphere.vertices) * [0.075, 0.11, 0.09]
    count = len(vertices)

    def directions(number: int) -> np.ndarray:
        frequency, phase = rng.normal(size=(3, 3, number)) * 20, rng.uniform(0, 6.28, size=(3, number))
        return 0.002 * np.sin(np.einsum("vc,cdk->vdk", vertices, frequency) + phase)

    height = vertices[:, 1]
    jaw = 1 / (1 + np.exp((height + 0.03) * 120)) * (vertices[:, 2] > 0)
    left = np.exp(-np.sum((vertices - [0.03, 0.03, 0.07]) ** 2, -1) / 0.012**2)
    right = np.exp(-np.sum((vertices - [-0.03, 0.03, 0.07]) ** 2, -1) / 0.012**2)
    root = 1 / (1 + np.exp((height + 0.09) * 200))
    raw = np.stack([root, np.full(count, 0.3), jaw, left, right], axis=1)
    weights = raw / raw.sum(1, keepdims=True)
    centres = np.array([[0, -0.1, 0], [0, -0.07, -0.01], [0, 0, 0.01], [0.03, 0.03, 0.06], [-0.03, 0.03, 0.06]])
    closeness = np.exp(-np.sum((centres[:, None] - vertices[None]) ** 2, -1) / 0.04**2)
    regions = {
        "face": np.flatnonzero((vertices[:, 2] > 0.03) & (np.abs(height) < 0.08)),
        "neck": np.flatnonzero(height < -0.08),
        "scalp": np.flatnonzero(height > 0.08),
        "neck_left_point": np.array([int(np.argmin(np.sum((vertices - [0.06, -0.07, 0]) ** 2, -1)))]),
        "neck_right_point": np.array([int(np.argmin(np.sum((vertices - [-0.06, -0.07, 0]) ** 2, -1)))]),
        "front_middle_bottom_point_boundary": np.array([int(np.argmin(np.sum((vertices - [0, -0.1, 0.03]) ** 2, -1)))]),
    }
    spherical = np.asarray(sphere.vertices)
    uv = np.stack([0.5 + np.arctan2(spherical[:, 0], spherical[:, 2]) / 6.30, 0.5 + spherical[:, 1] * 0.49], axis=1)
    return HeadData(
        name="toy",
        file_hash="toy",
        v_template=vertices,
        faces=np.asarray(sphere.faces),
        shapedirs=directions(n_shape),
        exprdirs=directions(n_expr),
        posedirs=rng.normal(size=(count, 3, 36)) * 5e-4,
        J_regressor=closeness / closeness.sum(1, keepdims=True),
        parents=[-1, 0, 1, 1, 1],
        weights=weights,
        uv=uv,
        uv_faces=np.asarray(sphere.faces),
        regions=regions,
    )


def toy_head(**options: int) -> HeadModel:
    """`toy_head_data` as a model."""
    return HeadModel(toy_head_data(**options))
