"""What a picture shows of an eye: both rims of its lids, its corners, its iris, the eyeball's middle, and its gaze.

The detector says where the eyes are; a small network looks at an upright patch around each of them. Places are told
along the line between the detector's corners and across it, in lengths of that line, so that they do not change with
the picture's size.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting import assets
from flame_fitting.landmarks.schemes import scheme_named

COLUMNS = 5
"""Of lids, from the outer to the inner corner: those of `head.apertures`."""
PLACES = (
    *(f"eyeUpperRim{column}" for column in range(COLUMNS)),
    *(f"eyeLowerRim{column}" for column in range(COLUMNS)),
    *("eyeOuterCorner", "eyeInnerCorner", "eyeIris", "eyeBall"),
)
"""What is found in an eye."""
UPPER, LOWER = slice(0, COLUMNS), slice(COLUMNS, 2 * COLUMNS)
OUTER, INNER, IRIS, BALL = range(2 * COLUMNS, 2 * COLUMNS + 4)
_MEASURES = (*(f"{place}{axis}" for place in PLACES for axis in ("Along", "Up")), "eyeGazeOut", "eyeGazeUp")
NAMES = tuple(f"{name}{side}" for side in ("Right", "Left") for name in _MEASURES)
"""Of the numbers of a face: of each place toward the inner corner from the middle between the corners, and up; then the
gaze against the head, toward the outer side and up, in radians."""
WIDTH = 48
"""Distance of the corners in a patch, px; eyes are enlarged or reduced to it."""
PATCH = (96, 64)
"""Width and height of a patch, px."""


def corners_of(points: Float[ndarray, "N 2"]) -> Float[ndarray, "2 2 2"]:
    """Outer and inner corner of the right and of the left eye."""
    ibug = scheme_named("mediapipe478").ibug68
    return points[ibug[[[36, 39], [45, 42]]]]


def frame_of(corners: Float[ndarray, "2 2"], left: bool) -> tuple[ndarray, Float[ndarray, "2 2"]]:
    """Middle (2,) of an eye's corners, and its axes as columns: toward the inner corner, and up."""
    along = corners[1] - corners[0]
    up = np.array([along[1], -along[0]]) * (-1 if left else 1)
    return corners.mean(0), np.stack([along, up], axis=1)


def split_measures(measures: Float[ndarray, " M"]) -> tuple[Float[ndarray, "2 14 2"], Float[ndarray, "2 2"]]:
    """Places and gaze of the right and of the left eye, of measures in the order of `NAMES`."""
    both = measures.reshape(2, -1)
    return both[:, :-2].reshape(2, len(PLACES), 2), both[:, -2:]


def places_of(points: Float[ndarray, "N 2"], measures: Float[ndarray, " M"]) -> Float[ndarray, "2 14 2"]:
    """`PLACES` (right, left eye) in the picture, px, of measures as `eye_network.find_eyes` gives them."""
    out = []
    for side, corners in enumerate(corners_of(points)):
        middle, axes = frame_of(corners, left=side == 1)
        out.append(middle + split_measures(measures)[0][side] @ axes.T)
    return np.stack(out)


def network_path() -> Path:
    """Its file."""
    return assets.asset_dir() / "open_head" / "eyes.npz"


def patch_of(
    image: UInt8[ndarray, "H W 3"], middle: Float[ndarray, "2"], axes: Float[ndarray, "2 2"]
) -> UInt8[ndarray, "h w 3"]:
    """An eye upright, its inner corner to the right, up upward."""
    width, height = PATCH
    scale = axes / WIDTH
    # columns run along, rows down
    matrix = np.stack([scale[:, 0], -scale[:, 1]], axis=1)
    shift = middle - matrix @ np.array([width / 2, height / 2])
    # both count pixel centres on halves; OpenCV on whole numbers
    shift = shift + matrix @ np.array([0.5, 0.5]) - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    source, shrink = image, float(np.linalg.norm(matrix[:, 0]))
    if shrink > 1.2:
        # only what the patch needs is made smooth
        reach = int(np.ceil(1.5 * width * shrink))
        corner = np.maximum(np.floor(middle).astype(int) - reach, 0)
        source = image[corner[1] : corner[1] + 2 * reach, corner[0] : corner[0] + 2 * reach]
        if source.size == 0:
            source, corner = image, np.zeros(2, dtype=int)
        source, shift = cv2.GaussianBlur(source, (0, 0), 0.4 * shrink), shift - corner
    return np.asarray(
        cv2.warpAffine(
            source,
            np.concatenate([matrix, shift[:, None]], axis=1),
            (width, height),
            flags=flags,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )
