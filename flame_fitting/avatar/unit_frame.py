"""The frame in which an avatar is drawn and searched: its bounding box around the origin, of order 1.

A file's unit may make a head 1e-9 or 1e9 wide, and survey coordinates lie millions of units from the origin. Single
precision, squares of lengths and thresholds all work in this frame; results go back by one similarity in double
precision.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.interface import Avatar
from flame_fitting.capture.similarity import similarity_matrix


def in_unit_frame(avatar: Avatar) -> tuple[Avatar, Float[ndarray, "4 4"]]:
    """The avatar with its bounding box centred and at most 2 wide, and the similarity `world_from_unit` back.

    The similarity turns nothing, so that normals and axes keep their directions.
    """
    low, high = avatar.bounds
    # Halves first: the sum of two coordinates of any size stays finite.
    center, scale = 0.5 * low + 0.5 * high, float((0.5 * high - 0.5 * low).max())
    return avatar.normalized(center, scale), similarity_matrix(scale, np.eye(3), center)
