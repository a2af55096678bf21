"""Landmark files of a capture: `landmarks2d/<detector>.npz`, or VHAP's in `landmark2d/`.

Files count pixels of the folder's pictures at full size and have a row for each of its timesteps and cameras; in memory
landmarks are those of the views that were chosen, at the size that these are read at.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz
from flame_fitting.landmarks.other_faces import OtherFaces
from flame_fitting.landmarks.registry import DETECTORS
from flame_fitting.landmarks.schemes import SCHEMES
from flame_fitting.landmarks.vhap_files import FOLDER as VHAP_FOLDER
from flame_fitting.landmarks.vhap_files import find_vhap, read_vhap, vhap_name, vhap_names, write_vhap

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
    searched: Bool[ndarray, "T C"] | None = None
    """Where a face was looked for; None: nothing is known of that."""
    scores: Float32[ndarray, "T C S"] | None = None
    """The detector's expression scores of these faces; NaN where nothing was found. None: it has none."""
    score_names: tuple[str, ...] = ()
    """What the scores are called."""
    others: OtherFaces = field(default_factory=OtherFaces)
    """Further faces in the same pictures, in px of the full pictures."""

    @property
    def label(self) -> str:
        """The detector, and the version that says its weights by their hash."""
        return f"{self.detector} {self.detector_version}".strip()

    @property
    def made_here(self) -> bool:
        """Whether one of this program's detectors made them, so that its weights are known."""
        return self.detector in DETECTORS and bool(self.detector_version)

    @property
    def found(self) -> ndarray:
        """Bool (T, C): views with a face."""
        return np.isfinite(self.landmarks).all(-1).any(-1)

    def covers(self, capture: Capture, views: list[View]) -> bool:
        """Whether a face was looked for in these views of the capture that the landmarks were read for."""
        if self.searched is None:
            return True
        rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
        columns = {camera: column for column, camera in enumerate(capture.cameras)}
        return all(self.searched[rows[view.timestep], columns[view.camera]] for view in views)


def landmarks_path(capture_root: Path | str, detector: str) -> Path:
    """Where a capture keeps the landmarks of a detector."""
    return Path(capture_root) / "landmarks2d" / f"{detector}.npz"


def find_landmarks(capture: Capture, detector: str) -> Path | None:
    """The file (of VHAP's for several cameras: the folder) that holds a detector's landmarks; ours before VHAP's."""
    path = landmarks_path(capture.root, detector)
    return path if path.is_file() else find_vhap(capture, detector)


def landmarks_in(path: Path, detector: str, options: ReadOptions) -> Path | None:
    """The same of a folder that need not be opened where it has landmarks of this program."""
    ours = landmarks_path(path, detector)
    if ours.is_file() or not (Path(path) / VHAP_FOLDER).is_dir():
        return ours if ours.is_file() else None
    return find_vhap(open_capture(path, options), detector)


def label_in(path: Path, detector: str) -> str:
    """`Landmarks2D.label` of a folder's landmarks, the detector alone where they are missing or damaged."""
    ours = landmarks_path(path, detector)
    try:
        version = (
            str(read_npz(ours, "", (), ("detector_version",)).get("detector_version", "")) if ours.is_file() else ""
        )
    except InputError:
        version = ""
    return f"{detector} {version}".strip()


def landmark_names(capture: Capture) -> list[str]:
    """Names of all detectors that the capture has landmarks of, as `read_landmarks` takes them."""
    ours = sorted(path.stem for path in landmarks_path(capture.root, "").parent.glob("*.npz"))
    known = {vhap_name(name).lower() for name in ours}
    return ours + [name for name in vhap_names(capture) if name.lower() not in known]


def write_landmarks(capture: Capture, landmarks: Landmarks2D) -> Path:
    """Writes landmarks of all timesteps and cameras of the folder, in px of its full pictures; returns the file.

    In a folder of VHAP's kinds iBUG-68 points are also written as VHAP's.
    """
    path = landmarks_path(capture.root, landmarks.detector)
    found = landmarks.landmarks.astype(np.float32)
    arrays: dict[str, Any] = {
        "landmarks": found,
        "scheme": landmarks.scheme,
        "detector": landmarks.detector,
        "detector_version": landmarks.detector_version,
    }
    if landmarks.searched is not None:
        arrays["searched"] = landmarks.searched
    if landmarks.scores is not None:
        arrays |= {"scores": landmarks.scores.astype(np.float32), "score_names": np.array(landmarks.score_names)}
    if len(landmarks.others):
        arrays |= landmarks.others.arrays()
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)
    if landmarks.scheme == "ibug68" and (capture.kind == "monocular" or capture.kind.startswith("nersemble")):
        write_vhap(capture, landmarks.detector, found)
    return path


