"""NeRSemble's folders, v1 and v2, as VHAP reads them.

v1: `<root>/<subject>/<sequence>/images/cam_<camera>_<6 digits>.jpg`,
`<root>/camera_params/<subject>/camera_params.json`, `<root>/color_correction/<subject>/<camera>.npy`.
v2: `<root>/<subject>/sequences/<sequence>/images/...`, `<root>/<subject>/calibration/camera_params.json` and
`color_calibration.json`. Extrinsics are world to camera, OpenCV axes, metres.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.camera import scaled_intrinsics
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.color_correction import (
    AffineCorrection,
    ColorCorrection,
    PolynomialCorrection,
    polynomial_terms,
)
from flame_fitting.capture.layouts.folder import ALPHA_MAPS, IMAGES, picture_size, pictures_in
from flame_fitting.capture.making import PictureMaking
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from flame_fitting.files import read_json_object, reason, shown

Array = NDArray[np.float64]

CALIBRATION_SIZE = (3208, 2200)
"""Height and width (px) of NeRSemble's cameras."""
_NAME = re.compile(r"cam_(?P<camera>.+)_(?P<timestep>\d+)")
_AGAIN = "Make the pictures anew: flame-fitting preprocess --input FOLDER"
_COPY = "Copy it from the download of the data set."


@dataclass(frozen=True)
class RecordingFiles:
    """Where the files of a recording lie."""

    version: int
    cameras: Path
    """camera_params.json."""
    colors: Path
    """v1: the folder of .npy files; v2: color_calibration.json."""


def is_picture_of_rig(stem: str) -> bool:
    """Whether a picture is called as those of several cameras are."""
    return _NAME.fullmatch(stem) is not None


def recording_files(root: Path) -> RecordingFiles:
    """Where the calibration of a recording's folder is expected; v2 where the folder's parent is `sequences`."""
    root = root.absolute()
    if root.parent.name == "sequences":
        folder = root.parent.parent / "calibration"
        return RecordingFiles(2, folder / "camera_params.json", folder / "color_calibration.json")
    top, subject = root.parent.parent, root.parent.name
    return RecordingFiles(1, top / "camera_params" / subject / "camera_params.json", top / "color_correction" / subject)


def read_nersemble(root: Path, options: ReadOptions) -> Capture:
    """All pictures of a recording that has cameras, at full size."""
    files = recording_files(root)
    folder, n = IMAGES, 1
    names = pictures_in(root / folder)
    if not names and options.n_downsample_rgb is not None:
        n = options.n_downsample_rgb
        folder = f"{IMAGES}_{n}"
        names = pictures_in(root / folder)
    found = {stem: match for stem in names if (match := _NAME.fullmatch(stem)) is not None}
    if not found:
        raise InputError(f"{root / IMAGES}: has no pictures called cam_<camera>_<timestep>. {_AGAIN}")
    calibration = _Calibration(files.cameras, options)
    with_pictures = {match["camera"] for match in found.values()}
    cameras = sorted(with_pictures & calibration.world_to_camera.keys())
    notes = list[str]()
    if not cameras:
        raise InputError(
            f"{files.cameras}: has the cameras {shown(calibration.world_to_camera, 4)}, {root / folder} pictures of "
            f"{shown(with_pictures, 4)}. Put the calibration of this recording there."
        )
    if unknown := sorted(with_pictures - set(cameras)):
        notes.append(f"{files.cameras}: lacks the camera {shown(unknown, 4)}; its pictures are left out")
    if unseen := sorted(calibration.world_to_camera.keys() - with_pictures):
        notes.append(f"{root / folder}: has no pictures of the camera {shown(unseen, 4)}")
    timesteps = sorted({match["timestep"] for match in found.values()})
    numbers = {name: number for number, name in enumerate(timesteps)}
    places = {name: number for number, name in enumerate(cameras)}
    corrections, said = _corrections(files, cameras) if options.use_color_correction else ({}, [])
    notes += said
    masks = pictures_in(root / ALPHA_MAPS)
    intrinsics: dict[str, Array] = {}
    makings: dict[str, PictureMaking] = {}
    views = []
    for stem, match in found.items():
        camera = match["camera"]
        if camera not in places:
            continue
        if camera not in makings:
            stored = picture_size(root / folder / names[stem], _AGAIN)
            full = (stored[0] * n, stored[1] * n)
            makings[camera] = PictureMaking(stored=stored, full=full, color=corrections.get(camera))
            intrinsics[camera] = calibration.K(camera, *full)
        full = makings[camera].full
        views.append(
            View(
                timestep=numbers[match["timestep"]],
                camera=places[camera],
                role="fit",
                K=intrinsics[camera],
                world_to_camera=calibration.world_to_camera[camera],
                width=full[0],
                height=full[1],
                file_path=f"{folder}/{names[stem]}",
                mask_path=f"{ALPHA_MAPS}/{masks[stem]}" if stem in masks else None,
                timestep_id=match["timestep"],
                camera_id=camera,
                making=makings[camera],
            )
        )
    views.sort(key=lambda view: (view.timestep, view.camera))
    lacking = sum(view.mask_path is None for view in views)
    if masks and lacking:
        notes.append(f"{root / ALPHA_MAPS}: {lacking} of {len(views)} pictures have no alpha map")
    return Capture(
        root=root,
        views=views,
        kind=f"nersemble-v{files.version}",
        composited=False,
        notes=(*calibration.notes, *notes),
        sources=(files.cameras, *_color_files(files, corrections)),
    )


