"""The iBUG-68 landmarks as a subset of the 478 MediaPipe points, and groups of points by name.

iBUG-68 order (Sagonas et al., "300 Faces in-the-Wild", 2013), left and right as seen in the picture: 0..16 jaw line,
17..26 brows, 27..30 bridge of the nose, 31..35 its lower edge, 36..47 eyes, 48..59 outer and 60..67 inner lip contour;
it starts on the subject's right. The indices below were chosen by anatomical meaning. The jaw line of a turned head
is a contour, not a fixed set of points: only the 51 inner points are corresponding surface points.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.landmarks import mediapipe_topology as topology

SCHEMES = {"mediapipe478": topology.N_POINTS, "ibug68": 68}
"""Points of each known order of landmarks."""

IBUG68_FROM_MEDIAPIPE = np.array(
    [
        *(127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356),  # jaw line
        *(70, 63, 105, 66, 107),  # right brow, outer to inner
        *(336, 296, 334, 293, 300),  # left brow, inner to outer
        *(168, 197, 5, 4),  # bridge to tip
        *(98, 97, 2, 326, 327),  # lower edge of the nose
        *(33, 160, 158, 133, 153, 144),  # right eye: outer corner, upper lid, inner corner, lower lid
        *(362, 385, 387, 263, 373, 380),  # left eye: inner corner, upper lid, outer corner, lower lid
        *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),  # outer lip contour
        *(78, 81, 13, 311, 308, 402, 14, 178),  # inner lip contour
    ]
)
"""(68,) MediaPipe index of each iBUG point."""

INNER_51 = np.arange(17, 68)
"""iBUG points that are surface points from any view (all but the jaw line)."""

IBUG_GROUPS: dict[str, ndarray] = {
    "jawline": np.arange(0, 17),
    "right_brow": np.arange(17, 22),
    "left_brow": np.arange(22, 27),
    "brows": np.arange(17, 27),
    "nose": np.arange(27, 36),
    "right_eye": np.arange(36, 42),
    "left_eye": np.arange(42, 48),
    "eyes": np.arange(36, 48),
    "outer_lips": np.arange(48, 60),
    "inner_lips": np.arange(60, 68),
    "lips": np.arange(48, 68),
}
"""iBUG indices by the name of the part; left and right are the subject's."""

_RIGHT_BROW = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
_RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
_NOSE_MIDLINE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2)
_RIGHT_NOSE = (122, 196, 3, 51, 45, 44, 125, 141, 97, 98, 64, 48, 49, 129, 131, 198, 236, 134, 220, 115)
_OUTER_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
_INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)


def _twins(right: tuple[int, ...]) -> ndarray:
    return topology.mirror_permutation()[list(right)]


MEDIAPIPE_GROUPS: dict[str, ndarray] = {
    "right_brow": np.array(_RIGHT_BROW),
    "left_brow": _twins(_RIGHT_BROW),
    "brows": np.concatenate([_RIGHT_BROW, _twins(_RIGHT_BROW)]),
    "nose": np.concatenate([_NOSE_MIDLINE, _RIGHT_NOSE, _twins(_RIGHT_NOSE)]),
    "right_eye": np.array(_RIGHT_EYE),
    "left_eye": _twins(_RIGHT_EYE),
    "eyes": np.concatenate([_RIGHT_EYE, _twins(_RIGHT_EYE)]),
    "outer_lips": np.array(_OUTER_LIPS),
    "inner_lips": np.array(_INNER_LIPS),
    "lips": np.concatenate([_OUTER_LIPS, _INNER_LIPS]),
    "outline": np.array(topology.OUTLINE),
    "right_iris": np.array(topology.RIGHT_IRIS),
    "left_iris": np.array(topology.LEFT_IRIS),
    "irises": np.array(topology.RIGHT_IRIS + topology.LEFT_IRIS),
}
"""MediaPipe indices by the name of the part; left and right are the subject's."""


def ibug_indices(scheme: str) -> ndarray:
    """(68,) index of each iBUG point in landmarks of this scheme."""
    if scheme == "ibug68":
        return np.arange(68)
    if scheme == "mediapipe478":
        return IBUG68_FROM_MEDIAPIPE
    raise ValueError(f"no iBUG-68 subset is known for the landmark scheme {scheme}")


def inner_indices(scheme: str) -> ndarray:
    """(51,) index of each inner iBUG point in landmarks of this scheme."""
    return ibug_indices(scheme)[INNER_51]


def groups_of(scheme: str) -> dict[str, ndarray]:
    """Indices of named parts in landmarks of this scheme."""
    return MEDIAPIPE_GROUPS if scheme == "mediapipe478" else IBUG_GROUPS


def inner_weights() -> Float[ndarray, "51"]:
    """Trust in each inner iBUG point for a similarity: 2 for nose, eye and mouth corners, 0.5 for brows, else 1."""
    weights = np.ones(68)
    weights[IBUG_GROUPS["brows"]] = 0.5
    weights[IBUG_GROUPS["nose"]] = 2.0
    weights[[36, 39, 42, 45, 48, 54]] = 2.0
    return weights[INNER_51]
