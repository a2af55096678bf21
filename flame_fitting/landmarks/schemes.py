"""Orders of landmarks, in one table: which points, what they are called, where their mirror twins are.

A new order is one entry of `SCHEMES`. iBUG-68 is what all of them have in common: every order says which of its points
are iBUG's, and code that wants an eye corner asks for that.

iBUG-68 (Sagonas et al., "300 Faces in-the-Wild", 2013), left and right as seen in the picture: 0..16 jaw line, 17..26
brows, 27..30 bridge of the nose, 31..35 its lower edge, 36..47 eyes, 48..59 outer and 60..67 inner lip contour; it
starts on the subject's right. iBUG-70 has the pupils behind them. The jaw line of a turned head is a contour, not a
fixed set of points: only the 51 inner points are corresponding surface points.

WFLW-98 (Wu et al., "Look at Boundary", 2018): 0..32 jaw line, 33..50 brows, all around, 51..59 nose, 60..75 eyes,
76..87 outer and 88..95 inner lip contour, 96 and 97 the pupils. Its iBUG points are those that many programs take; jaw
line, brows and lids lie close to iBUG's, not on them.

MediaPipe's 478: points 0..467 lie on the face, 468..472 on the subject's right iris, 473..477 on the left one (centre
first). Its iBUG points were chosen by anatomical meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

INNER_51 = np.arange(17, 68)
"""iBUG points that are surface points from any view (all but the jaw line)."""
EYE_CORNERS = (36, 45)
"""iBUG points: the outer eye corners, right and left."""
LIP_CORNERS = (48, 54, 60, 64)
"""iBUG points: right and left corner of the outer contour, then of the inner one."""


@dataclass(frozen=True, eq=False)
class Scheme:
    """One order of landmarks; left and right are the subject's."""

    name: str
    n_points: int
    groups: Mapping[str, Int[ndarray, " _"]]
    """Indices by the name of the part. `outer_lips` and `inner_lips` run over the upper lip from the right corner to
    the left one, then back over the lower lip."""
    ibug68: Int[ndarray, " 68"]
    """Index of each iBUG point."""
    mirror: Int[ndarray, " N"]
    """The landmark that point i becomes in a mirrored picture; its own inverse."""
    contour: str
    """The group along the outline, whose points slide over the surface as the head turns."""
    pupils: tuple[int, int] | None = None
    """Indices of the pupils, right and left; None where there are none."""
    of_detectors: bool = True
    """Whether detections may have this order; else only an embedding has it."""

    @property
    def inner(self) -> Int[ndarray, " 51"]:
        """Index of each inner iBUG point."""
        return self.ibug68[INNER_51]

    @property
    def rims(self) -> Int[ndarray, " _"]:
        """The points where a surface ends before another: lids before the eyeball, lips before the teeth."""
        return np.concatenate([self.groups["eyes"], self.groups["inner_lips"]])

    @property
    def lips(self) -> tuple[Int[ndarray, " _"], Int[ndarray, " _"]]:
        """The points on the upper and on the lower lip, without the corners."""
        corners = self.ibug68[list(LIP_CORNERS)]
        halves = [np.split(self.groups[name], [len(self.groups[name]) // 2]) for name in ("outer_lips", "inner_lips")]
        upper, lower = (np.concatenate([ring[k] for ring in halves]) for k in (0, 1))
        return upper[~np.isin(upper, corners)], lower[~np.isin(lower, corners)]


_IBUG_GROUPS: dict[str, ndarray] = {
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
FACE_PARTS: Mapping[str, Int[ndarray, " _"]] = {
    name: _IBUG_GROUPS[name] - INNER_51[0] for name in ("brows", "nose", "eyes", "outer_lips", "inner_lips")
}
"""Parts of the face that hold every inner point once: positions in `INNER_51`, and so in `Scheme.inner`."""
_IBUG_MIRROR = np.r_[
    16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, [47, 46], 39:35:-1, [41, 40], 54:47:-1, 59:54:-1, 64:59:-1, 67:64:-1
]

_IBUG68_OF_WFLW = np.array(
    [
        *range(0, 33, 2),  # jaw line
        *(*range(33, 38), *range(42, 47)),  # upper rims of the brows
        *range(51, 60),  # nose
        *(60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75),  # eyes
        *range(76, 96),  # lips
    ]
)
_WFLW_GROUPS: dict[str, ndarray] = {
    "jawline": np.arange(0, 33),
    "right_brow": np.arange(33, 42),
    "left_brow": np.arange(42, 51),
    "brows": np.arange(33, 51),
    "nose": np.arange(51, 60),
    "right_eye": np.arange(60, 68),
    "left_eye": np.arange(68, 76),
    "eyes": np.arange(60, 76),
    "outer_lips": np.arange(76, 88),
    "inner_lips": np.arange(88, 96),
    "lips": np.arange(76, 96),
    "right_iris": np.array([96]),
    "left_iris": np.array([97]),
    "irises": np.array([96, 97]),
}
_WFLW_MIRROR = np.r_[
    np.r_[32:-1:-1, 46:41:-1, 50:46:-1, 37:32:-1, 41:37:-1, 51:55, 59:54:-1],
    np.r_[72:67:-1, 75:72:-1, 64:59:-1, 67:64:-1],
    np.r_[82:75:-1, 87:82:-1, 92:87:-1, 95:92:-1, [97, 96]],
]

_IBUG68_OF_MEDIAPIPE = np.array(
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
_RIGHT_BROW = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
_RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
_NOSE_MIDLINE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2)
_RIGHT_NOSE = (122, 196, 3, 51, 45, 44, 125, 141, 97, 98, 64, 48, 49, 129, 131, 198, 236, 134, 220, 115)
_OUTER_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
_INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
_RIGHT_IRIS, _LEFT_IRIS = np.arange(468, 473), np.arange(473, 478)
# Around the face from the top of the forehead, first down the subject's left side.
_OUTLINE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_MIDLINE = (
    0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 94, 151, 152, 164, 168, 175, 195, 197, 199, 200,
)  # fmt: skip
# Twins on the left of the points 0..247 that are not on the mid-line (all on the right), in ascending order. Found by
# matching detections on renders of heads with those on the same renders mirrored.
_TWINS_OF_RIGHT = (
    248, 249, 250, 251, 252, 253, 254, 255, 256, 257, 258, 259, 260, 261, 262, 263, 264, 265, 266, 267, 268,
    269, 270, 271, 272, 273, 274, 275, 276, 277, 278, 279, 280, 281, 282, 283, 284, 285, 286, 287, 288, 289,
    290, 291, 292, 293, 294, 295, 296, 297, 298, 299, 300, 301, 302, 303, 304, 305, 306, 307, 308, 309, 310,
    311, 312, 313, 314, 315, 316, 317, 318, 319, 320, 321, 322, 323, 324, 325, 326, 327, 328, 329, 330, 331,
    332, 333, 334, 335, 336, 337, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 348, 349, 350, 351, 352,
    353, 354, 355, 356, 357, 358, 359, 360, 361, 362, 363, 364, 365, 366, 367, 368, 369, 370, 371, 372, 373,
    374, 375, 376, 377, 378, 379, 380, 381, 382, 383, 384, 385, 386, 387, 388, 389, 390, 391, 392, 393, 394,
    395, 396, 397, 398, 399, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415,
    416, 417, 418, 419, 420, 421, 422, 423, 424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 435, 436,
    437, 438, 439, 440, 441, 442, 443, 444, 445, 446, 447, 448, 449, 450, 451, 452, 453, 454, 455, 456, 457,
    458, 459, 460, 461, 462, 463, 464, 465, 466, 467,
)  # fmt: skip


def _mediapipe_mirror() -> ndarray:
    out = np.arange(478)
    right = np.setdiff1d(np.arange(len(_TWINS_OF_RIGHT) + len(_MIDLINE)), _MIDLINE)
    out[right] = _TWINS_OF_RIGHT
    out[list(_TWINS_OF_RIGHT)] = right
    # Irises: centre, then four rim points; a mirror swaps the two sideways ones.
    out[468:478] = (473, 476, 475, 474, 477, 468, 471, 470, 469, 472)
    return out


def _mediapipe_groups(mirror: ndarray) -> dict[str, ndarray]:
    sides = {"brow": np.array(_RIGHT_BROW), "eye": np.array(_RIGHT_EYE), "nose": np.array(_RIGHT_NOSE)}
    both = {name: np.concatenate([right, mirror[right]]) for name, right in sides.items()}
    return {
        "right_brow": sides["brow"],
        "left_brow": mirror[sides["brow"]],
        "brows": both["brow"],
        "nose": np.concatenate([_NOSE_MIDLINE, both["nose"]]),
        "right_eye": sides["eye"],
        "left_eye": mirror[sides["eye"]],
        "eyes": both["eye"],
        "outer_lips": np.array(_OUTER_LIPS),
        "inner_lips": np.array(_INNER_LIPS),
        "lips": np.concatenate([_OUTER_LIPS, _INNER_LIPS]),
        "outline": np.array(_OUTLINE),
        "right_iris": _RIGHT_IRIS,
        "left_iris": _LEFT_IRIS,
        "irises": np.concatenate([_RIGHT_IRIS, _LEFT_IRIS]),
    }


def _mediapipe() -> Scheme:
    mirror = _mediapipe_mirror()
    pupils = (int(_RIGHT_IRIS[0]), int(_LEFT_IRIS[0]))
    return Scheme("mediapipe478", 478, _mediapipe_groups(mirror), _IBUG68_OF_MEDIAPIPE, mirror, "outline", pupils)


_ALL = (
    _mediapipe(),
    Scheme("ibug68", 68, _IBUG_GROUPS, np.arange(68), _IBUG_MIRROR, "jawline"),
    Scheme("wflw98", 98, _WFLW_GROUPS, _IBUG68_OF_WFLW, _WFLW_MIRROR, "jawline", (96, 97)),
    # FLAME's landmark_embedding_with_eyes.npy
    Scheme("ibug70", 70, _IBUG_GROUPS, np.arange(68), np.r_[_IBUG_MIRROR, 69, 68], "jawline", (68, 69), False),
)
SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in _ALL}
"""All orders by name."""


def scheme_named(name: str) -> Scheme:
    """The order of this name; ValueError where there is none."""
    if name not in SCHEMES:
        raise ValueError(f"{name} is no landmark scheme; known are {', '.join(SCHEMES)}")
    return SCHEMES[name]


def inner_weights() -> Float[ndarray, "51"]:
    """Trust in each inner iBUG point for a similarity: 2 for nose, eye and mouth corners, 0.5 for brows, else 1."""
    weights = np.ones(68)
    weights[_IBUG_GROUPS["brows"]] = 0.5
    weights[_IBUG_GROUPS["nose"]] = 2.0
    weights[[36, 39, 42, 45, 48, 54]] = 2.0
    return weights[INNER_51]
