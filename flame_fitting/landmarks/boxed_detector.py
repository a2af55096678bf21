"""Detectors that are shown a face in a box: what they have in common."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.faces import Face, FaceFinder, visibility
from flame_fitting.landmarks.schemes import scheme_named


class BoxedDetector(LandmarkDetector):
    """Finds faces by MediaPipe, else by a finder of the detector's own, and points in the faces' boxes."""

    def __init__(self, faces: FaceFinder | None = None) -> None:
        self.faces = faces or FaceFinder()

    def detect(self, images: UInt8[ndarray, "B H W 3"]) -> Float[ndarray, "B N 3"]:
        """See `LandmarkDetector.detect`."""
        return self._detect(images, quick=False)

    def detect_quickly(self, images: UInt8[ndarray, "B H W 3"]) -> Float[ndarray, "B N 3"]:
        """See `LandmarkDetector.detect_quickly`."""
        return self._detect(images, quick=True)

    @abstractmethod
    def points_in(
        self, images: Sequence[UInt8[ndarray, "H W 3"]], faces: Sequence[Face], quick: bool
    ) -> Float[ndarray, "B N 3"]:
        """The points of one face in each picture: x px, y px, and how sure they are, 0..1, as if all were in sight; NaN
        where the detector finds none after all."""

    def face_by_itself(self, image: UInt8[ndarray, "H W 3"]) -> Face | None:
        """A face that the face finder has missed, such as a profile; None where the detector has no finder."""
        return None

    def _detect(self, images: ndarray, quick: bool) -> ndarray:
        out = np.full((len(images), self.n_points, 3), np.nan, dtype=np.float32)
        faces = [
            face or self.face_by_itself(image) for image, face in zip(images, self.faces.find(images), strict=True)
        ]
        known = {row: face for row, face in enumerate(faces) if face is not None and face.size.min() >= 2}
        if not known:
            return out
        found = self.points_in([np.ascontiguousarray(images[row]) for row in known], list(known.values()), quick)
        scheme = scheme_named(self.scheme)
        for (row, face), points in zip(known.items(), found, strict=True):
            if not np.isfinite(points).all():
                continue
            out[row] = points
            out[row, :, 2] *= visibility(face, points[:, :2].astype(np.float64), scheme)
        return out
