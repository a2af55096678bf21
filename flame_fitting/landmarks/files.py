"""Landmark files of a capture: `landmarks2d/<detector>.npz`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz
from flame_fitting.landmarks.registry import DETECTORS
from flame_fitting.landmarks.schemes import SCHEMES

_POINTS = {scheme.name: scheme.n_points for scheme in SCHEMES.values() if scheme.of_detectors}
_KNOWN = f"Known are {', '.join(f'{name} ({count} points)' for name, count in _POINTS.items())}."


@dataclass(eq=False)
class Landmarks2D:
    """Detections in the views of a capture, or points that a user brings: those need no detector."""

    landmarks: Float32[ndarray, "T C N 3"]
    """x px, y px, confidence 0..1 by timestep and camera, both ascending; NaN where nothing was found or no view is."""
    scheme: str
    """Landmark order, e.g. `mediapipe478`."""
    detector: str
    """Name of the detector."""
    detector_version: str = ""
    """Which weights and settings made them."""

    @property
    def made_here(self) -> bool:
        """Whether one of this program's detectors made them, so that its weights are known."""
        return self.detector in DETECTORS and bool(self.detector_version)

    @property
    def found(self) -> ndarray:
        """Bool (T, C): views with a face."""
        return np.isfinite(self.landmarks).all(-1).any(-1)


def landmarks_path(capture_root: Path | str, detector: str) -> Path:
    """Where a capture keeps the landmarks of a detector."""
    return Path(capture_root) / "landmarks2d" / f"{detector}.npz"


def write_landmarks(capture_root: Path | str, landmarks: Landmarks2D) -> Path:
    """Writes the landmarks into a capture and returns the file."""
    path = landmarks_path(capture_root, landmarks.detector)
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary,
            landmarks=landmarks.landmarks.astype(np.float32),
            scheme=landmarks.scheme,
            detector=landmarks.detector,
            detector_version=landmarks.detector_version,
        )
    return path


def read_landmarks(capture_root: Path | str, detector: str) -> Landmarks2D:
    """Reads the landmarks of a detector from a capture."""
    path = landmarks_path(capture_root, detector)
    if not path.is_file():
        raise InputError(f"{path}: no such file. Make it with: flame-fitting detect {capture_root}")
    again = f"Run again: flame-fitting detect {capture_root}"
    arrays = read_npz(path, again, ("landmarks",), ("scheme", "detector_version"))
    landmarks = arrays["landmarks"]
    if landmarks.ndim != 4 or landmarks.shape[-1] != 3 or landmarks.dtype.kind not in "fiu":
        found = f"shape {landmarks.shape} of {landmarks.dtype}"
        raise InputError(f"{path}: landmarks have {found}, numbers (T, C, N, 3) are expected. {again}")
    count = landmarks.shape[2]
    scheme, version = str(arrays.get("scheme", _scheme_of(count))), str(arrays.get("detector_version", ""))
    if _POINTS.get(scheme, count) != count:
        raise InputError(f"{path}: has {count} points, and its scheme {scheme} has {_POINTS[scheme]}. {_KNOWN}")
    landmarks = landmarks.astype(np.float32)
    return Landmarks2D(landmarks, scheme, detector, version)


def check_landmarks(capture: Capture, detected: Landmarks2D) -> None:
    """Refuses landmarks that no fit of the capture can take: of an unknown order, or of other views."""
    path = landmarks_path(capture.root, detected.detector)
    if detected.scheme not in _POINTS:
        raise InputError(f"{path}: {detected.landmarks.shape[2]} points of the scheme {detected.scheme}. {_KNOWN}")
    expected, found = (len(capture.timesteps), len(capture.cameras)), detected.landmarks.shape[:2]
    if found != expected:
        raise InputError(
            f"{path}: has {found[0]} timesteps and {found[1]} cameras, the capture {expected[0]} and {expected[1]}. "
            "Give a row for each timestep and camera, ascending, NaN where nothing was found."
        )


def _scheme_of(count: int) -> str:
    """The order of landmarks that a file does not name, by their number."""
    return next((name for name, number in _POINTS.items() if number == count), "unknown")
