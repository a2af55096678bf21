"""What every 2D landmark detector offers; `registry` names them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from flame_fitting.landmarks.schemes import scheme_named


@dataclass(eq=False)
class FacesSeen:
    """What a detector sees in one picture, the most prominent face first."""

    landmarks: Float32[ndarray, "F N 3"]
    """As of `LandmarkDetector.detect`."""
    scores: Float32[ndarray, "F S"]
    """0..1, what the detector says of the expression, in the order of its `score_names`; S is 0 where it says none."""


class LandmarkDetector(ABC):
    """Finds one face in each picture."""

    name: str
    """Detector name, also the stem of its file in a capture."""
    scheme: str
    """Landmark order, one of `schemes.SCHEMES`."""
    version: str
    """Identifies the weights: results of equal versions on equal pictures are equal."""
    score_names: tuple[str, ...] = ()
    """What its expression scores are called, ARKit's names where they are those; empty where it has none."""

    @property
    def n_points(self) -> int:
        """Number of landmarks."""
        return scheme_named(self.scheme).n_points

    @abstractmethod
    def detect(self, images: UInt8[ndarray, "B H W 3"]) -> Float[ndarray, "B N 3"]:
        """Landmarks of the most prominent face of every sRGB picture.

        Returns:
            float32: x px, y px (continuous, origin at the top-left corner of the top-left pixel) and a confidence in
            0..1 that falls where the point's surface faces away; NaN in all three where no face was found.
        """

    def detect_quickly(self, images: UInt8[ndarray, "B H W 3"]) -> Float[ndarray, "B N 3"]:
        """As `detect`, less precise where a detector can be quicker that way."""
        return self.detect(images)

    def look(self, images: UInt8[ndarray, "B H W 3"], most_faces: int = 1) -> list[FacesSeen]:
        """Up to `most_faces` faces of every picture with their expression scores.

        The first face is that of `detect`. A detector that can tell only one apart, or has no scores, leaves this as
        it is.
        """
        nothing = np.zeros((1, len(self.score_names)), dtype=np.float32)
        out = []
        for points in self.detect(images):
            count = int(np.isfinite(points).all(-1).any())
            out.append(FacesSeen(points[None][:count].astype(np.float32), nothing[:count]))
        return out
