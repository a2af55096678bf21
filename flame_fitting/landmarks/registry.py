"""Which landmark detectors there are. A new one is a file with a `LandmarkDetector` and one line in `_MAKERS`."""

from collections.abc import Callable
from pathlib import Path

from flame_fitting.errors import InputError
from flame_fitting.landmarks.detector import LandmarkDetector

Maker = Callable[[Path | str | None, Path | str | None], LandmarkDetector]
"""Makes a detector with the weights in a file (None: those that come with this program); its native libraries print
into another file (None: as they like)."""


def _mediapipe(model_path: Path | str | None, log_file: Path | str | None) -> LandmarkDetector:
    from flame_fitting.landmarks.mediapipe_detector import MediaPipeDetector

    return MediaPipeDetector(model_path, log_file=log_file)


_MAKERS: dict[str, Maker] = {"mediapipe": _mediapipe}
DETECTORS = tuple(_MAKERS)
"""Names of the detectors; the first one is the default."""


def make_detector(
    name: str = DETECTORS[0], model_path: Path | str | None = None, log_file: Path | str | None = None
) -> LandmarkDetector:
    """The detector called `name`, with weights from `model_path` or those that come with this program.

    `log_file` receives what native libraries would print to the terminal. Raises InputError for an unknown name.
    """
    if name not in _MAKERS:
        raise InputError(f"{name}: no such landmark detector. Use one of: {', '.join(DETECTORS)}.")
    return _MAKERS[name](model_path, log_file)
