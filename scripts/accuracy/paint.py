"""Colours of textures and vertices, and finer triangles to carry them."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.pictures import to_uint8

if TYPE_CHECKING:
    from flame_fitting.head.model import HeadModel


def painted_texture(head: "HeadModel", colors: Float[ndarray, "V 3"], size: int = 1024) -> ndarray:
    """A texture for a model without one, from colours at its vertices."""
    import torch
    from scipy.ndimage import distance_transform_edt

    from flame_fitting.render.backend import make_rasterizer
    from flame_fitting.render.texturing import rasterize_uv

    texels = rasterize_uv(make_rasterizer("cpu"), head.uv, head.uv_faces, (size, size))
    covered = texels.covered.numpy()
    picture = np.zeros((size, size, 3))
    values = torch.as_tensor(colors, dtype=torch.float32)
    picture[covered] = texels.interpolate(values, head.faces).numpy()[covered]
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return to_uint8(picture[nearest[0], nearest[1]])


def sampled(picture: ndarray, uv: Float[ndarray, "N 2"]) -> Float[ndarray, "N 3"]:
    """Colours 0..1 of a texture, bilinear."""
    from scipy.ndimage import map_coordinates

    size = np.array(picture.shape[:2])
    at = np.stack([(1 - uv[:, 1]) * size[0] - 0.5, uv[:, 0] * size[1] - 0.5])
    channels = [map_coordinates(picture[..., k].astype(np.float64), at, order=1, mode="nearest") for k in range(3)]
    return np.stack(channels, axis=1) / 255


def subdivided(vertices: ndarray, faces: ndarray, uv: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Every triangle cut into four."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    middle = len(vertices) + inverse.reshape(-1, 3)
    a, b, c = faces.T
    ab, bc, ca = middle.T
    new = np.concatenate([np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return (
        np.concatenate([vertices, vertices[unique].mean(1)]),
        new,
        np.concatenate([uv, uv[unique].mean(1)]),
    )