def read_landmarks(capture: Capture, detector: str) -> Landmarks2D:
    """The landmarks of a detector in the views of a capture, in px of the pictures as they are read.

    Raises InputError where there are none, or they are not of this folder's timesteps and cameras.
    """
    whole = read_whole_landmarks(capture, detector)
    check_size(capture, whole)
    rows = [capture.row_of[timestep] for timestep in capture.timesteps]
    chosen = np.ix_(rows, [capture.column_of[camera] for camera in capture.cameras])
    return replace(
        whole,
        landmarks=whole.landmarks[chosen] * _scale(capture),
        searched=None if whole.searched is None else whole.searched[chosen],
        scores=None if whole.scores is None else whole.scores[chosen],
        others=OtherFaces(),
    )


def read_whole_landmarks(capture: Capture, detector: str) -> Landmarks2D:
    """The landmarks of a detector as its file has them: of all timesteps and cameras, in px of the full pictures."""
    path, again = find_landmarks(capture, detector), f"Run again: flame-fitting detect {capture.root}"
    if path is None:
        missing = landmarks_path(capture.root, detector)
        raise InputError(f"{missing}: no such file. Make it with: flame-fitting detect {capture.root}")
    if path.is_relative_to(capture.root / VHAP_FOLDER):
        return Landmarks2D(read_vhap(capture, path), "ibug68", detector)
    optional = ("scheme", "detector_version", "searched", "scores", "score_names", *OtherFaces.NAMES)
    arrays = read_npz(path, again, ("landmarks",), optional)
    landmarks, searched = arrays["landmarks"], arrays.get("searched")
    if landmarks.ndim != 4 or landmarks.shape[-1] != 3 or landmarks.dtype.kind not in "fiu":
        found = f"shape {landmarks.shape} of {landmarks.dtype}"
        raise InputError(f"{path}: landmarks have {found}, numbers (T, C, N, 3) are expected. {again}")
    if searched is not None and (searched.shape != landmarks.shape[:2] or searched.dtype != bool):
        raise InputError(f"{path}: searched is {searched.shape}, not that of its landmarks. {again}")
    scores, names = arrays.get("scores"), tuple(map(str, np.atleast_1d(arrays.get("score_names", np.array([])))))
    if scores is not None and (scores.shape != (*landmarks.shape[:2], len(names)) or scores.dtype.kind != "f"):
        raise InputError(f"{path}: scores are {scores.shape}, not one for each view and name. {again}")
    count = landmarks.shape[2]
    scheme, version = str(arrays.get("scheme", _scheme_of(count))), str(arrays.get("detector_version", ""))
    if _POINTS.get(scheme, count) != count:
        raise InputError(f"{path}: has {count} points, and its scheme {scheme} has {_POINTS[scheme]}. {_KNOWN}")
    made = Landmarks2D(landmarks.astype(np.float32), scheme, detector, version, searched)
    others = OtherFaces.of_arrays(arrays, landmarks.shape, len(names), f"{path}", again)
    return replace(made, scores=None if scores is None else scores.astype(np.float32), score_names=names, others=others)


def without_heldout(capture: Capture, found: Landmarks2D) -> Landmarks2D:
    """The landmarks without those of held-out views, which no fit may look at; all where there are no other views."""
    apart = capture.views_of("heldout")
    if not apart or len(apart) == len(capture.views):
        return found
    rows = [capture.timesteps.index(view.timestep) for view in apart]
    columns = [capture.cameras.index(view.camera) for view in apart]
    blank: dict[str, Any] = {}
    for name in ("landmarks", "scores"):
        values = getattr(found, name)
        if values is not None:
            blank[name] = values.copy()
            blank[name][rows, columns] = np.nan
    return replace(found, **blank)


def check_size(capture: Capture, whole: Landmarks2D) -> None:
    """Refuses landmarks of other timesteps or cameras than the capture's folder has."""
    expected, found = (len(capture.timestep_ids), len(capture.camera_ids)), whole.landmarks.shape[:2]
    if found != expected:
        raise InputError(
            f"{landmarks_path(capture.root, whole.detector)}: has {found[0]} timesteps and {found[1]} cameras, the "
            f"capture {expected[0]} and {expected[1]}. "
            "Give a row for each timestep and camera, ascending, NaN where nothing was found."
        )


def check_landmarks(capture: Capture, detected: Landmarks2D) -> None:
    """Refuses landmarks that no fit of the capture can take: of an unknown order."""
    if detected.scheme not in _POINTS:
        path = landmarks_path(capture.root, detected.detector)
        raise InputError(f"{path}: {detected.landmarks.shape[2]} points of the scheme {detected.scheme}. {_KNOWN}")


def _scale(capture: Capture) -> Float32[ndarray, "T C 1 3"]:
    """What takes px of the full pictures to those of the views; 1 where there is no view."""
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    columns = {camera: column for column, camera in enumerate(capture.cameras)}
    out = np.ones((len(rows), len(columns), 1, 3), dtype=np.float32)
    for view in capture.views:
        width, height = view.full_size
        out[rows[view.timestep], columns[view.camera], 0, :2] = view.width / width, view.height / height
    return out


def _scheme_of(count: int) -> str:
    """The order of landmarks that a file does not name, by their number."""
    return next((name for name, number in _POINTS.items() if number == count), "unknown")
