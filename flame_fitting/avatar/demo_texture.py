"""Skin of a demo avatar: the head model's neutral texture with another tone, eye colour, freckles, pores, stubble.

Detail is a function of the point on the head, so it runs over the borders of the texture's charts.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

if TYPE_CHECKING:
    from flame_fitting.head.model import HeadModel

TONES = ((1.08, 1.10, 1.10), (1.0, 1.0, 1.0), (0.90, 0.84, 0.76), (0.70, 0.61, 0.55), (0.46, 0.37, 0.33))
IRISES = ((0.55, 0.75, 1.05), (0.60, 0.85, 0.70), (0.55, 0.50, 0.45), (1.0, 1.0, 1.0))


def paint_detail(head: "HeadModel", size: int, rng: np.random.Generator) -> UInt8[ndarray, "size size 3"]:
    """Texture (size, size, 3) sRGB for the head's own texture coordinates."""
    import torch
    from PIL import Image
    from scipy.ndimage import distance_transform_edt

    from flame_fitting.render.backend import make_rasterizer
    from flame_fitting.render.texturing import rasterize_uv

    assert head.texture is not None
    base = np.asarray(Image.fromarray(head.texture).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    texels = rasterize_uv(make_rasterizer("cpu"), head.uv, head.uv_faces, (size, size))
    masks = np.stack([_mask(head, *names) for names in (("eyeballs",), ("irises",), ("lips",), ("hair",), ("face",))])
    attributes = torch.as_tensor(np.concatenate([head.v_template.numpy().T, masks]).T, dtype=torch.float32)
    values = texels.interpolate(attributes, head.faces).numpy().astype(np.float64)
    covered = texels.covered.numpy()
    picture = base.copy()
    picture[covered] = _detailed(base[covered], values[covered], head, rng)
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    picture = picture[nearest[0], nearest[1]]
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _mask(head: "HeadModel", *names: str) -> ndarray:
    return head.region_mask(*names).numpy().astype(np.float32)


def _detailed(color: ndarray, values: ndarray, head: "HeadModel", rng: np.random.Generator) -> ndarray:
    point = np.ascontiguousarray(values[:, :3])
    eyeball, iris, lips, hair, face = values[:, 3:].T
    skin = (1 - eyeball)[:, None]
    color = color.copy()

    low, high = TONES[(k := int(rng.integers(len(TONES) - 1)))], TONES[k + 1]
    share = rng.random()
    tone = (1 - share) * np.array(low) + share * np.array(high)
    color *= 1 + skin * (tone - 1) * (1 - 0.2 * lips[:, None])
    color *= 1 + np.clip(iris, 0, 1)[:, None] * (np.array(IRISES[rng.integers(len(IRISES))]) - 1)
    color *= 1 + (rng.uniform(-0.20, 0.05) * lips)[:, None] * np.array([0.2, 1.0, 0.8])
    color *= 1 - (hair * rng.uniform(0.0, 0.5))[:, None]

    plain = (1 - np.clip(eyeball + lips + hair, 0, 1))[:, None]
    for wavelength, size in ((0.05, 0.025), (0.014, 0.020), (0.004, 0.018), (0.0013, 0.022)):
        color *= 1 + plain * size * _noise(point, wavelength, rng)[:, None] * np.array([0.7, 1.0, 1.1])
    color = _spots(color, point, head, plain * face[:, None], rng)
    if rng.random() < 0.6:
        color = _stubble(color, point, head, plain[:, 0] * face, rng)
    return _lines(color, point, head, plain[:, 0] * face, rng)


def _spots(color: ndarray, point: ndarray, head: "HeadModel", where: ndarray, rng: np.random.Generator) -> ndarray:
    """Freckles, and a few darker moles."""
    from scipy.spatial import cKDTree

    vertices = head.v_template.numpy().astype(np.float64)
    ids = head.regions["face"].numpy()
    nose = vertices[head.regions["nose"].numpy()]
    near_nose = np.exp(-((np.linalg.norm(vertices[ids] - nose.mean(0), axis=1) / 0.05) ** 2)) + 0.05
    for count, radius, depth in ((int(rng.integers(40, 260)), 0.0007, 0.22), (int(rng.integers(3, 9)), 0.0012, 0.55)):
        weight = near_nose if radius < 0.001 else np.ones(len(ids))
        centers = vertices[rng.choice(ids, size=min(count, len(ids)), replace=False, p=weight / weight.sum())]
        centers = centers + rng.normal(0, 0.0015, centers.shape)
        sizes = radius * rng.uniform(0.6, 1.4, len(centers))
        distance, nearest = cKDTree(centers).query(point, distance_upper_bound=0.006)
        found = np.isfinite(distance)
        cover = np.zeros(len(point))
        # centres lie a little off the surface, so the radius is widened
        cover[found] = np.exp(-((distance[found] / (1.6 * sizes[nearest[found]])) ** 2))
        color = color * (1 - depth * cover[:, None] * where * np.array([0.75, 1.0, 1.1]))
    return color


def _stubble(color: ndarray, point: ndarray, head: "HeadModel", where: ndarray, rng: np.random.Generator) -> ndarray:
    """Beard shadow with single hairs: around the mouth, on chin and jaw."""
    vertices = head.v_template.numpy().astype(np.float64)
    lips = vertices[head.regions["lips"].numpy()]
    middle = lips.mean(0)
    below = 1 / (1 + np.exp(-(middle[1] + 0.016 - point[:, 1] - 0.18 * np.abs(point[:, 0])) / 0.004))
    front = 1 / (1 + np.exp(-(point[:, 2] - (middle[2] - 0.09)) / 0.01))
    area = where * below * front * np.clip(0.7 + 0.5 * _noise(point, 0.02, rng), 0, 1)
    hairs = np.clip(_noise(point, 0.0009, rng) - 0.25, 0, 1)
    strength = rng.uniform(0.10, 0.30)
    return color * (1 - (strength * area * (0.45 + 1.2 * hairs))[:, None] * np.array([1.0, 0.95, 0.85]))


def _lines(color: ndarray, point: ndarray, head: "HeadModel", where: ndarray, rng: np.random.Generator) -> ndarray:
    """Faint lines across the forehead."""
    forehead = head.v_template.numpy().astype(np.float64)[head.regions["forehead"].numpy()]
    low, high = np.quantile(forehead[:, 1], [0.15, 0.8])
    strength = rng.uniform(0.0, 0.10)
    bend = 0.0015 * _noise(point, 0.03, rng) - 0.6 * point[:, 0] ** 2
    for height in np.linspace(low, high, int(rng.integers(2, 5))):
        line = np.exp(-(((point[:, 1] + bend - height) / 0.0007) ** 2)) * np.exp(-((point[:, 0] / 0.035) ** 2))
        color = color * (1 - (strength * line * where)[:, None])
    return color


def _noise(point: Float[ndarray, "N 3"], wavelength: float, rng: np.random.Generator) -> Float[ndarray, " N"]:
    """Smooth random values in about -1..1 over space (value noise on a repeating lattice)."""
    from flame_fitting.avatar.demo_kernels import value_noise

    lattice = rng.uniform(-1, 1, (64, 64, 64))
    return value_noise(point, wavelength, rng.uniform(0, 64, 3), lattice)