class _Calibration:
    """camera_params.json."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        if not path.is_file():
            raise InputError(
                f"{path}: no such file. It holds the cameras of the recording: v1 has it in "
                "<root>/camera_params/<subject>/, v2 in <root>/<subject>/calibration/. " + _COPY
            )
        self.path, self.notes = path, list[str]()
        data = read_json_object(path, _COPY)
        poses, intrinsics = data.get("world_2_cam"), data.get("intrinsics")
        if not isinstance(poses, dict) or not poses or intrinsics is None:
            raise InputError(f"{path}: lacks world_2_cam or intrinsics. {_COPY}")
        self.world_to_camera = {str(name): self._pose(str(name), pose) for name, pose in poses.items()}
        self._intrinsics: Any = intrinsics
        self._sizes: Any = (data.get("height"), data.get("width"))
        self._fallback = options.image_size_during_calibration
        self._said: set[tuple[int, int]] = set()

    def K(self, camera: str, width: int, height: int) -> Array:
        """(3, 3) px of a camera whose pictures have this size; the file's is for the pictures of the calibration."""
        shared = not isinstance(self._intrinsics, dict)
        if not shared and camera not in self._intrinsics:
            raise InputError(f"{self.path}: intrinsics lack the camera {camera}. {_COPY}")
        K = self._matrix(self._intrinsics if shared else self._intrinsics[camera], (3, 3), f"intrinsics of {camera}")
        if K[0, 0] <= 0 or K[1, 1] <= 0:
            raise InputError(f"{self.path}: the focal length of the camera {camera} is not positive. {_COPY}")
        calibrated = self._size(camera)
        if abs(calibrated[1] * height - calibrated[0] * width) > 0.02 * calibrated[0] * width:
            raise InputError(
                f"{self.path}: its intrinsics are for pictures of {calibrated[1]} x {calibrated[0]}, those of the "
                f"camera {camera} are {width} x {height}, which is another shape. Give height and width there, or "
                "--data.image-size-during-calibration HEIGHT WIDTH."
            )
        return scaled_intrinsics(K, calibrated, (height, width))

    def _size(self, camera: str) -> tuple[int, int]:
        """(H, W) px of the camera's pictures when it was calibrated."""
        said: list[Any] = [value.get(camera) if isinstance(value, dict) else value for value in self._sizes]
        if all(value is not None for value in said):
            try:
                height, width = (int(value) for value in said)
                if height > 0 and width > 0:
                    return height, width
            except (TypeError, ValueError):
                pass
            raise InputError(f"{self.path}: height and width are no numbers of pixels. {_COPY}")
        size = self._fallback or CALIBRATION_SIZE
        if size not in self._said:
            self._said.add(size)
            self.notes.append(
                f"{self.path}: does not say for which size its intrinsics are; {size[1]} x {size[0]} is assumed"
                + ("" if self._fallback else ", the size of NeRSemble's cameras")
            )
        return size

    def _pose(self, camera: str, value: Any) -> Array:
        pose = self._matrix(value, None, f"world_2_cam of {camera}")
        if pose.shape == (3, 4):
            pose = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])
        rotation = pose[:3, :3]
        if pose.shape != (4, 4) or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
            raise InputError(f"{self.path}: world_2_cam of {camera} is no 4x4 rigid motion. {_COPY}")
        if np.linalg.det(rotation) < 0:
            raise InputError(f"{self.path}: world_2_cam of {camera} mirrors. Remove the mirroring.")
        return pose

    def _matrix(self, value: Any, shape: tuple[int, int] | None, what: str) -> Array:
        try:
            matrix = np.array(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path}: {what} is no matrix ({reason(error)}). {_COPY}") from error
        if matrix.ndim != 2 or (shape is not None and matrix.shape != shape) or not np.isfinite(matrix).all():
            raise InputError(f"{self.path}: {what} is no matrix of finite numbers. {_COPY}")
        return matrix


