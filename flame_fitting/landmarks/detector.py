"""What every 2D landmark detector offers, and how one is made by name."""

from abc import ABC, abstractmethod
from pathlib import Path

from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.errors import InputError

DETECTORS = ("mediapipe",)


class LandmarkDetector(ABC):
    """Finds one face in each picture."""

    name: str
    """Detector name, also the stem of its file in a capture."""
    scheme: str
    """Landmark order, e.g. `mediapipe478` or `ibug68`."""
    n_points: int
    """Number of landmarks."""
    version: str
    """Identifies the weights: results of equal versions on equal pictures are equal."""

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


def make_detector(
    name: str = "mediapipe", model_path: Path | str | None = None, log_file: Path | str | None = None
) -> LandmarkDetector:
    """The detector called `name`, with weights from `model_path` or those that come with this program.

    `log_file` receives what native libraries would print to the terminal.
    """
    if name == "mediapipe":
        from flame_fitting.landmarks.mediapipe_detector import MediaPipeDetector

        return MediaPipeDetector(model_path, log_file=log_file)
    raise InputError(f"{name}: no such landmark detector. Use one of: {', '.join(DETECTORS)}.")
