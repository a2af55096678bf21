"""What pictures show of eyeballs, where it can be told from lids and lashes that lie over them."""

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.head.model import HeadModel
from flame_fitting.render.texturing import TexelMap

_IRIS_SEEN = 0.5
"""Share of an iris that must be seen for what is seen of the eye to be used."""
_ALIKE = 0.4
"""Correlation in brightness with the painted eye, at least: lids that are seen on an eyeball, or an iris elsewhere,
have none."""
_RIM = 0.2, 0.5
"""Parts of the iris's radius from the border of what is seen: up to the first lids are likely, from the second all is
the eye's."""
_OFF = 0.2
"""Brighter than the painted iris by so much (sRGB) is the white of an eye, where it goes on outside of the iris."""


def face_of(head: HeadModel, texels: TexelMap, *regions: str) -> Bool[ndarray, "R R"]:
    """Texels of regions' triangles."""
    face = texels.face.cpu().numpy()
    return np.asarray(head.face_mask(*regions).cpu().numpy()[np.maximum(face, 0)] & (face >= 0))


def eyes_seen(
    head: HeadModel,
    texels: TexelMap,
    color: Float[ndarray, "R R 3"],
    weight: Float[ndarray, "R R"],
    filler: Float[ndarray, "R R 3"],
) -> Float[ndarray, "R R"]:
    """How far the seen `color` counts on eyeballs, 0..1: both eyes as they are seen, or neither.

    `weight` says what is seen, `filler` is the painted texture in the person's colours.
    """
    out = np.zeros_like(weight)
    irises = face_of(head, texels, "irises")
    for name in ("left_eyeball", "right_eyeball"):
        eye = face_of(head, texels, name)
        seen, iris = eye & (weight > 0.5), eye & irises
        if not iris.any() or (seen & iris).sum() < _IRIS_SEEN * iris.sum():
            return np.zeros_like(weight)
        radius = np.sqrt(iris.sum() / np.pi)
        inward = cv2.distanceTransform(seen.astype(np.uint8), cv2.DIST_L2, 5) / radius
        part = np.clip((inward - _RIM[0]) / (_RIM[1] - _RIM[0]), 0, 1) * seen
        sure = part > 0
        shown, painted = color[sure].mean(-1), filler[sure].mean(-1)
        if min(np.ptp(shown), np.ptp(painted)) < 1e-3 or np.corrcoef(shown, painted)[0, 1] < _ALIKE:
            return np.zeros_like(weight)
        # the white beside an iris that looks elsewhere than the painted one
        bright = seen & ((color - filler).mean(-1) > _OFF)
        _, patch = cv2.connectedComponents((bright | (seen & ~iris)).astype(np.uint8))
        white = np.isin(patch, np.unique(patch[seen & ~iris])) & bright & iris
        edge = max(int(0.3 * radius), 1)
        white = cv2.dilate(white.astype(np.float32), np.ones((edge, edge), np.uint8))
        part *= 1 - cv2.blur(white, (edge, edge))
        out += part.astype(out.dtype) * weight
    return out
