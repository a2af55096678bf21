"""Corners of a picture followed through a video (Kanade, Lucas and Tomasi), by OpenCV; no head model is known here.

From each of some anchors (pictures of their own corners) points are followed from picture to picture in both
directions. A step counts where following it back ends where it began, and is brought nearer to what the anchor itself
shows where that is near, so that errors do not add up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

_WINDOW = 21
"""px: what is compared around a corner."""
_LEVELS = 3
"""Halvings of the pictures, for steps that are long."""
_STEPS = (30, 0.003)
"""Iterations at most, and the step (px) that ends them."""
_QUALITY = 0.002
"""Least eigenvalue of a corner, over the best one's (Shi and Tomasi 1994)."""
_APART = 9
"""px between corners of an anchor, at least."""
_BACK = 1.5
"""px: followed back, a point ends so near where it began."""
_NEAR = 1.5
"""px: what the anchor shows is believed so near to what the picture before says."""


@dataclass(frozen=True, eq=False)
class FeatureTracks:
    """N corners of one anchor."""

    anchor: int
    """Row of the picture that they were found in."""
    start: Float[ndarray, "N 2"]
    """px in it; pixel centres lie at half-integers."""
    place: Float[ndarray, "T N 2"]
    """px in every picture, NaN from where a point is lost on."""


def follow(
    pictures: UInt8[ndarray, "T H W"], inside: Mapping[int, Bool[ndarray, "H W"]], count: int
) -> list[FeatureTracks]:
    """Up to `count` corners of each anchor; `inside` says by anchor which of its pixels may be corners.

    Pictures are grey, in their order in time. Anchors without a corner are left out.
    """
    out = []
    for anchor, mask in inside.items():
        start = _corners(pictures[anchor], mask, count)
        if not len(start):
            continue
        place = np.full((len(pictures), len(start), 2), np.nan)
        place[anchor] = start
        for way in (1, -1):
            _follow_one_way(pictures, anchor, way, start, place)
        # OpenCV counts from the middle of the first pixel
        out.append(FeatureTracks(anchor, start.astype(np.float64) + 0.5, place + 0.5))
    return out


def _corners(picture: UInt8[ndarray, "H W"], mask: Bool[ndarray, "H W"], count: int) -> Float[ndarray, "N 2"]:
    import cv2

    found = cv2.goodFeaturesToTrack(picture, count, _QUALITY, _APART, mask=mask.astype(np.uint8) * 255, blockSize=5)
    return np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2).astype(np.float32)


def _follow_one_way(
    pictures: UInt8[ndarray, "T H W"],
    anchor: int,
    way: int,
    start: Float[ndarray, "N 2"],
    place: Float[ndarray, "T N 2"],
) -> None:
    """Writes the places before or after the anchor into `place`."""
    now, here = start.copy(), np.ones(len(start), dtype=bool)
    for row in range(anchor + way, len(pictures) if way > 0 else -1, way):
        before, after = pictures[row - way], pictures[row]
        there, found = _flow(before, after, now)
        back, returned = _flow(after, before, there)
        here &= found & returned & (np.linalg.norm(back - now, axis=1) < _BACK)
        if not here.any():
            return
        steady, seen = _flow(pictures[anchor], after, start, there)
        near = seen & (np.linalg.norm(steady - there, axis=1) < _NEAR)
        there = np.where(near[:, None], steady, there)
        now = np.where(here[:, None], there, now)
        place[row, here] = now[here]


def _flow(
    one: UInt8[ndarray, "H W"],
    other: UInt8[ndarray, "H W"],
    points: Float[ndarray, "N 2"],
    begin: Float[ndarray, "N 2"] | None = None,
) -> tuple[Float[ndarray, "N 2"], Bool[ndarray, " N"]]:
    """Where points of one picture are in another, and whether they were found; looked for near `begin` if given."""
    import cv2

    there, found, _ = cv2.calcOpticalFlowPyrLK(
        one,
        other,
        points,
        (points if begin is None else begin).copy(),
        winSize=(_WINDOW, _WINDOW),
        maxLevel=_LEVELS if begin is None else 0,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, *_STEPS),
        flags=0 if begin is None else cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    there = np.asarray(there)
    return there, np.asarray(found).reshape(-1) > 0
