"""Which texels a picture shows, and which of them something else than the head covers there: hair, clothes, glasses.

Where the capture knows the avatar's surface, a texel counts where the fitted head lies on it. Hair on the scalp is
wanted, however far it stands off; hair over an ear, a cheek or the forehead is not.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.capture.color_correction import srgb_to_linear
from flame_fitting.export.baking.shots import Shot
from flame_fitting.fit.tissues import NUMBER, tissue_of_faces
from flame_fitting.head.model import HeadModel

LEAST_COSINE = 0.2
_OWN = 0.0006
"""Metres that a texel may lie behind the drawn head, and the slope within a pixel on top."""

_COLLAR = 17
"""Coarse texels (twice the reach, and one) beside clothes at which the neck lies in their shadow."""


@dataclass(frozen=True)
class Gap:
    """How far the avatar's surface may lie behind and before the fitted one, along the normal (m)."""

    behind: float
    before: float


FACE = Gap(0.0030, 0.0022)
GAPS: dict[str, Gap] = {
    "ears": Gap(0.010, 0.007),
    "eyelids": Gap(0.005, 0.004),
    "neck": Gap(0.005, 0.0030),
    "boundary": Gap(0.005, 0.0030),
    "hair": Gap(0.015, 0.080),
    "lip_inside": Gap(0.002, 0.0015),
    "teeth": Gap(0.002, 0.002),
    "eyeballs": Gap(0.0022, 0.0010),
}
"""By region, later ones win; all else as `FACE`."""


def gaps_of_faces(head: HeadModel) -> Float[ndarray, "F 2"]:
    """The gap of every triangle: behind, before."""
    out = np.tile(np.array([FACE.behind, FACE.before]), (len(head.faces), 1))
    for name, gap in GAPS.items():
        out[head.face_mask(name).cpu().numpy()] = (gap.behind, gap.before)
    return out


def shown(
    shot: Shot, geometry: Float[ndarray, "n 5"], gaps: Float[ndarray, "n 2"], hair: Bool[ndarray, " n"]
) -> tuple[Float[ndarray, " n"], Bool[ndarray, " n"]]:
    """How well a picture shows each texel (pixels a metre; 0 where it does not), and whether something covers it.

    geometry: as `kernels.sample` fills it.
    """
    cosine, nearness, alpha, own, gap = geometry.T
    resolution = shot.focal * nearness * cosine
    slope = np.sqrt(np.maximum(1 / np.maximum(cosine, 1e-3) ** 2 - 1, 0)) / np.maximum(shot.focal * nearness, 1e-6)
    visible = (cosine > LEAST_COSINE) & (alpha > 0.99) & (own < _OWN + slope)
    covered = np.zeros(len(cosine), dtype=bool)
    if shot.avatar.size:
        covered = visible & (gap > gaps[:, 1])
        visible &= (gap > -gaps[:, 0]) & (gap < gaps[:, 1])
        # hair far from the scalp is seen at the right place from straight above only
        resolution = np.where(hair, resolution / (1 + (np.maximum(gap, 0) / 0.03) ** 2), resolution)
    return np.where(visible, resolution, 0.0), covered


def other_colors(
    head: HeadModel,
    face: Int[ndarray, "C C"],
    color: Float[ndarray, "C C 3"],
    weight: Float[ndarray, "C C"],
    covered: Bool[ndarray, "C C"],
) -> Bool[ndarray, "C C"]:
    """Texels of ears, neck and face that clothes or hair lie on so closely that only their colour tells.

    They are unlike the skin of the face in their chroma, and hang together with what is `covered` or with the neck's
    lower rim. Of the face, what hangs together with hair that lies over it.
    """
    none = np.zeros(face.shape, dtype=bool)
    inside, at = face >= 0, np.maximum(face, 0)
    seen = inside & (weight > 0)
    names = ("face", "lips", "eyes", "eye_region", "nose", "ears", "neck", "boundary")
    masks = {name: head.face_mask(name).cpu().numpy() for name in names}
    tissue = tissue_of_faces(head)
    plain = masks["face"] & ~masks["lips"] & ~masks["eyes"] & (tissue == NUMBER["skin"])
    told = seen & plain[at] & ~cv2.dilate(covered.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    if told.sum() < 100:
        return none
    tested = seen & ((masks["ears"] | masks["neck"] | masks["boundary"]) & (tissue == NUMBER["skin"]))[at]
    chroma = chroma_of(color, seen)
    middle = np.median(chroma[told], axis=0)
    spread = 1.5 * np.median(np.abs(chroma[told] - middle), axis=0)
    away = np.sqrt((((chroma - middle) / np.maximum(spread, 0.08)) ** 2).sum(-1))
    unlike, clearly = tested & (away > 4.0), tested & (away > 6.0)
    rim = inside & masks["boundary"][at]
    # next to hair that lies over the face, what else is hair there; a hairline or a beard alone is the person's own
    spared = masks["eye_region"] | masks["nose"] | masks["lips"]
    face_tested = seen & (plain & ~spared)[at]
    over_face = covered & (masks["face"] & (tissue == NUMBER["skin"]))[at]
    out = _reached(unlike, clearly, covered | rim)
    out |= _reached(face_tested & (away > 4.0), face_tested & (away > 6.0), over_face)
    # and the shadow along its edge
    edge = cv2.dilate(out.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    out |= edge & (tested | (face_tested & (away > 1.5)))
    neck = tested & ~masks["ears"][at]
    return out | (neck & (cv2.dilate((out | covered).astype(np.uint8), np.ones((_COLLAR, _COLLAR), np.uint8)) > 0))


def _reached(
    mask: Bool[ndarray, "C C"], strong: Bool[ndarray, "C C"], start: Bool[ndarray, "C C"]
) -> Bool[ndarray, "C C"]:
    """Connected parts of a mask that touch `start` and have something of `strong`."""
    near = cv2.dilate(start.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    kept = np.zeros((2, count), dtype=bool)
    kept[0, np.unique(labels[mask & near])] = True
    kept[1, np.unique(labels[mask & strong])] = True
    both: ndarray = kept[0] & kept[1]
    return both[labels] & mask


def chroma_of(color: Float[ndarray, "C C 3"], seen: Bool[ndarray, "C C"]) -> Float[ndarray, "C C 2"]:
    """Logarithms of red and blue over green (linear), blurred over what is seen."""
    linear = srgb_to_linear(color) * seen[..., None]
    share = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), 2.0)
    soft = cv2.GaussianBlur(linear.astype(np.float32), (0, 0), 2.0) / np.maximum(share, 1e-3)[..., None] + 0.004
    return np.log(soft[..., [0, 2]] / soft[..., 1:2])
