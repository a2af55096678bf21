"""Landmark files of a capture: `landmarks2d/<detector>.npz`."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write


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
    try:
        with np.load(path, allow_pickle=False) as data:
            landmarks, scheme = data["landmarks"].astype(np.float32), str(data["scheme"])
            version = str(data["detector_version"]) if "detector_version" in data else ""
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a landmark file ({error}). Run detect again.") from error
    if landmarks.ndim != 4 or landmarks.shape[-1] != 3:
        raise InputError(f"{path}: landmarks have shape {landmarks.shape}, (T, C, N, 3) is expected. Run detect again.")
    return Landmarks2D(landmarks, scheme, detector, version)
