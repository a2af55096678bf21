"""Landmark files of a capture: `landmarks2d/<detector>.npz`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz

N_POINTS = {"mediapipe478": 478, "ibug68": 68}
"""Landmark orders and their numbers of points."""


@dataclass(eq=False)
class Landmarks2D:
    """Detections in the views of a capture."""

    landmarks: Float32[ndarray, "T C N 3"]
    """x px, y px, confidence 0..1 by timestep and camera, both ascending; NaN where nothing was found or no view is."""
    scheme: str
    """Landmark order, e.g. `mediapipe478`."""
    detector: str
    """Name of the detector."""
    detector_version: str = ""
    """Which weights and settings made them."""

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
    arrays = read_npz(path, again, ("landmarks", "scheme"), ("detector_version",))
    landmarks, scheme = arrays["landmarks"], str(arrays["scheme"])
    version = str(arrays.get("detector_version", ""))
    if landmarks.ndim != 4 or landmarks.shape[-1] != 3 or landmarks.dtype.kind not in "fiu":
        found = f"shape {landmarks.shape} of {landmarks.dtype}"
        raise InputError(f"{path}: landmarks have {found}, numbers (T, C, N, 3) are expected. {again}")
    if N_POINTS.get(scheme) != landmarks.shape[2]:
        known = ", ".join(f"{name} ({count})" for name, count in N_POINTS.items())
        raise InputError(f"{path}: has {landmarks.shape[2]} points in the order '{scheme}'; known are {known}. {again}")
    landmarks = landmarks.astype(np.float32)
    return Landmarks2D(landmarks, scheme, detector, version)
