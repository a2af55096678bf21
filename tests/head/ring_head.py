"""A head that needs no data: rings of skin from an open mouth to an open neck, as in FLAME, and eyeballs."""

import numpy as np
import trimesh

from flame_fitting.head.model import HeadData

RINGS, AROUND = 40, 32


def skin(rings: int = RINGS, around: int = AROUND) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid of rings about an axis from the mouth, in front, to the neck, behind and below; both ends open."""
    lean = np.radians(25)
    axis, side = np.array([0, np.sin(lean), np.cos(lean)]), np.array([1.0, 0, 0])
    up = np.cross(axis, side)
    polar = np.radians(2 + 148 * np.linspace(0, 1, rings) ** 2)[:, None, None]  # closer around the mouth
    turn = (2 * np.pi / around * np.arange(around))[None, :, None]
    unit = np.cos(polar) * axis + np.sin(polar) * (np.cos(turn) * side + np.sin(turn) * up)
    vertices = (unit * [0.075, 0.12, 0.1]).reshape(-1, 3)
    inner, outer = np.arange(around * (rings - 1)).reshape(rings - 1, around), np.arange(around)
    a, b = inner.ravel(), (inner - inner % around + (outer + 1) % around).ravel()
    c, d = a + around, b + around
    faces = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    return vertices, faces


def ring_head(eyes: bool = True) -> HeadData:
    """The head as data: the eyes' centres are above the mouth; bases are random, the jaw moves what is below it."""
    rng = np.random.default_rng(0)
    vertices, faces = skin()
    parts, triangles, count = [vertices], [faces], len(vertices)
    if eyes:
        ball = trimesh.creation.icosphere(subdivisions=3, radius=0.012)
        for sign in (1, -1):
            parts.append(np.asarray(ball.vertices) + [sign * 0.03, 0.075, 0.06])
            triangles.append(np.asarray(ball.faces) + count)
            count += len(ball.vertices)
    template = np.concatenate(parts)
    weights = np.zeros((count, 5))
    weights[:, 1] = 1
    weights[: len(vertices)][vertices[:, 1] < vertices[:AROUND, 1].mean()] = [0, 0, 1, 0, 0]
    regressor = rng.uniform(size=(5, count))
    return HeadData(
        name="rings",
        file_hash="rings",
        v_template=template,
        faces=np.concatenate(triangles).astype(np.int64),
        shapedirs=rng.normal(size=(count, 3, 4)) * 1e-3,
        exprdirs=rng.normal(size=(count, 3, 3)) * 1e-3,
        posedirs=rng.normal(size=(count, 3, 36)) * 1e-4,
        J_regressor=regressor / regressor.sum(1, keepdims=True),
        parents=[-1, 0, 1, 1, 1],
        weights=weights,
    )
