"""VHAP's landmark files: `landmark2d/<NAME>.npz` of a single camera, `landmark2d/<NAME>/<camera>.npz` of several.

`face_landmark_2d` (T, 68, 3): x and y over the picture's width and height, a confidence; iBUG-68; -1 where nothing was
found. A row for each timestep of the folder, in the order of their names. `bounding_box` (T, 5) is written, not read.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz

FOLDER = "landmark2d"
_NAMES = {"star": "STAR"}
"""What VHAP calls a detector, where it is not the name in lower case."""
_POINTS = 68
_AGAIN = "Delete it and detect the landmarks again."


def vhap_name(detector: str) -> str:
    """What VHAP calls a detector."""
    return _NAMES.get(detector.lower(), detector)


def vhap_path(capture: Capture, detector: str) -> Path:
    """Where VHAP keeps the points of a detector in this folder: a file for a single camera, else a folder."""
    stem = capture.root / FOLDER / vhap_name(detector)
    return stem.with_name(f"{stem.name}.npz") if len(capture.camera_ids) == 1 else stem


def find_vhap(capture: Capture, detector: str) -> Path | None:
    """VHAP's file or folder of a detector, its name in any case; None where there is none."""
    wanted = vhap_path(capture, detector)
    if not wanted.parent.is_dir():
        return None
    for entry in sorted(wanted.parent.iterdir()):
        if entry.name.lower() == wanted.name.lower() and (entry.is_dir() or entry.suffix == ".npz"):
            return entry
    return None


def vhap_names(capture: Capture) -> list[str]:
    """Names of the detectors that the folder has VHAP's files of, as they are called there."""
    folder = capture.root / FOLDER
    if not folder.is_dir():
        return []
    single = len(capture.camera_ids) == 1
    return sorted(e.stem if single else e.name for e in folder.iterdir() if (e.suffix == ".npz") == single)


def read_vhap(capture: Capture, path: Path) -> Float32[ndarray, "T C 68 3"]:
    """x px, y px of the full pictures and a confidence; all timesteps and cameras of the folder, NaN where missing."""
    steps, cameras = list(capture.timestep_ids), list(capture.camera_ids)
    landmarks = np.full((len(steps), len(cameras), _POINTS, 3), np.nan, dtype=np.float32)
    sizes = {view.camera: view.full_size for view in capture.views}
    for place, camera in enumerate(cameras):
        file = path if path.suffix == ".npz" else path / f"{capture.camera_ids[camera]}.npz"
        if camera not in sizes or (path.suffix != ".npz" and not file.is_file()):
            continue
        points = read_npz(file, _AGAIN, ("face_landmark_2d",))["face_landmark_2d"]
        if points.shape != (len(steps), _POINTS, 3) or points.dtype.kind not in "fiu":
            raise InputError(
                f"{file}: face_landmark_2d is {points.shape}, ({len(steps)}, {_POINTS}, 3) is expected: a row for each "
                f"timestep of {capture.root}. {_AGAIN}"
            )
        found = points.astype(np.float64) * (*sizes[camera], 1.0)
        found[(points[..., :2] <= -1).all(-1) | ~np.isfinite(points).all(-1)] = np.nan
        landmarks[:, place] = found
    return landmarks


def write_vhap(capture: Capture, detector: str, landmarks: Float32[ndarray, "T C 68 3"]) -> Path:
    """Writes landmarks (px of the full pictures, all timesteps and cameras of the folder) as VHAP does."""
    path = vhap_path(capture, detector)
    sizes = {view.camera: view.full_size for view in capture.views}
    for place, (camera, name) in enumerate(capture.camera_ids.items()):
        if camera not in sizes:
            continue
        points = landmarks[:, place] / np.array([*sizes[camera], 1.0], dtype=np.float32)
        missing = ~np.isfinite(points).all(axis=(1, 2))
        points = np.where(np.isfinite(points), points, -1.0).astype(np.float32)
        box = np.concatenate([points[..., :2].min(1), points[..., :2].max(1), np.ones((len(points), 1))], axis=1)
        box[missing] = -1.0
        points[missing] = -1.0
        with atomic_write(path if path.suffix == ".npz" else path / f"{name}.npz") as temporary:
            np.savez(temporary, bounding_box=box.astype(np.float32), face_landmark_2d=points)
    return path
