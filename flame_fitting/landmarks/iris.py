"""Where an iris is in the picture itself: MediaPipe's iris follows an eye that looks up or down a quarter of the way.

What the lids leave open is split into a disc and the rest, so that the two differ most in brightness (Otsu's criterion,
1979, over discs instead of thresholds). Places are told along the line between the eye's corners and across it, in
lengths of that line, so that they do not change with the picture's size.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.landmarks.schemes import scheme_named

NAMES = ("irisAlongRight", "irisUpRight", "irisAlongLeft", "irisUpLeft")
"""Right eye, then the left one: toward the inner corner from the middle between the corners, and up."""
_WIDTH = 72
"""Distance of the corners in the patch that is looked at, px; eyes are enlarged or reduced to it."""
_SIZE = (144, 96)
_RADII = (0.17, 0.195, 0.22, 0.25)
"""Of an iris over the distance of the corners, seen from the front; beyond what the head's turn makes of it."""
_NEAR = (0.08, 0.17)
"""How far from the network's iris the centre is looked for, along the eye and across it."""
_LEAST_OPEN = 0.10
"""Height over width of what the lids leave open, below which no iris is looked for."""


def corners_of(points: Float[ndarray, "N 2"]) -> Float[ndarray, "2 2 2"]:
    """Outer and inner corner of the right and of the left eye."""
    ibug = scheme_named("mediapipe478").ibug68
    return points[ibug[[[36, 39], [45, 42]]]]


def frame_of(corners: Float[ndarray, "2 2"], left: bool) -> tuple[ndarray, Float[ndarray, "2 2"]]:
    """Middle (2,) of an eye's corners, and its axes as columns: toward the inner corner, and up."""
    along = corners[1] - corners[0]
    up = np.array([along[1], -along[0]]) * (-1 if left else 1)
    return corners.mean(0), np.stack([along, up], axis=1)


def place_of(points: Float[ndarray, "N 2"], measures: Float[ndarray, "4"]) -> Float[ndarray, "2 2"]:
    """Centres (right, left) in the picture, px, of measures as `find_irises` gives them."""
    out = []
    for side, corners in enumerate(corners_of(points)):
        middle, axes = frame_of(corners, left=side == 1)
        out.append(middle + axes @ measures[2 * side : 2 * side + 2])
    return np.stack(out)


def find_irises(image: UInt8[ndarray, "H W 3"], points: Float[ndarray, "478 2"]) -> Float[ndarray, "4"]:
    """The `NAMES` of a face; where an eye is shut, what its iris landmark says."""
    groups = scheme_named("mediapipe478").groups
    out = []
    for side, corners in enumerate(corners_of(points)):
        name = ("right", "left")[side]
        middle, axes = frame_of(corners, left=side == 1)
        if np.linalg.norm(axes[:, 0]) < 3:
            out.append(np.zeros(2))
            continue
        ring = (points[groups[f"{name}_eye"]] - middle) @ np.linalg.inv(axes).T
        guess = np.linalg.inv(axes) @ (points[groups[f"{name}_iris"][0]] - middle)
        out.append(_find(_patch(image, middle, axes), ring, guess))
    return np.concatenate(out)


def _patch(image: ndarray, middle: ndarray, axes: ndarray) -> Float[ndarray, "h w"]:
    """Brightness of the eye, inner corner to the right, up upward."""
    width, height = _SIZE
    scale = axes / _WIDTH
    # columns run along, rows down
    matrix = np.stack([scale[:, 0], -scale[:, 1]], axis=1)
    shift = middle - matrix @ np.array([width / 2, height / 2])
    # both count pixel centres on halves; OpenCV on whole numbers
    shift = shift + matrix @ np.array([0.5, 0.5]) - 0.5
    source = image
    if (shrink := float(np.linalg.norm(matrix[:, 0]))) > 1.5:
        source = cv2.GaussianBlur(image, (0, 0), 0.4 * shrink)
    patch = cv2.warpAffine(
        source,
        np.concatenate([matrix, shift[:, None]], axis=1),
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(patch.astype(np.float32).mean(-1))


def _find(patch: ndarray, ring: Float[ndarray, "16 2"], guess: Float[ndarray, "2"]) -> Float[ndarray, "2"]:
    width, height = _SIZE
    outline = ring * (_WIDTH, -_WIDTH) + (width / 2, height / 2)
    if np.ptp(ring[:, 1]) < _LEAST_OPEN:
        return guess
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(8 * (outline - 0.5)).astype(np.int32)], 1, shift=3)
    inside = mask.astype(np.float32)
    total = float(inside.sum())
    if total < 40:
        return guess
    # lids throw shadows, and corners are red: brightness is judged within what is usual in this eye
    low, high = np.percentile(patch[mask > 0], [3, 97])
    level = np.clip((patch - low) / max(float(high - low), 1e-3), 0, 1) * inside
    best, place, allowed = 0.0, guess, _allowed(outline, guess)
    for radius in _RADII:
        disc = _disc(radius * _WIDTH)
        count = cv2.filter2D(inside, -1, disc, borderType=cv2.BORDER_CONSTANT)
        dark = cv2.filter2D(level, -1, disc, borderType=cv2.BORDER_CONSTANT)
        rest = np.maximum(total - count, 1e-3)
        apart = (level.sum() - dark) / rest - dark / np.maximum(count, 1e-3)
        score = np.where((apart > 0) & (count > 0.25 * disc.sum()), count * rest / total**2 * apart**2, 0.0)
        score[~allowed] = 0
        row, column = np.unravel_index(int(score.argmax()), score.shape)
        if score[row, column] > best:
            best = float(score[row, column])
            x, y = column + _peak(score[row], int(column)), row + _peak(score[:, column], int(row))
            place = np.array([x + 0.5 - width / 2, height / 2 - y - 0.5]) / _WIDTH
    return place


def _allowed(outline: Float[ndarray, "16 2"], guess: Float[ndarray, "2"]) -> ndarray:
    """Pixels that may be the centre: not far outside of the opening, and near the network's, which is good along the
    eye and lags behind across it."""
    width, height = _SIZE
    x, y = np.arange(width)[None] + 0.5, np.arange(height)[:, None] + 0.5
    (left, top), (right, bottom) = outline.min(0), outline.max(0)
    inside = (x > left + 4) & (x < right - 4) & (y > top - 8) & (y < bottom + 8)
    aside, above = x - width / 2 - _WIDTH * guess[0], height / 2 - y - _WIDTH * guess[1]
    return np.asarray(inside & (np.abs(aside) < _NEAR[0] * _WIDTH) & (np.abs(above) < _NEAR[1] * _WIDTH))


def _disc(radius: float) -> ndarray:
    """With a soft edge of one pixel."""
    reach = int(np.ceil(radius)) + 1
    grid = np.arange(-reach, reach + 1)
    return np.clip(radius + 0.5 - np.hypot(grid[:, None], grid[None]), 0, 1).astype(np.float32)


def _peak(values: ndarray, at: int) -> float:
    """Where a parabola through three values has its top, from the middle one."""
    if not 0 < at < len(values) - 1 or min(values[at - 1], values[at + 1]) <= 0:
        return 0.0
    before, here, after = (float(v) for v in values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
