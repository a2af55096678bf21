"""What every 2D landmark detector offers; `registry` names them."""

from abc import ABC, abstractmethod

from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.landmarks.schemes import scheme_named


class LandmarkDetector(ABC):
    """Finds one face in each picture."""

    name: str
    """Detector name, also the stem of its file in a capture."""
    scheme: str
    """Landmark order, one of `schemes.SCHEMES`."""
    version: str
    """Identifies the weights: results of equal versions on equal pictures are equal."""

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
