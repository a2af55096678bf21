"""Paints of drawn heads: other skins, lips and irises than a head model's own."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.demo_texture import paint_detail
from flame_fitting.head.model import HeadModel

_SIZE = 512
"""Side of a texture, px."""


def drawn_paints(head: HeadModel, plain: Float[ndarray, "V 3"] | None, count: int, seed: int) -> list[ndarray]:
    """Textures (S, S, 3) uint8 of a model that has one, else vertex colours (V, 3) in 0..1 made of the plain ones."""
    rngs = np.random.default_rng([seed, 1]).spawn(count)
    if plain is None:
        return [paint_detail(head, _SIZE, rng) for rng in rngs]
    return [np.clip(plain * rng.uniform(0.75, 1.1) * rng.uniform(0.93, 1.07, 3), 0, 1) for rng in rngs]