def _corrections(files: RecordingFiles, cameras: list[str]) -> tuple[dict[str, ColorCorrection], list[str]]:
    """The correction of each camera that has one, and what is to be said of the others."""
    if not files.colors.exists():
        return {}, [f"{files.colors}: not there, so the colours of the cameras are left as they are"]
    found: dict[str, ColorCorrection] = {}
    if files.version == 1:
        for camera in cameras:
            path = files.colors / f"{camera}.npy"
            if path.is_file():
                matrix = _read_array(path)
                if matrix.ndim != 2 or matrix.shape[0] < 3 or matrix.shape[1] < 4:
                    raise InputError(f"{path}: is {matrix.shape}, an affine matrix (3, 4) is expected. {_COPY}")
                found[camera] = AffineCorrection(matrix[:3, :3], matrix[:3, 3])
    else:
        for camera, value in read_json_object(files.colors, _COPY).items():
            if camera in cameras:
                found[camera] = PolynomialCorrection(_polynomial(files.colors, camera, value))
    lacking = [camera for camera in cameras if camera not in found]
    said = [f"{files.colors}: has no correction for the camera {shown(lacking, 4)}; its colours are left as they are"]
    return found, said if lacking else []


def _polynomial(path: Path, camera: str, value: Any) -> Array:
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.ndim != 2 or matrix.shape[0] != 3 or not np.isfinite(matrix).all():
        raise InputError(f"{path}: the matrix of the camera {camera} is none of three rows of numbers. {_COPY}")
    if matrix.shape[1] not in polynomial_terms():
        terms = ", ".join(str(count) for count in polynomial_terms())
        raise InputError(
            f"{path}: the polynomial of the camera {camera} has {matrix.shape[1]} terms; known are {terms}. "
            "Leave the correction out with --data.no-use-color-correction."
        )
    return matrix


def _color_files(files: RecordingFiles, corrections: dict[str, ColorCorrection]) -> list[Path]:
    if not corrections:
        return []
    return [files.colors] if files.version == 2 else [files.colors / f"{camera}.npy" for camera in corrections]


def _read_array(path: Path) -> Array:
    try:
        array = np.load(path, allow_pickle=False)
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ValueError("it holds no finite numbers")
        return np.asarray(array, dtype=np.float64)
    except Exception as error:  # NumPy raises many kinds over damaged bytes
        raise InputError(f"{path}: not a readable .npy file ({reason(error)}). {_COPY}") from error
