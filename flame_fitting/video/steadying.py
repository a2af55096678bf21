"""Steadies alpha maps over time: the median of what neighbouring frames say of the same point of the scene."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

RADIUS = 2
"""Frames before and after that have a say."""
_FLOW_SIDE = 320
"""Longest side of the pictures that motion is estimated in, px."""
_SAME_COLOR = 14.0
"""Mean difference over the channels up to which a point is taken for the same, in 1/255."""
_LEAST_SHARED = 0.5
"""Share of the points up to which a neighbour is taken for another shot, where some colours agree by chance."""


@dataclass
class Moment:
    """One frame on its way to a steady alpha map."""

    tag: Any
    """What came with it."""
    picture: UInt8[ndarray, "h w 3"]
    """sRGB."""
    alpha: Float32[ndarray, "h w"]
    """0..1, of this frame alone."""

    @cached_property
    def gray(self) -> UInt8[ndarray, "h2 w2"]:
        """Brightness at the size in which motion is estimated."""
        gray = cv2.cvtColor(self.picture, cv2.COLOR_RGB2GRAY)
        factor = min(1.0, _FLOW_SIDE / max(gray.shape))
        size = max(16, round(gray.shape[1] * factor)), max(16, round(gray.shape[0] * factor))
        return gray if size == gray.shape[::-1] else cv2.resize(gray, size, interpolation=cv2.INTER_AREA)


def steadied(moment: Moment, near: list[Moment]) -> Float32[ndarray, "h w"]:
    """Median over time of alpha, for points that neighbours show too.

    Neighbours' maps are carried along the motion (Kroeger et al., "Fast Optical Flow using Dense Inverse Search",
    2016). Where the carried picture has another colour the point was hidden or the shot is another one, and that
    neighbour has no say.
    """
    alpha = moment.alpha
    near = [other for other in near if other.alpha.shape == alpha.shape]
    # only where somebody is unsure or they disagree
    stack = [alpha, *(other.alpha for other in near)]
    spread = np.max(stack, axis=0) - np.min(stack, axis=0)
    rows, columns = np.nonzero((spread > 0.004) | ((alpha > 0.0) & (alpha < 1.0)))
    if not near or len(rows) == 0:
        return alpha
    own = alpha[rows, columns]
    color = moment.picture[rows, columns].astype(np.float32)
    votes = [own]
    for other in near:
        flow = motion(moment.gray, other.gray, alpha.shape)
        x = columns.astype(np.float32) + flow[rows, columns, 0]
        y = rows.astype(np.float32) + flow[rows, columns, 1]
        there = _at(other.picture, x, y).astype(np.float32)
        same = np.abs(there - color).mean(axis=1) < _SAME_COLOR
        if same.mean() < _LEAST_SHARED:
            continue
        votes.append(np.where(same, _at(other.alpha, x, y)[:, 0], own))
    out = alpha.copy()
    out[rows, columns] = np.median(np.stack(votes), axis=0)
    return out


def motion(
    here: UInt8[ndarray, "h2 w2"], there: UInt8[ndarray, "h2 w2"], shape: tuple[int, ...]
) -> Float32[ndarray, "h w 2"]:
    """How far points of the one picture have moved in the other: x, y in px of a picture of `shape`."""
    start: Any = None  # which OpenCV's type stubs do not have
    estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc
    flow = estimate(np.ascontiguousarray(here), np.ascontiguousarray(there), start)
    scale = np.array([shape[1] / here.shape[1], shape[0] / here.shape[0]], np.float32)
    size = (int(shape[1]), int(shape[0]))
    return cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR) * scale


def _at(values: ndarray, x: ndarray, y: ndarray) -> ndarray:
    """(N, channels) of an array at continuous column and row indices, bilinear, borders repeated."""
    count = len(x)
    width = 4096  # OpenCV's maps may have no side longer than 32767
    rows = -(-count // width)
    maps = [np.pad(v, (0, rows * width - count)).reshape(rows, width) for v in (x, y)]
    out = cv2.remap(values, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out.reshape(rows * width, -1)[:count]
