"""Where parts of a head end, as closed outlines seen from fixed points of the head, in the head's own measures.

Angles in degrees; radii in distances between the eyeball centres (`iod`) unless said otherwise. The outlines are
symmetric and were drawn on templates of FLAME's shape; they cut between vertices, never list them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

FACE = (
    (0, 20, 40, 55, 70, 85, 100, 115, 130, 145, 155, 165, 172, 180),
    (31, 33, 39, 49, 58.5, 70, 79, 77.5, 70.5, 62, 54.5, 46.5, 43, 42),
)
"""Angle from forward, by the angle around the forward axis (0 up, 180 down), both seen from the head's middle."""

SCALP = (FACE[0], (153.5, 152, 146, 137.5, 131, 117, 106, 100, 98.5, 101.5, 98, 85, 88, 90))
"""Angle from backward, by the same angle around."""

EAR_FROM_TIP = (
    (0, 30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 330, 360),
    (0.51, 0.51, 0.475, 0.31, 0.20, 0.26, 0.25, 0.19, 0.32, 0.885, 1.05, 0.60, 0.51),
)
"""Side view (0 forward, 90 up) about the vertex that sticks out most."""

EAR = (EAR_FROM_TIP[0], (0.34, 0.355, 0.51, 0.70, 0.505, 0.385, 0.295, 0.435, 0.435, 0.605, 0.63, 0.365, 0.34))
"""The same about the middle of the first outline's box, which hardly depends on which vertex sticks out most."""

NOSE = (
    (0, 12, 24, 40, 60, 80, 100, 120, 140, 160, 180),
    (0.515, 0.48, 0.405, 0.37, 0.465, 0.395, 0.325, 0.315, 0.225, 0.20, 0.205),
)
"""Front view (0 up, 180 down) about the nose's tip."""

EYE_REGION = (
    (0, 15, 30, 45, 60, 70, 80, 90, 100, 110, 120, 130, 150, 180),
    (0.56, 0.575, 0.61, 0.76, 0.935, 0.955, 0.94, 0.93, 0.935, 0.865, 0.255, 0.14, 0.14, 0.155),
)
"""Front view (0 up) about the middle between the eyes: both eyes and the bridge of the nose."""

ONE_EYE = (
    (0, 30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 330, 360),
    (0.365, 0.415, 0.40, 0.295, 0.25, 0.28, 0.295, 0.23, 0.18, 0.18, 0.21, 0.33, 0.365),
)
"""Front view (0 outward, 90 up) about one eyeball's centre."""

FOREHEAD = ((0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.1), (0.285, 0.285, 0.275, 0.28, 0.185, 0.15, 0.25))
"""Height of its lower edge above the eyes, by the distance from the middle, both in iod."""

Table = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class HeadMeasures:
    """What outlines are placed and scaled with."""

    left_eye: Float[ndarray, " 3"]
    """Centre of the eyeball at +x, m."""
    right_eye: Float[ndarray, " 3"]
    mouth: Float[ndarray, " 3"]
    """Middle of the mouth's inner boundary."""
    crown: float
    """y of the highest vertex."""
    back: float
    """z of the rearmost vertex above the mouth."""
    half_width: float
    """Largest |x| of the braincase, from the middle."""

    @property
    def eyes(self) -> Float[ndarray, " 3"]:
        """Middle between the eyeballs."""
        return 0.5 * (self.left_eye + self.right_eye)

    @property
    def iod(self) -> float:
        """Distance between the eyeballs' centres, m."""
        return float(np.linalg.norm(self.left_eye - self.right_eye))


def measure(
    skin: Float[ndarray, "n 3"],
    left_eye: Float[ndarray, " 3"],
    right_eye: Float[ndarray, " 3"],
    mouth: Float[ndarray, " 3"],
) -> HeadMeasures | None:
    """Measures of a head, or None where the parts lie to each other as in no head."""
    eyes = 0.5 * (left_eye + right_eye)
    crown = float(skin[:, 1].max())
    above_ears = skin[skin[:, 1] > eyes[1] + 0.35 * (crown - eyes[1])]
    behind = skin[skin[:, 1] > mouth[1]]
    if not len(above_ears) or not mouth[1] < eyes[1] < crown or not behind[:, 2].min() < eyes[2]:
        return None
    half_width = float(np.abs(above_ears[:, 0] - eyes[0]).max())
    return HeadMeasures(left_eye, right_eye, mouth, crown, float(behind[:, 2].min()), half_width)


def around(
    vertices: Float[ndarray, "V 3"], measures: HeadMeasures
) -> tuple[Float[ndarray, " V"], Float[ndarray, " V"]]:
    """Direction of each vertex from the head's middle: degrees around the forward axis (0 up), degrees off it.

    Lengths are taken in the head's own: half width, eyes to crown (upward) or to the mouth (downward), half depth.
    """
    eyes = measures.eyes
    x = (vertices[:, 0] - eyes[0]) / measures.half_width
    y = vertices[:, 1] - eyes[1]
    y = np.where(y > 0, y / (measures.crown - eyes[1]), y / (1.5 * (eyes[1] - measures.mouth[1])))
    half_depth = 0.5 * (eyes[2] - measures.back)
    z = (vertices[:, 2] - (eyes[2] - half_depth)) / half_depth
    return np.degrees(np.arctan2(np.abs(x), y)), np.degrees(np.arctan2(np.hypot(x, y), z))


def within(
    across: Float[ndarray, " V"], up: Float[ndarray, " V"], outline: Table, zero_is_up: bool = False
) -> Bool[ndarray, " V"]:
    """Whether points of a plane lie inside an outline about its origin."""
    if zero_is_up:
        angle = np.degrees(np.arctan2(np.abs(across), up))
    else:
        angle = np.degrees(np.arctan2(up, across)) % 360
    return np.hypot(across, up) < np.interp(angle, *outline)
